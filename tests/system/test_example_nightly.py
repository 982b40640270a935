"""The nightly job of the examples, killed again and again."""

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from commenda_customers import Customer
from commenda_customers.testing import Emulator, faults
from emulated import ServeEmulator
from forks import fork

PROGRAM = Path(__file__).parent.parent.parent / "examples" / "nightly.py"
TROUBLE = [
    faults.Drop(probability=0.01),
    faults.CutBody(probability=0.01),
    faults.Status(probability=0.01),
    faults.TooManyRequests(probability=0.01, retry_after="0"),
]
KILLS = 8
STEPS = (1, 2, 3, 5, 8, 14, 30)


def customer(corporation_id: str, number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"{corporation_id}_{number}", "corporation_id": corporation_id, "name": f"Customer {number}", **changes}


def invalid_rows(name: str) -> list[Any]:
    """Return rows of every kind that is not valid; each that has an id has one of its own."""
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    return [
        *(None, 5, "text", [1], deep, {}, {"id": 7, "corporation_id": name}),
        customer(name, 9001, name=12345),
        customer(name, 9002, created_at="yesterday"),
        customer(name, 9003, name=["\x00", {"ü": 10**30}]),
    ]


def make_lists(draw: random.Random) -> dict[str, list[Any]]:
    """Return 300 corporations; several have invalid rows, two have several pages."""
    lists: dict[str, list[Any]] = {}
    for index in range(300):
        name = f"corp_{index}"
        size = 230 if index in {40, 200} else draw.randrange(31)
        rows: list[Any] = [customer(name, number) for number in range(size)]
        if index % 40 == 0:
            for row in invalid_rows(name):
                rows.insert(draw.randrange(len(rows) + 1), row)
        if size > 100:
            rows[50] = rows[150] = None  # the same row of two pages
        lists[name] = rows
    return lists


def is_valid(row: Any) -> bool:
    if not isinstance(row, dict):
        return False

    return isinstance(row.get("id"), str) and isinstance(row.get("name"), str) and "created_at" not in row


def die_after(steps: int | None) -> None:
    """Let this process kill itself after so many steps of writing to the database: a statement or a commit."""
    left = steps or -1

    def step() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    class Connection(sqlite3.Connection):
        def execute(self, *args: Any) -> Any:
            try:
                return super().execute(*args)
            finally:
                step()

        def __exit__(self, *args: object) -> Any:
            step()
            try:
                return super().__exit__(*args)  # type: ignore[arg-type]
            finally:
                step()

    sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]  # overloaded


@dataclass
class Job:
    """The folder in which the job runs."""

    folder: Path
    names: list[str]

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text(encoding="utf-8")

    def start(self, steps: int | None = None) -> Any:
        (self.folder / "ids.txt").write_text("\n".join(self.names), encoding="utf-8")
        errors = self.folder / "errors"
        return fork(PROGRAM, "ids.txt", folder=self.folder, errors=errors, prepare=partial(die_after, steps))

    def run(self, steps: int | None = None) -> int:
        process = self.start(steps)
        process.join()
        assert isinstance(process.exitcode, int)
        return process.exitcode

    def kill_when(self, is_time: Callable[[], bool], delay: float) -> int:
        process = self.start()
        while process.is_alive() and not is_time():
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.join()
        assert isinstance(process.exitcode, int)
        return process.exitcode

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "customers.sqlite")) as db:
            return db.execute(query).fetchall()

    def customers(self) -> dict[tuple[str, str], Any]:
        found = self.rows("select corporation_id, id, record from customers")
        return {(name, identifier): Customer.model_validate_json(record) for name, identifier, record in found}

    def invalid(self) -> Counter[tuple[str, str]]:
        return Counter(self.rows("select corporation_id, raw from invalid_customers"))


def held(server: Emulator, *names: str) -> dict[tuple[str, str], Any]:
    """Return the valid customers that the server has."""
    rows = [(name, row) for name in names for row in server.customers(name) if is_valid(row)]
    return {(name, row["id"]): Customer.model_validate(row) for name, row in rows}


def invalid_of(server: Emulator, *names: str) -> Counter[tuple[str, str]]:
    return Counter((name, json.dumps(row)) for name in names for row in server.customers(name) if not is_valid(row))


