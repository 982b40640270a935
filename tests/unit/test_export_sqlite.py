"""`SQLiteDatabase`: a copy in sync with the server."""

import json
import resource
import sqlite3
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commenda_customers import Checkpoint, Customer, CustomerPage, InvalidCustomer, ServerError
from commenda_customers.export import (
    COLUMNS,
    OutputError,
    OutputRefusedError,
    SQLiteDatabase,
    Summary,
    _lock_file,
    _sqlite_schema,
    export,
    sqlite_database,
)
from commenda_customers.testing import Emulator, faults
from emulated import connected

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run on both backends, in real time: the database works in a thread, and virtual time does not wait for threads."""
    return request.param


class Clock:
    """The clock of the export. It stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, **duration: float) -> str:
        self.now += timedelta(**duration)
        return text(self.now)


def text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sqlite_database, "_now", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "customers.db"


def customer(corporation_id: str, identifier: str, **fields: Any) -> Customer:
    return Customer.model_validate({"id": identifier, "corporation_id": corporation_id, **fields})


def page(
    corporation_id: str, *rows: str | Customer, cursor: str | None = None, total: int | None = None, **versions: str
) -> CustomerPage:
    """Return a page. `!x` is a row with the id `x` that is not valid, `?` is one without an id; `x="2"` is a name."""
    customers = [
        row if isinstance(row, Customer) else customer(corporation_id, row, name=versions.get(row))
        for row in rows
        if isinstance(row, Customer) or row[0] not in "!?"
    ]
    invalid = [
        InvalidCustomer(index, row[1:] or None, ("name: wrong", "email: wrong"), {"id": row[1:], "name": 7})
        for index, row in enumerate(rows)
        if isinstance(row, str) and row[0] in "!?"
    ]
    return CustomerPage(corporation_id, tuple(customers), total, cursor, tuple(invalid))


def failures(*names: str) -> dict[str, Any]:
    return {name: ServerError("broken", corporation_id=name) for name in names}


@asynccontextmanager
async def opened(sink: SQLiteDatabase, query: str = "q") -> AsyncGenerator[Checkpoint | None]:
    """Open a sink and make the first commit, like the export. Yield the checkpoint of the sink."""
    try:
        found = await sink.open()
        await sink.commit(found or Checkpoint(query=query))
        yield found
    finally:
        await sink.aclose()


async def sync(path: Path, *pages: CustomerPage, failing: Sequence[str] = (), **options: Any) -> Checkpoint | None:
    """Write some pages and end the run. Return the checkpoint at which it resumed."""
    sink = SQLiteDatabase(path, **options)
    async with opened(sink) as found:
        for each in pages:
            await sink.write(each)
        await sink.commit(Checkpoint(query="q", customers=len(pages)))
        await (sink.end_with_failures(failures(*failing)) if failing else sink.finish())
    return found


def rows(path: Path, query: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query, values).fetchall()


def gone(path: Path) -> list[str]:
    return [name for (name,) in rows(path, "select id from gone_customers order by id")]


def known(path: Path) -> list[str]:
    return [name for (name,) in rows(path, "select id from customers order by id")]


# --- rows ----------------------------------------------------------------------------------------------------------------


async def test_a_row_has_the_flat_columns_and_the_whole_customer(path: Path) -> None:
    """Each column has its documented type. `raw` is the customer as the API lists it."""
    everything = customer(
        "corp_1",
        "a",
        name="Nul \x00 and ü",
        email="",
        created_at=1700000000,
        shipping_address={"line1": "1 Main St", "country": "US"},
        exemption_metadata={
            "total_certificates": 0,
            "certificate_types": ["SINGLE_STATE", "MULTI"],
            "exempted_states": [],
            "active_exemptions_count": 10**30,
        },
        colour="red",
    )
    await sync(path, page("corp_1", everything))
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        (row,) = map(dict, db.execute("select * from customers"))
    assert list(row)[: len(COLUMNS)] == list(COLUMNS)
    expected = {
        "corporation_id": "corp_1",
        "id": "a",
        "name": "Nul \x00 and ü",
        "email": "",
        "created_at": "2023-11-14T22:13:20Z",
        "shipping_address_line1": "1 Main St",
        "shipping_address_country": "US",
        "exemption_metadata_total_certificates": 0,
        "exemption_metadata_certificate_types": "SINGLE_STATE;MULTI",
        "exemption_metadata_exempted_states": "",
        "exemption_metadata_active_exemptions_count": None,
    }
    extra = json.loads(row.pop("extra"))
    assert {name: row.get(name) for name in COLUMNS} == dict.fromkeys(COLUMNS) | expected
    assert extra == {"colour": "red", "exemption_metadata": {"active_exemptions_count": 10**30}}
    assert Customer.model_validate_json(row["raw"]) == everything
    assert len(row["digest"]) == 32


