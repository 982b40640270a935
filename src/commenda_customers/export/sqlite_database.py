"""Keeps a copy of customer lists in SQLite in sync."""

import json
import os
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from .._checks import check_positive
from ..checkpoint import Checkpoint, totals
from ..errors import CustomersError
from ..models import Customer, CustomerPage
from . import _sqlite_schema as sql
from ._files import real_path, with_suffix
from ._lock_file import LockFile
from ._threads import in_thread
from .base import START_AGAIN, OutputError, OutputRefusedError, Sink

_BUSY_SECONDS = 5.0
"""How long SQLite waits if another program keeps the database locked."""
_TOO_MANY = 1 << 63  # SQLite has integers of 64 bits
_UNKNOWN: tuple[Any, ...] = (None, None, None)
_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}

_to_json = Customer.__pydantic_serializer__.to_json


def _now() -> datetime:
    return datetime.now(UTC)


class SQLiteDatabase(Sink):
    """
    An SQLite database that stays in sync with the customers. Run the export again and again, every night or every hour. Each
    run updates the customers that have changed, and detects the customers that are gone.

        await export(api, ["corp_123"], SQLiteDatabase("customers.db"))

    The table `customers` has the `COLUMNS`, the whole customer as JSON in `raw`, and the times when the customer was first
    seen, last seen and changed. The view `gone_customers` has the customers that the server no longer lists, and
    `current_customers` has all others. An export never deletes a customer, except with `fresh=True`. `invalid_customers` has
    the invalid rows. `corporations`, `runs` and `failures` show how complete the copy is. Other programs can read the
    database at any time.

    Every commit is one transaction. It includes the checkpoint. An export resumes an unfinished run. After a complete run,
    it begins the next run. If corporations failed, it resumes the run within `retry_within` seconds; later, it begins the
    next run. So a corporation that always fails does not stop the updates of the others. A database has one set of filters.
    """

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False, retry_within: float = 1800.0) -> None:
        """
        Choose the file. Nothing is opened yet.

        Args:
            path: The database. It is created if it does not exist.
            fresh: Clear the tables with the first commit, and start from the beginning. Then you may use other filters.
            retry_within: Seconds since a run ended with failures for the first time. Within this time, the next export reads
                only what is missing. Later, it reads everything again.

        Raises:
            ValueError: `retry_within` is negative.
            TypeError: `retry_within` is not a number.
        """
        check_positive("retry_within", retry_within, or_zero=True)
        self._name = str(Path(path))
        self._path = real_path(path)
        self._fresh = fresh
        self._retry_within = retry_within
        self._lock = LockFile(with_suffix(self._path, ".lock"), self._name)
        self._db: sqlite3.Connection | None = None
        self._run: int | None = None  # the run that this export resumes, or has begun
        self._has_begun = False  # whether there was a commit
        self._pending: list[CustomerPage | str] = []  # pages, and corporations to restart

    def __str__(self) -> str:
        return self._name

    async def open(self) -> Checkpoint | None:
        """
        Lock the database against other exports, and return the checkpoint of an unfinished run.

        Raises:
            OutputRefusedError: The database is in use or damaged, or another program or release wrote the file.
            OutputError: SQLite cannot open the database.
            OSError: The folder is missing or not writable.
        """
        return await in_thread(self._open)

    async def write(self, page: CustomerPage) -> None:
        """Keep a page in memory until the next commit."""
        self._pending.append(page)

    async def commit(self, checkpoint: Checkpoint) -> None:
        """
        Save the pages and the checkpoint in one transaction.

        Raises:
            OutputRefusedError: The database has other filters.
            OutputError: The write failed, for example because the disk is full or another program locks the database.
        """
        await in_thread(self._commit, checkpoint)

    async def restart(self, corporation_id: str) -> None:
        """Forget that this run has seen the customers of a corporation. Their rows stay."""
        self._pending.append(corporation_id)

    async def finish(self) -> None:
        """End the run. The next export begins a new run."""
        await in_thread(self._end, {})

    async def end_with_failures(self, failures: Mapping[str, CustomersError]) -> None:
        """End the run for now. The next export resumes it within `retry_within` seconds."""
        await in_thread(self._end, failures)

    async def aclose(self) -> None:
        """Close and unlock the database."""
        await in_thread(self._close)

    def _open(self) -> Checkpoint | None:
        self._run, self._has_begun = None, False
        self._pending.clear()
        self._lock.acquire()
        with self._connected() as db:
            return None if self._is_empty(db) or self._fresh else self._resume(db)

    def _is_empty(self, db: sqlite3.Connection) -> bool:
        """Return whether the database is new. Refuse a database that no export wrote."""
        (application,) = db.execute("pragma application_id").fetchone()
        (version,) = db.execute("pragma user_version").fetchone()
        (tables,) = db.execute("select count(*) from sqlite_master").fetchone()
        (pages,) = db.execute("pragma page_count").fetchone()
        if not pages and self._path.stat().st_size:  # SQLite would overwrite a file that is shorter than a page
            raise OutputRefusedError(f"{self}: file is not a database")
        if not (application or version or tables):
            return True
        if application != sql.APPLICATION_ID:
            raise OutputRefusedError(f"{self}: is a database of another program")
        if version != sql.VERSION:
            raise OutputRefusedError(f"{self}: another release wrote it; export into another file")

        return False

    def _resume(self, db: sqlite3.Connection) -> Checkpoint | None:
        """Return the checkpoint of the latest run. `None`: begin a new run."""
        run = _latest_run(db)
        if run is None or run.state == sql.COMPLETE or (run.failed_at is not None and not self._is_recent(run.failed_at)):
            return None

        try:
            found = Checkpoint.model_validate_json(run.checkpoint)
        except ValidationError:
            message = f"{self}: its checkpoint is damaged, or another release wrote it; {START_AGAIN}"
            raise OutputRefusedError(message) from None

        self._run = run.id
        return found

    def _is_recent(self, moment: str) -> bool:
        """Return whether a run that first failed at *moment* may resume. If the clock was set back, it may not."""
        passed = _now() - datetime.fromisoformat(moment)
        return 0 <= passed.total_seconds() < self._retry_within

    def _commit(self, checkpoint: Checkpoint) -> None:
        now = sql.time_text(_now())
        with self._connected() as db:
            if not self._has_begun:
                self._prepare(db, checkpoint.query)
            with _transaction(db):
                run = self._begin(db, checkpoint.query, now) if self._run is None else self._run
                for item in self._pending:
                    if isinstance(item, str):
                        _restart(db, item, run)
                    else:
                        _save(db, item, run, now)
                db.execute(sql.SAVE_RUN, (*totals(checkpoint), checkpoint.model_dump_json(), run))

        self._run, self._has_begun = run, True
        self._pending.clear()

    def _prepare(self, db: sqlite3.Connection, query: str) -> None:
        """Refuse other filters, and configure the connection."""
        run = None if self._fresh or self._is_empty(db) else _latest_run(db)
        if run is not None and run.query != query:
            raise OutputRefusedError(f"{self}: has customers of other filters; {START_AGAIN}")

        db.execute("pragma page_size = 16384")  # for a new file: rows of a kilobyte need fewer writes than with 4096
        db.execute("pragma cache_size = -32000")  # 32 MB: ids come in random order; the index of 500,000 customers fits
        db.execute("pragma journal_mode = wal")  # readers do not block the export, and the export does not block readers
        # A power failure may undo the last commits, data and checkpoint together. Only the end of a run waits for the disk.
        db.execute("pragma synchronous = normal")

    def _begin(self, db: sqlite3.Connection, query: str, now: str) -> int:
        """Begin a run, and return its number. From now on, no older run can resume."""
        if self._is_empty(db):
            for statement in sql.CREATE:
                db.execute(statement)
        if self._fresh:
            for table in sql.TABLES:
                db.execute(f"delete from {table}")  # noqa: S608 - a name of ours
        db.execute(sql.CLOSE_RUNS)
        db.execute(sql.FORGET_READING)
        cursor = db.execute(sql.BEGIN_RUN, (sql.UNFINISHED, now, query))
        assert cursor.lastrowid is not None  # noqa: S101 - a row was added
        return cursor.lastrowid

    def _end(self, failures: Mapping[str, CustomersError]) -> None:
        values = {"run": self._run, "now": sql.time_text(_now())}
        rows = [(self._run, name, type(error).__name__, str(error)) for name, error in failures.items()]
        with self._connected() as db:
            db.execute("pragma synchronous = full")
            with _transaction(db):
                db.execute(sql.FAIL_RUN if failures else sql.COMPLETE_RUN, values)
                db.execute(sql.FORGET_FAILURES, (self._run,))
                db.executemany(sql.ADD_FAILURE, rows)

    def _close(self) -> None:
        try:
            if self._db is not None:
                self._db.close()
        finally:
            self._db = None
            self._lock.release()

    @contextmanager
    def _connected(self) -> Generator[sqlite3.Connection]:
        """Connect at the first use. Turn errors of SQLite into `OutputError` or `OutputRefusedError`."""
        try:
            if self._db is None:
                # Several threads use the connection, one after the other. Only `_transaction` begins transactions.
                options: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}
                self._db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, **options)
            self._path.stat()  # raises if somebody has removed the file; SQLite would continue, and lose everything
            yield self._db
        except sqlite3.Error as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended error code
            kind = OutputRefusedError if code in _DAMAGED else OutputError
            raise kind(f"{self}: {exc}") from None