def test_it_is_exact_however_often_it_is_killed(serve: ServeEmulator, tmp_path: Path) -> None:
    """Killed at any moment and run again, it has every customer and every invalid row once, also a row without an id."""
    draw = random.Random(8)
    lists = make_lists(draw)
    server = serve(lists, latency=0.005, faults=TROUBLE)
    job = Job(tmp_path, list(lists))
    journal = tmp_path / "customers.sqlite-journal"  # exists as long as a transaction is open
    killed = 0
    for kill in range(KILLS):
        goal = len(server.requests) + draw.randrange(1, 40)

        def is_time(goal: int = goal, in_transaction: bool = kill % 2 == 0) -> bool:
            return len(server.requests) >= goal and (journal.exists() or not in_transaction)

        code = job.kill_when(is_time, delay=draw.uniform(0, 0.005))
        assert code in {0, -signal.SIGKILL}, job.errors
        killed += code != 0
    for steps in STEPS:  # and where a kill by chance seldom hits: between two steps of a transaction
        code = job.run(steps)
        assert code in {0, -signal.SIGKILL}, job.errors
        killed += code != 0
    assert killed >= 5

    assert job.run() == 0, job.errors
    assert job.customers() == held(server, *lists)
    assert job.invalid() == invalid_of(server, *lists)
    assert job.errors == f"{job.invalid().total()} rows are not valid: see the table invalid_customers\n"
    assert job.rows("select * from unfinished") == []


def test_it_follows_the_server_from_night_to_night(serve: ServeEmulator, tmp_path: Path) -> None:
    """Changed customers are updated and gone ones removed, but only where nothing can be missing."""
    job = Job(tmp_path, ["corp_1", "corp_2", "corp_3", "corp_4"])
    first = {name: [customer(name, number) for number in range(20)] for name in job.names}
    server = serve(first)
    assert (job.run(), job.errors) == (0, "")
    before = held(server, *job.names)
    assert job.customers() == before

    second: dict[str, list[Any]] = {name: rows[5:] for name, rows in first.items()}
    second["corp_1"] = [customer("corp_1", 5, name="New name"), *second["corp_1"][1:], customer("corp_1", 30)]
    second["corp_2"][3] = customer("corp_2", 8, name=12345)  # known from yesterday
    second["corp_3"][3] = None  # it may be any customer
    failing = faults.Status(404, corporation_id="corp_4")
    server = serve(second, faults=[failing])
    assert job.run() == 1
    failure, invalid = job.errors.splitlines()
    assert failure.startswith("corp_4: the server answered 404")
    assert invalid == "2 rows are not valid: see the table invalid_customers"
    kept = {key: value for key, value in before.items() if key[0] in {"corp_3", "corp_4"} or key == ("corp_2", "corp_2_8")}
    assert job.customers() == kept | held(server, "corp_1", "corp_2", "corp_3")
    assert job.rows("select corporation_id, id, row_index, errors from invalid_customers order by 1") == [
        ("corp_2", "corp_2_8", 3, "name: Input should be a valid string"),
        ("corp_3", None, 3, "the row is not an object"),
    ]

    server.faults.remove(failing)
    asked = len(server.requests)
    assert job.run() == 0
    assert {request.params["corporation_id"] for request in server.requests[asked:]} == {"corp_4"}
    assert {key for key in job.customers() if key[0] == "corp_4"} == set(held(server, "corp_4"))


class CountsTooMany(faults.Fault):
    """The server counts seven customers that it does not send."""

    def change_listing(self, listing: dict[str, Any], asked: str | None, again: str) -> dict[str, Any]:
        return {**listing, "total_customers": listing["total_customers"] + 7}


def test_it_tells_of_customers_that_are_missing(serve: ServeEmulator, tmp_path: Path) -> None:
    """If the server sends fewer customers than it counts, the job says so, and removes none."""
    job = Job(tmp_path, ["corp_1", "corp_2"])
    serve({"corp_1": 12, "corp_2": 12})
    assert job.run() == 0
    serve({"corp_1": 5, "corp_2": 5}, faults=[CountsTooMany(corporation_id="corp_2")])
    assert job.run() == 0
    assert job.errors == "corp_2: the server counted 7 more customers than it sent\n"
    assert Counter(name for name, _id in job.customers()) == {"corp_1": 5, "corp_2": 12}


@pytest.mark.parametrize(("hours", "resumes"), [(0, True), (24, False)])
def test_only_a_run_of_the_same_night_is_resumed(hours: int, resumes: bool, serve: ServeEmulator, tmp_path: Path) -> None:
    """A run that was stopped resumes from its last page, but a day later it starts anew, because what it has is old."""
    job = Job(tmp_path, ["corp_1"])
    server = serve({"corp_1": 250}, faults=[faults.Hang(at=[3])])

    def has_saved_two_pages() -> bool:
        return len(server.requests) == 3 and job.rows("select count(*) from customers") == [(200,)]

    job.kill_when(has_saved_two_pages, delay=0)
    with closing(sqlite3.connect(tmp_path / "customers.sqlite")) as db, db:
        db.execute("update unfinished set run = run - ? * 3600 * 1000000000", (hours,))
    asked = len(server.requests)
    assert job.run() == 0
    assert ("cursor" in server.requests[asked].params) is resumes
    assert len(job.customers()) == 250


def test_a_refused_token_ends_the_job(serve: ServeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be read without a token: one line and an exit code of its own say so."""
    serve({"corp_1": 5})
    monkeypatch.setenv("COMMENDA_API_TOKEN", "wrong")
    job = Job(tmp_path, ["corp_1"])
    assert (job.run(), job.errors.count("\n")) == (2, 1)