async def test_a_row_without_nested_parts(path: Path) -> None:
    """A missing value is null. If a customer loses a value, it is null after the next run."""
    address = customer("corp_1", "a", shipping_address={"city": "Boston"})
    await sync(path, page("corp_1", address))
    await sync(path, page("corp_1", "a", total=10**30))
    values = rows(path, f"select {', '.join(COLUMNS)} from customers")
    assert values == [("corp_1", "a", *[None] * (len(COLUMNS) - 2))]


async def test_when_a_customer_was_first_seen_last_seen_and_changed(path: Path, clock: Clock) -> None:
    """`changed_at` changes only with the digest. `last_seen` changes in each run. `first_seen` never changes."""
    query = "select first_seen, last_seen, changed_at, changed_run, last_run, name, digest from customers"
    first = text(clock.now)
    await sync(path, page("corp_1", "a", a="old"))
    assert rows(path, query)[0][:6] == (first, first, first, 1, 1, "old")
    digest = rows(path, query)[0][6]

    second = clock.move(days=1)
    await sync(path, page("corp_1", "a", a="old"))
    assert rows(path, query) == [(first, second, first, 1, 2, "old", digest)]

    third = clock.move(days=1)
    await sync(path, page("corp_1", "a", a="new"))
    assert rows(path, query)[0][:6] == (first, third, third, 3, 3, "new")
    assert rows(path, query)[0][6] != digest


async def test_an_id_that_json_functions_cannot_read(path: Path, clock: Clock) -> None:
    """An id may have any character. The export still recognizes an unchanged customer."""
    first = text(clock.now)
    await sync(path, page("corp_1", "a\x00b", "a", "ü☃"))
    second = clock.move(days=1)
    await sync(path, page("corp_1", "a\x00b", "a", "ü☃"))
    found = rows(path, "select id, last_seen, changed_at, changed_run, last_run from customers order by id")
    assert found == [(name, second, first, 1, 2) for name in ("a", "a\x00b", "ü☃")]
    assert rows(path, "select customers from corporations") == [(3,)]


@pytest.mark.parametrize("before", ["old", "new", None])
@pytest.mark.parametrize("pages", [1, 2])
async def test_the_second_row_of_a_customer_wins(path: Path, before: str | None, pages: int) -> None:
    """If a run lists a customer twice, the database has only the second row, whatever it had before."""
    if before:
        await sync(path, page("corp_1", "a", a=before))
    old, new = customer("corp_1", "a", name="old"), customer("corp_1", "a", name="new")
    both = [page("corp_1", old, new)] if pages == 1 else [page("corp_1", old, cursor="2"), page("corp_1", new)]
    await sync(path, *both)
    assert rows(path, "select name, json_extract(raw, '$.name') from customers") == [("new", "new")]
    assert rows(path, "select customers from corporations") == [(1,)]


# --- corporations and invalid rows -----------------------------------------------------------------------------------------


async def test_a_complete_corporation(path: Path, clock: Clock) -> None:
    """A complete corporation has its run, its time, the number of customers, and the count of the server."""
    pages = [page("corp_1", "a", "!b", cursor="2", total=5), page("corp_1", "c", "d")]
    await sync(path, *pages, page("corp_2", "a", total=1), page("corp_3"), page("corp_4", "a", cursor="2", total=1))
    assert rows(path, "select * from corporations order by 1") == [
        ("corp_1", 1, text(clock.now), 3, 1, 5, 1),
        ("corp_2", 1, text(clock.now), 1, 0, 1, 0),
        ("corp_3", 1, text(clock.now), 0, 0, None, None),
    ]


