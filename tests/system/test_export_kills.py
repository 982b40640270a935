"""Kill exports of every kind again and again. `pytest --kills N` sets how often. `nox -s kills` does it many times."""

import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from commenda_customers.testing import Emulator, faults
from emulated import ServeEmulator
from exports import KINDS, Export, Kind, die_after, held, invalid_held, make_lists, prepare_export

pytestmark = pytest.mark.one_python

TROUBLE = [
    faults.Drop(probability=0.02),
    faults.CutBody(probability=0.02),
    faults.Status(probability=0.02),
    faults.TooManyRequests(probability=0.01, retry_after="0"),
]


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


def kill_at_request(job: Export, server: Emulator, goal: int, delay: float) -> tuple[int, str]:
    """Start an export. Kill it a moment after the server has received a number of requests."""
    running = job.start()
    while running.is_alive and len(server.requests) < goal:
        time.sleep(0.001)
    time.sleep(delay)
    running.kill()
    return running.wait()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_export_is_exact_however_often_it_is_killed(kind: Kind, kills: int, serve: ServeEmulator, tmp_path: Path) -> None:
    """Killed at any moment or line, and run again, an export has every customer and every invalid row exactly once."""
    draw = random.Random(kind.name)
    lists = make_lists(draw)
    server = serve(lists, latency=0.002, faults=TROUBLE)
    folder = tmp_path / "out"
    folder.mkdir()
    job = prepare_export(kind, folder, server, lists)
    killed = 0
    while killed < kills:
        if killed % 2:
            code, error = job.finish(partial(die_after, int(10 ** draw.uniform(0, 3.5))))
        else:
            goal = len(server.requests) + draw.randrange(40)
            code, error = kill_at_request(job, server, goal, draw.uniform(0, 0.005))
        assert code in {0, -signal.SIGKILL}, error
        killed += code != 0
        if code == 0:  # it was faster than the kill
            shutil.rmtree(folder)
            folder.mkdir()

    assert job.finish() == (0, "")
    assert kind.rows(folder) == held(server, *lists)
    assert kind.invalid(folder) == invalid_held(server, *lists)
    assert kind.left_behind(folder) == set()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kill_costs_few_pages(kind: Kind, serve: ServeEmulator, tmp_path: Path) -> None:
    """After a kill, the next call requests at most the pages of one commit again, and two for each corporation in flight."""
    draw = random.Random(kind.name)
    sizes = {"corp_1": 700, "corp_2": 150, "corp_3": 150, "corp_4": 400, "corp_5": 10}
    server = serve(sizes, latency=0.002)
    job = prepare_export(kind, tmp_path, server, sizes, limit=10, commit_every=5, concurrency=4)
    killed = sum(
        kill_at_request(job, server, len(server.requests) + draw.randrange(20, 40), delay=0)[0] != 0 for _ in range(3)
    )
    assert killed
    assert job.finish() == (0, "")
    assert len(server.requests) <= sum(sizes.values()) / 10 + killed * (5 + 2 * 4)


def test_a_copy_follows_the_server_however_often_it_is_killed(kills: int, serve: ServeEmulator, tmp_path: Path) -> None:
    """Two runs into SQLite are killed at any moment. After the second run, the changes and gone customers are exact."""
    draw = random.Random(3)
    kind = next(kind for kind in KINDS if kind.name.endswith(".db"))
    names = [f"corp_{number}" for number in range(6)]
    old = {name: [{"id": f"c{n}", "corporation_id": name, "name": f"old {n}"} for n in range(170)] for name in names}
    new = {name: [{**row, "name": "new"} if n % 2 else row for n, row in enumerate(rows[3:])] for name, rows in old.items()}
    for lists in (old, new):
        server = serve(lists, latency=0.002, faults=TROUBLE)
        job = prepare_export(kind, tmp_path, server, names)
        for _ in range(kills):
            code, error = kill_at_request(job, server, len(server.requests) + draw.randrange(2, 20), draw.uniform(0, 0.005))
            assert code in {0, -signal.SIGKILL}, error
        assert job.finish() == (0, "")
        assert kind.left_behind(tmp_path) == set()

    with closing(sqlite3.connect(tmp_path / kind.name)) as db:
        current = db.execute("select corporation_id, id, name, changed_at > first_seen from current_customers").fetchall()
        assert sorted(current) == sorted(
            (name, row["id"], row["name"], row["name"] == "new") for name in names for row in new[name]
        )
        assert db.execute("select group_concat(distinct id) from gone_customers").fetchall() == [("c0,c1,c2",)]
        assert db.execute("select distinct state from runs").fetchall() == [("complete",)]
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