@contextmanager
def _transaction(db: sqlite3.Connection) -> Generator[None]:
    db.execute("begin immediate")
    try:
        yield
        db.execute("commit")
    except BaseException:
        with suppress(sqlite3.Error):
            db.rollback()
        raise


class _Run(NamedTuple):
    """The columns of `LATEST_RUN`."""

    id: int
    state: str
    failed_at: str | None
    query: str
    checkpoint: str


def _latest_run(db: sqlite3.Connection) -> _Run | None:
    found = db.execute(sql.LATEST_RUN).fetchone()
    return _Run(*found) if found else None


def _save(db: sqlite3.Connection, page: CustomerPage, run: int, now: str) -> None:
    """Save a page. With the last page of a corporation, mark the corporation as complete."""
    values = {
        "corporation_id": page.corporation_id,
        "customers": _save_customers(db, page, run, now),
        "total": page.total_customers if (page.total_customers or 0) < _TOO_MANY else None,
        "run": run,
        "now": now,
    }
    db.executemany(sql.ADD_INVALID, sql.invalid_rows_of(page, run))
    db.execute(sql.READ, values)
    if page.cursor is None:
        for statement in sql.COMPLETE_CORPORATION:
            db.execute(statement, values)


def _save_customers(db: sqlite3.Connection, page: CustomerPage, run: int, now: str) -> int:
    """
    Save the customers of a page, and return how many of them are new to this run.

    If a customer has not changed, only the run and the time are written. In most runs, nearly all customers are like that.
    """
    customers = {customer.id: customer for customer in page.customers}  # if a customer has two rows, the second wins
    found = db.execute(sql.FIND, (json.dumps(list(customers)), page.corporation_id)).fetchall()
    known: dict[str, Any] = {key: rest for key, *rest in found}
    unchanged: list[int] = []
    changed: list[tuple[Customer, bytes, str]] = []
    unseen = 0
    for key, customer in customers.items():
        raw = _to_json(customer)
        digest = sql.digest_of(raw)
        rowid, known_digest, last_run = known.get(key, _UNKNOWN)
        unseen += last_run != run
        if known_digest == digest:
            unchanged.append(rowid)
        else:
            changed.append((customer, raw, digest))
    db.execute(sql.SEE_AGAIN, (run, now, json.dumps(unchanged)))
    try:
        db.executemany(sql.UPSERT, sql.rows_of(changed, now, run))
    except OverflowError:
        db.executemany(sql.UPSERT, map(sql.with_small_integers, sql.rows_of(changed, now, run)))
    return unseen


def _restart(db: sqlite3.Connection, corporation_id: str, run: int) -> None:
    for statement in sql.RESTART_CORPORATION:
        db.execute(statement, {"corporation_id": corporation_id, "run": run})