async def test_a_corporation_is_complete_also_if_its_run_was_resumed(path: Path) -> None:
    """The customers that the run saw before a stop count. Customers of an earlier run do not."""
    await sync(path, page("corp_1", "a", "b", "c"))
    sink = SQLiteDatabase(path)
    async with opened(sink):
        await sink.write(page("corp_1", "a", cursor="2", total=2))
        await sink.commit(Checkpoint(query="q", customers=1))
    assert gone(path) == []
    async with opened(sink) as found:
        assert found == Checkpoint(query="q", customers=1)
        await sink.write(page("corp_1", "b"))
        await sink.commit(Checkpoint(query="q", customers=2))
        await sink.finish()
    assert rows(path, "select run, customers, total_customers, shortfall from corporations") == [(2, 2, 2, 0)]
    assert gone(path) == ["c"]


async def test_invalid_rows_have_a_table(path: Path) -> None:
    """An invalid row stays, with its place and its errors, until a later run completes its corporation."""
    query = "select corporation_id, run, id, row_index, errors, raw from invalid_customers order by 1, 2, 4"
    errors, raw = "name: wrong; email: wrong", '{"id": "%s", "name": 7}'
    await sync(path, page("corp_1", "a", "!b", "?"), page("corp_2", "!c"))
    first = [
        ("corp_1", 1, "b", 1, errors, raw % "b"),
        ("corp_1", 1, None, 2, errors, raw % ""),
        ("corp_2", 1, "c", 0, errors, raw % "c"),
    ]
    assert rows(path, query) == first
    await sync(path, page("corp_1", "!d", cursor="2"), page("corp_2", "c"), failing=["corp_1"])
    assert rows(path, query) == [*first[:2], ("corp_1", 2, "d", 0, errors, raw % "d")]


async def test_an_invalid_row_without_an_id_counts_once(path: Path) -> None:
    """After a resume, the same row may come again. It is stored only once."""
    sink = SQLiteDatabase(path)
    for _ in range(2):
        async with opened(sink):
            await sink.write(page("corp_1", "?", "?", cursor="2"))
            await sink.write(page("corp_1", "?"))
            await sink.commit(Checkpoint(query="q"))
    assert rows(path, "select count(*) from invalid_customers") == [(3,)]


# --- who is gone ---------------------------------------------------------------------------------------------------------


async def test_who_is_gone(path: Path, clock: Clock) -> None:
    """If a later run reads a corporation to the end and does not see a customer, it is gone. Its row stays."""
    before = text(clock.now)
    await sync(path, page("corp_1", "a", "b"), page("corp_2", "c"), page("corp_3", "d"))
    now = clock.move(days=1)
    await sync(path, page("corp_1", "a", total=2), page("corp_2", "x", cursor="2"), failing=["corp_2"])
    assert rows(path, "select id, last_seen, gone_at, shortfall from gone_customers") == [("b", before, now, 1)]
    assert known(path) == ["a", "b", "c", "d", "x"]
    current = rows(path, "select id from current_customers order by 1")
    assert current == [("a",), ("c",), ("d",), ("x",)]


@pytest.mark.parametrize(("invalid", "expected"), [("!b", ["c"]), ("?", []), ("!x", ["b", "c"])])
async def test_who_is_not_valid_is_not_gone(path: Path, invalid: str, expected: list[str]) -> None:
    """An invalid row with an id shows that this customer exists. An invalid row without an id may be any customer."""
    await sync(path, page("corp_1", "a", "b", "c"), page("corp_2", "d", "e"))
    await sync(path, page("corp_1", "a", invalid), page("corp_2", "d"))
    assert gone(path) == [*expected, "e"]
    await sync(path, page("corp_1", "a"), page("corp_2", "d"))
    assert gone(path) == ["b", "c", "e"]


async def test_who_comes_back_is_not_gone(path: Path) -> None:
    """If a later run sees a gone customer, it is not gone any more, even before this run is complete."""
    await sync(path, page("corp_1", "a"))
    await sync(path, page("corp_1"))
    assert gone(path) == ["a"]
    sink = SQLiteDatabase(path)
    async with opened(sink):
        await sink.write(page("corp_1", "a", cursor="2"))
        await sink.commit(Checkpoint(query="q"))
        assert gone(path) == []


# --- restart ---------------------------------------------------------------------------------------------------------------


async def test_a_restarted_corporation_is_as_if_this_run_had_not_read_it(path: Path) -> None:
    """After a restart, earlier rows of the run do not count. No customer is gone until the corporation is complete."""
    await sync(path, page("corp_1", "a", "b", "c"))
    sink = SQLiteDatabase(path)
    async with opened(sink):
        await sink.write(page("corp_1", "a", "new", "!b", cursor="2"))
        await sink.write(page("corp_2", "z", cursor="2"))
        await sink.commit(Checkpoint(query="q"))
        await sink.write(page("corp_1", "c", cursor="3"))
        await sink.restart("corp_1")
        await sink.write(page("corp_1", "b", cursor="2"))
        await sink.commit(Checkpoint(query="q"))
        assert known(path) == ["a", "b", "c", "new", "z"]
        assert rows(path, "select count(*) from invalid_customers") == [(0,)]
        assert gone(path) == []
        await sink.write(page("corp_1", "c"))
        await sink.write(page("corp_2"))
        await sink.commit(Checkpoint(query="q"))
        await sink.finish()
    assert gone(path) == ["a", "new"]
    assert rows(path, "select corporation_id, customers from corporations order by 1") == [("corp_1", 2), ("corp_2", 1)]


async def test_a_corporation_that_was_complete_may_be_restarted(path: Path) -> None:
    """A restart of a complete corporation removes its row from `corporations` until it is complete again."""
    await sync(path, page("corp_1", "a", "b"))
    sink = SQLiteDatabase(path)
    async with opened(sink):
        await sink.write(page("corp_1", "a"))
        await sink.restart("corp_1")
        await sink.commit(Checkpoint(query="q"))
        assert (gone(path), rows(path, "select * from corporations")) == ([], [])
        await sink.write(page("corp_1", "b"))
        await sink.commit(Checkpoint(query="q"))
        assert gone(path) == ["a"]


# --- runs ------------------------------------------------------------------------------------------------------------------


async def test_the_table_of_runs(path: Path, clock: Clock) -> None:
    """The table has the times, the state, the filters and the counts of each run. At most one run has a checkpoint."""
    began = text(clock.now)
    sink = SQLiteDatabase(path)
    async with opened(sink):
        pass
    checkpoint = Checkpoint(query="q", finished="".join(letter * 12 for letter in "abc"), customers=7, invalid_customers=2)
    assert rows(path, "select id, state, began_at, failed_at, ended_at, query from runs") == [
        (1, "unfinished", began, None, None, "q")
    ]
    clock.move(minutes=1)
    async with opened(sink) as found:
        assert found == Checkpoint(query="q")
        await sink.commit(checkpoint)
    assert rows(path, "select corporations, customers, invalid_customers from runs") == [(3, 7, 2)]
    ended = clock.move(minutes=1)
    assert await sync(path) == checkpoint
    assert rows(path, "select id, state, began_at, failed_at, ended_at, checkpoint from runs") == [
        (1, "complete", began, None, ended, None)
    ]
    assert await sync(path) is None
    assert rows(path, "select id, state, began_at from runs") == [(1, "complete", began), (2, "complete", ended)]


async def test_a_run_with_failures_is_retried_for_a_while(path: Path, clock: Clock) -> None:
    """A failed run resumes until `retry_within` after its first end, however often it fails. Then a new run begins."""
    assert await sync(path, failing=["corp_1"], retry_within=3600) is None
    failed = text(clock.now)
    for _ in range(3):
        now = clock.move(minutes=19)
        assert await sync(path, failing=["corp_2"], retry_within=3600) is not None
        assert rows(path, "select state, failed_at, ended_at from runs") == [("failed", failed, now)]
    assert rows(path, "select * from failures") == [(1, "corp_2", "ServerError", str(failures("corp_2")["corp_2"]))]

    began = clock.move(minutes=3)
    assert await sync(path, failing=["corp_1"], retry_within=3600) is None
    assert rows(path, "select id, state, began_at, checkpoint is null from runs") == [
        (1, "failed", text(START), 1),
        (2, "failed", began, 0),
    ]
    assert rows(path, "select run, corporation_id from failures") == [(1, "corp_2"), (2, "corp_1")]
    assert await sync(path) is not None
    assert rows(path, "select id, state from runs") == [(1, "failed"), (2, "complete")]
    assert rows(path, "select run, corporation_id from failures") == [(1, "corp_2")]


@pytest.mark.parametrize(("moved", "is_resumed"), [(1799, True), (1800, False), (-1, False)])
async def test_half_an_hour_of_retries_is_the_default(path: Path, clock: Clock, moved: int, is_resumed: bool) -> None:
    """If the clock is set back, the time for retries does not get longer."""
    await sync(path, failing=["corp_1"])
    clock.move(seconds=moved)
    assert (await sync(path) is not None) is is_resumed


async def test_without_retries_every_call_reads_all(path: Path, clock: Clock) -> None:
    """With `retry_within=0`, a run with failures never resumes."""
    await sync(path, failing=["corp_1"], retry_within=0)
    assert await sync(path, retry_within=0) is None


async def test_a_killed_retry_does_not_keep_the_copy_from_being_updated(path: Path, clock: Clock) -> None:
    """If a retry is stopped in the middle, `retry_within` still counts from the first end of the run."""
    await sync(path, failing=["corp_1"])
    async with opened(SQLiteDatabase(path)):
        pass
    clock.move(hours=1)
    assert await sync(path) is None


async def test_what_was_not_committed_does_not_count(path: Path) -> None:
    """After a kill, the database has the state of the last commit, and the run resumes from there."""
    sink = SQLiteDatabase(path)
    async with opened(sink):
        await sink.write(page("corp_1", "a", cursor="2"))
        await sink.commit(Checkpoint(query="q", customers=1))
        await sink.write(page("corp_1", "b", cursor="3"))
        await sink.restart("corp_1")
    async with opened(sink) as found:
        assert found == Checkpoint(query="q", customers=1)
    assert rows(path, "select id, last_run from customers") == [("a", 1)]


async def test_a_fresh_run_clears_the_tables_with_its_first_commit(path: Path) -> None:
    """Before the first commit, `fresh` changes nothing. It allows other filters. Indexes and tables of the user stay."""
    await sync(path, page("corp_1", "a", "!b"), failing=["corp_2"])
    with closing(sqlite3.connect(path)) as db:
        db.execute("create index mine on customers (name)")
        db.execute("create table notes (text)")
    sink = SQLiteDatabase(path, fresh=True)
    try:
        assert await sink.open() is None
        assert known(path) == ["a"]
        await sink.commit(Checkpoint(query="other"))
        await sink.write(page("corp_1", "c"))
        await sink.commit(Checkpoint(query="other"))
        await sink.finish()
    finally:
        await sink.aclose()
    assert known(path) == ["c"]
    assert [rows(path, f"select count(*) from {table}")[0][0] for table in _sqlite_schema.TABLES] == [1, 1, 0, 0, 1, 0]
    assert rows(path, "select id, query from runs") == [(1, "other")]
    assert rows(path, "select name from sqlite_master where name in ('mine', 'notes')") == [("mine",), ("notes",)]


# --- refusals --------------------------------------------------------------------------------------------------------------


async def refusal(sink: SQLiteDatabase, path: Path, query: str = "q", kind: type[Exception] = OutputRefusedError) -> str:
    """Return the text of a refusal. Check that it is one line, and that the sink changed nothing and left no file."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(kind) as caught:
        async with opened(sink, query):
            pass
    assert (path.read_bytes() if path.is_file() else None) == before
    assert list(path.parent.iterdir()) == [path]
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


async def test_other_filters_are_refused(path: Path) -> None:
    """The sink refuses a copy with other filters, even a complete one."""
    await sync(path, page("corp_1", "a"))
    assert "has customers of other filters" in await refusal(SQLiteDatabase(path), path, query="other")
    assert await sync(path) is None


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("create table customers (id)", "another program"),
        ("create table notes (text)", "another program"),
        ("pragma application_id = 7", "another program"),
        ("pragma user_version = 7", "another program"),
    ],
)
async def test_a_database_of_somebody_else_is_refused(path: Path, statement: str, reason: str, fresh: bool) -> None:
    """The sink refuses the database of another program, even with `fresh=True`. It changes nothing."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
    assert reason in await refusal(SQLiteDatabase(path, fresh=fresh), path)


async def test_a_database_of_another_release_is_refused(path: Path) -> None:
    """The sink refuses the database of another release, whose tables may differ."""
    await sync(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma user_version = 999")
    assert "another release wrote it" in await refusal(SQLiteDatabase(path), path)


@pytest.mark.parametrize("content", [b"id,name\n" * 1000, b"x"])
async def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    """The sink refuses a file that is not a database. It changes nothing."""
    path.write_bytes(content)
    assert "file is not a database" in await refusal(SQLiteDatabase(path), path)


async def test_a_damaged_checkpoint_is_refused(path: Path) -> None:
    """A run with a damaged checkpoint does not resume. `fresh=True` does not need the checkpoint."""
    await sync(path, failing=["corp_1"])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update runs set checkpoint = '{'")
    assert "checkpoint is damaged" in await refusal(SQLiteDatabase(path), path)
    assert await sync(path, fresh=True) is None


async def test_the_history_of_runs_may_be_deleted(path: Path) -> None:
    """If the table `runs` is empty, a new run begins, with any filters."""
    await sync(path, page("corp_1", "a"))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("delete from runs")
    assert await sync(path) is None


async def test_two_exports_on_one_database_are_refused(path: Path) -> None:
    """A second export is refused, and does not disturb the first one. Later, the file is free again."""
    first, second = SQLiteDatabase(path), SQLiteDatabase(path)
    async with opened(first):
        with pytest.raises(OutputRefusedError, match="another export is writing to it"):
            async with opened(second):
                pass
        assert path.with_name("customers.db.lock").exists()
        with pytest.raises(OutputRefusedError):
            await second.open()
        await first.write(page("corp_1", "a"))
        await first.commit(Checkpoint(query="q"))
        await first.finish()
    assert known(path) == ["a"]
    assert await sync(path) is None
    assert str(first) == str(path)


async def test_a_lock_file_that_was_removed_before_it_was_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the lock file was removed, another export may have a new one. A lock on a removed file protects nothing."""
    lock_path = path.with_name("customers.db.lock")
    real, calls = _lock_file._lock, []

    def remove_then_lock(file: Any) -> bool:
        calls.append(file)
        if len(calls) == 1:
            lock_path.unlink()
        return real(file)

    monkeypatch.setattr(_lock_file, "_lock", remove_then_lock)
    async with opened(SQLiteDatabase(path)):
        assert len(calls) == 2
        with pytest.raises(OutputRefusedError):
            await SQLiteDatabase(path).open()


# --- other programs, and trouble -------------------------------------------------------------------------------------------


async def test_other_programs_read_at_any_time(path: Path) -> None:
    """A reader sees the last commit, and does not block the next one. At the end, there is only one file."""
    sink = SQLiteDatabase(path)
    async with opened(sink):
        await sink.write(page("corp_1", "a", cursor="2"))
        await sink.commit(Checkpoint(query="q"))
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("begin")
            assert reader.execute("select id from customers").fetchall() == [("a",)]
            await sink.write(page("corp_1", "b"))
            await sink.commit(Checkpoint(query="q"))
            assert reader.execute("select id from customers").fetchall() == [("a",)]
            assert known(path) == ["a", "b"]
        await sink.finish()
    assert list(path.parent.iterdir()) == [path]


async def test_a_database_that_another_program_keeps_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit fails with an error of one line. Nothing is lost: the next commit saves all pages."""
    monkeypatch.setattr(sqlite_database, "_BUSY_SECONDS", 0.02)
    sink = SQLiteDatabase(path)
    async with opened(sink):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("begin immediate")
            await sink.write(page("corp_1", "a", cursor="2"))
            with pytest.raises(OutputError, match=r"customers\.db: database is locked") as caught:
                await sink.commit(Checkpoint(query="q", customers=1))
            assert not isinstance(caught.value, OutputRefusedError)
        await sink.write(page("corp_1", "b", cursor="3"))
        await sink.commit(Checkpoint(query="q", customers=2))
    assert known(path) == ["a", "b"]
    async with opened(sink) as found:
        assert found == Checkpoint(query="q", customers=2)


@contextmanager
def files_of_at_most(size: int) -> Generator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_is_full(path: Path) -> None:
    """On a full disk, a commit fails as a whole. When there is space again, the next commit saves all pages."""
    sink = SQLiteDatabase(path)
    async with opened(sink):
        await sink.write(page("corp_1", *[customer("corp_1", f"c{number}", name="x" * 5000) for number in range(100)]))
        with files_of_at_most(300_000), pytest.raises(OutputError, match=r"customers\.db: "):
            await sink.commit(Checkpoint(query="q", customers=100))
        assert (known(path), rows(path, "select * from corporations")) == ([], [])
        await sink.commit(Checkpoint(query="q", customers=100))
        await sink.finish()
    assert rows(path, "select count(*) from customers") == [(100,)]


async def test_a_database_that_is_removed_meanwhile(path: Path) -> None:
    """If the file was removed, the export fails. The next export starts from the beginning."""
    sink = SQLiteDatabase(path)
    async with opened(sink):
        path.unlink()
        with pytest.raises(FileNotFoundError, match=r"customers\.db"):
            await sink.finish()
    assert await sync(path, page("corp_1", "a")) is None
    assert known(path) == ["a"]


async def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """If the folder is missing, the error names the file."""
    with pytest.raises(FileNotFoundError, match=r"missing/customers\.db"):
        async with opened(SQLiteDatabase(tmp_path / "missing" / "customers.db")):
            pass


async def test_a_folder_in_place_of_the_database(path: Path) -> None:
    """SQLite cannot open this path: the error is an `OutputError`."""
    path.mkdir()
    assert "unable to open database file" in await refusal(SQLiteDatabase(path), path, kind=OutputError)


def test_arguments_are_checked() -> None:
    """`retry_within` is a number of seconds, and is not negative."""
    with pytest.raises(ValueError, match="retry_within"):
        SQLiteDatabase("x", retry_within=-1)
    with pytest.raises(TypeError, match="retry_within"):
        SQLiteDatabase("x", retry_within=None)  # type: ignore[arg-type]


# --- with the export -------------------------------------------------------------------------------------------------------


async def run_export(server: Emulator, path: Path, **options: Any) -> Summary:
    async with connected(server) as api:
        return await export(api, server.corporations, SQLiteDatabase(path), limit=10, **options)


async def test_exports_keep_a_copy_in_sync(path: Path) -> None:
    """After each export, the copy is the same as the lists of the server."""
    records = [{"id": f"c{number}", "corporation_id": "corp_1", "name": str(number)} for number in range(35)]
    server = Emulator({"corp_1": records, "corp_2": 25})
    summary = await run_export(server, path)
    assert (summary.customers, summary.corporations, summary.is_complete) == (60, 2, True)

    changed = [{**records[3], "name": "new"}, *records[5:], {"id": "invalid", "corporation_id": "corp_1", "name": 5}]
    server = Emulator({"corp_1": changed, "corp_2": 25})
    summary = await run_export(server, path)
    assert (summary.customers, summary.invalid_customers) == (56, 1)
    assert gone(path) == ["c0", "c1", "c2", "c4"]
    assert rows(path, "select id, name from customers where changed_run = 2") == [("c3", "new")]
    found = {key: Customer.model_validate_json(raw) for key, raw in rows(path, "select id, raw from current_customers")}
    listed = [row for name in server.corporations for row in server.customers(name) if row["name"] != 5]
    assert found == {row["id"]: Customer.model_validate(row) for row in listed}


async def test_only_what_is_missing_is_read_again(path: Path, clock: Clock) -> None:
    """If a corporation fails, the next export reads only this one. Half an hour later, an export reads all of them."""
    server = Emulator({"corp_1": 25, "corp_2": 25}, faults=[faults.Status(404, corporation_id="corp_2")])
    summary = await run_export(server, path)
    assert (summary.is_complete, list(summary.failures)) == (False, ["corp_2"])
    assert rows(path, "select corporation_id, error from failures") == [
        ("corp_2", type(summary.failures["corp_2"]).__name__)
    ]
    for passed, asked in ((0, {"corp_2"}), (1800, {"corp_1", "corp_2"})):
        clock.move(seconds=passed)
        before = len(server.requests)
        await run_export(server, path)
        assert {request.params["corporation_id"] for request in server.requests[before:]} == asked


async def test_a_cursor_that_is_refused(path: Path) -> None:
    """If a cursor has expired, the same run reads the corporation again from the beginning, and completes it."""
    server = Emulator({"corp_1": 35}, faults=[faults.Status(410, at=[3])])
    summary = await run_export(server, path)
    assert (summary.restarted, summary.is_complete) == (("corp_1",), True)
    assert rows(path, "select run, customers, shortfall from corporations") == [(1, 35, 0)]


# --- a rule for all inputs -------------------------------------------------------------------------------------------------


class Model:
    """A model of the expected content of the database."""

    def __init__(self) -> None:
        self.customers: dict[tuple[str, str], dict[str, Any]] = {}
        self.complete: dict[str, int] = {}
        self.invalid: set[tuple[str, int, str, int, str | None]] = set()

    def apply(self, item: CustomerPage | str, run: int, now: str) -> None:
        if isinstance(item, str):
            self.restart(item, run)
            return
        corporation = item.corporation_id
        for each in item.customers:
            row = self.customers.setdefault((corporation, each.id), {"first": now, "changed": now, "name": each.name})
            if row["name"] != each.name:
                row |= {"changed": now, "name": each.name}
            row |= {"seen": now, "run": run}
        self.invalid |= {(corporation, run, item.cursor or "", row.index, row.id) for row in item.invalid_customers}
        if item.cursor is None:
            self.complete[corporation] = run
            self.invalid = {row for row in self.invalid if row[:2] == (corporation, run) or row[0] != corporation}

    def restart(self, corporation: str, run: int) -> None:
        if self.complete.get(corporation) == run:
            del self.complete[corporation]
        self.invalid = {row for row in self.invalid if row[:2] != (corporation, run)}
        for (name, _id), row in self.customers.items():
            if name == corporation and row["run"] == run:
                row["run"] = self.complete.get(corporation, 0)

    def gone(self) -> set[tuple[str, str]]:
        covered = {(row[0], row[4]) for row in self.invalid}
        return {
            key
            for key, row in self.customers.items()
            if row["run"] < self.complete.get(key[0], 0) and not {key, (key[0], None)} & covered
        }


PAGES = st.builds(
    lambda corporation, names, cursor, version: page(corporation, *names, cursor=cursor, a=version),
    st.sampled_from(["corp_1", "corp_2"]),
    st.lists(st.sampled_from(["a", "b", "c", "!a", "!d", "?"]), max_size=4),
    st.sampled_from([None, "1", "2"]),
    st.sampled_from(["x", "y"]),
)
STEPS = st.lists(
    st.one_of(PAGES, PAGES, st.sampled_from(["corp_1", "commit", "commit", "kill", "finish", "fail", "fail and wait"])),
    max_size=40,
)


@settings(max_examples=100)
@given(STEPS)
def test_the_database_is_right_whatever_happens(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    """With any pages, restarts, kills and failures, the database knows which customers are new, changed and gone."""
    anyio.run(follow, tmp_path_factory.mktemp("model") / "customers.db", steps)


async def follow(path: Path, steps: list[Any]) -> None:
    clock, model, run = Clock(), Model(), 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_database, "_now", clock)
        sink, pending = SQLiteDatabase(path), list[Any]()
        checkpoint = await sink.open() or Checkpoint(query="q")
        await sink.commit(checkpoint)
        for step in steps:
            now = clock.move(seconds=1)
            if isinstance(step, CustomerPage):
                pending.append(step)
                await sink.write(step)
                continue
            if step == "corp_1":
                pending.append(step)
                await sink.restart(step)
                continue
            if step != "kill":
                await sink.commit(checkpoint)
                for item in pending:
                    model.apply(item, run, now)
            pending.clear()
            if step == "finish":
                await sink.finish()
            elif step.startswith("fail"):
                await sink.end_with_failures(failures("corp_1"))
            if step != "commit":
                await sink.aclose()
                clock.move(hours=step == "fail and wait")
                found = await sink.open()
                assert (found is None) == (step in {"finish", "fail and wait"} or "failed" in states(path, clock))
                run += found is None
                await sink.commit(checkpoint)
            check(path, model)
        await sink.aclose()


def states(path: Path, clock: Clock) -> set[str]:
    """Return `failed` if the latest run failed more than half an hour ago."""
    ((failed_at,),) = rows(path, "select failed_at from runs order by id desc limit 1")
    return {"failed"} if failed_at and clock.now - datetime.fromisoformat(failed_at) >= timedelta(minutes=30) else set()


def check(path: Path, model: Model) -> None:
    found = rows(path, "select corporation_id, id, first_seen, last_seen, changed_at, last_run, name from customers")
    keys = ("first", "seen", "changed", "run", "name")
    assert {row[:2]: row[2:] for row in found} == {key: tuple(row[k] for k in keys) for key, row in model.customers.items()}
    assert set(rows(path, "select corporation_id, id from gone_customers")) == model.gone()
    assert dict(rows(path, "select corporation_id, run from corporations")) == model.complete
    invalid = rows(path, "select corporation_id, run, next_cursor, row_index, id from invalid_customers")
    assert len(invalid) == len(set(invalid))
    assert set(invalid) == model.invalid
    customers = rows(path, "select corporation_id, id from current_customers")
    assert {*customers} == {*model.customers} - model.gone()
    for raw, name in rows(path, "select raw, name from customers"):
        assert json.loads(raw)["name"] == name
