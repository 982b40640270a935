"""
The tables of `SQLiteDatabase`, and all SQL statements.

Two numbers tell whether a customer is gone: the run that saw it last, and the run that last read its corporation to the end.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from hashlib import blake2b
from typing import Any

from ..models import Customer, CustomerPage
from .columns import COLUMNS, COLUMNS_VERSION, INTEGERS, LISTS, flatten, time_texts, within_int64

APPLICATION_ID = 0x436F6D43
"""Marks the file as a database of this export: `PRAGMA application_id`."""
VERSION = 1000 + COLUMNS_VERSION
"""1000 times the version of these tables, plus the version of the columns: `PRAGMA user_version`."""

UNFINISHED, FAILED, COMPLETE = "unfinished", "failed", "complete"

_COLUMN_TYPES = ",\n    ".join(f"{name} {'integer' if name in INTEGERS else 'text'}" for name in COLUMNS[2:])

TABLES = ("customers", "corporations", "reading", "invalid_customers", "runs", "failures")

CREATE = (
    # `raw` comes last: SQLite reads a row from its beginning, and most queries do not need `raw`.
    f"""
create table customers (
    corporation_id text not null,
    id text not null,
    {_COLUMN_TYPES},
    digest text not null,
    first_seen text not null,
    last_seen text not null,
    changed_at text not null,
    changed_run integer not null,
    last_run integer not null,
    raw text not null,
    primary key (corporation_id, id)
)""",
    """
create table corporations (
    corporation_id text primary key,
    run integer not null,
    completed_at text not null,
    customers integer not null,
    invalid_customers integer not null,
    total_customers integer,
    shortfall integer
)""",
    # The corporations that the run has begun and not completed, with their counts. A count at the end would read every row.
    """
create table reading (
    corporation_id text primary key,
    customers integer not null,
    total_customers integer
)""",
    """
create table invalid_customers (
    corporation_id text not null,
    run integer not null,
    next_cursor text not null,
    row_index integer not null,
    id text,
    errors text not null,
    raw text not null
)""",
    # After a kill, a row without an id may come again. Its place identifies it: the page, and the index on the page.
    """
create unique index invalid_places on invalid_customers (
    corporation_id, run, next_cursor, row_index, coalesce(id, '')
)""",
    f"""
create table runs (
    id integer primary key,
    state text not null check (state in ('{UNFINISHED}', '{FAILED}', '{COMPLETE}')),
    began_at text not null,
    failed_at text,
    ended_at text,
    query text not null,
    corporations integer not null default 0,
    customers integer not null default 0,
    invalid_customers integer not null default 0,
    checkpoint text
)""",
    """
create table failures (
    run integer not null,
    corporation_id text not null,
    error text not null,
    reason text not null,
    primary key (run, corporation_id)
)""",
    # A customer with an invalid row is not gone. An invalid row without an id may be any customer.
    """
create view gone_customers as
select customers.*, corporations.completed_at as gone_at, corporations.shortfall
from customers join corporations using (corporation_id)
where customers.last_run < corporations.run and not exists (
    select * from invalid_customers as invalid
    where invalid.corporation_id = customers.corporation_id and (invalid.id is null or invalid.id = customers.id)
)""",
    """
create view current_customers as
select * from customers where not exists (
    select * from gone_customers as gone
    where gone.corporation_id = customers.corporation_id and gone.id = customers.id
)""",
    f"pragma application_id = {APPLICATION_ID}",
    f"pragma user_version = {VERSION}",
)

LATEST_RUN = "select id, state, failed_at, query, checkpoint from runs order by id desc limit 1"
CLOSE_RUNS = "update runs set checkpoint = null where checkpoint is not null"
BEGIN_RUN = "insert into runs (state, began_at, query) values (?, ?, ?)"
SAVE_RUN = "update runs set corporations = ?, customers = ?, invalid_customers = ?, checkpoint = ? where id = ?"
COMPLETE_RUN = f"update runs set state = '{COMPLETE}', ended_at = :now, checkpoint = null where id = :run"
FAIL_RUN = f"update runs set state = '{FAILED}', ended_at = :now, failed_at = coalesce(failed_at, :now) where id = :run"
FORGET_FAILURES = "delete from failures where run = ?"
ADD_FAILURE = "insert into failures values (?, ?, ?, ?)"

FORGET_READING = "delete from reading"
READ = """
insert into reading values (:corporation_id, :customers, :total) on conflict (corporation_id) do update set
    customers = customers + excluded.customers, total_customers = coalesce(excluded.total_customers, total_customers)
"""

FIND = """
select customers.id, customers.rowid, customers.digest, customers.last_run from json_each(?) as listed
cross join customers on customers.corporation_id = ? and customers.id = listed.value
"""
SEE_AGAIN = """
update customers set last_run = ?, last_seen = ? where rowid in (select value from json_each(?))
"""

# `sqlite3` binds a number ten times as fast as `None`. So a number that no column can hold stands for `None`.
_NULL = 0.5
_VALUES = ", ".join(f"nullif(?, {_NULL})" for _ in COLUMNS)
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in (*COLUMNS[2:], "last_seen", "last_run", "raw", "digest"))
_REST = ", ".join("?" * 7)  # digest, three times, two numbers of runs, raw; Python 3.12 warns about ?1
UPSERT = f"""
insert into customers values ({_VALUES}, {_REST})
on conflict (corporation_id, id) do update set {_UPDATES},
    changed_at = case when digest = excluded.digest then changed_at else excluded.changed_at end,
    changed_run = case when digest = excluded.digest then changed_run else excluded.changed_run end
"""
"""Takes the rows of `rows_of`."""

ADD_INVALID = "insert or replace into invalid_customers values (?, ?, ?, ?, ?, ?, ?)"
COMPLETE_CORPORATION = (
    "delete from invalid_customers where corporation_id = :corporation_id and run <> :run",
    """
insert or replace into corporations
select corporation_id, :run, :now, customers, invalid, total_customers, max(0, total_customers - customers - invalid)
from reading, (select count(*) as invalid from invalid_customers where corporation_id = :corporation_id)
where corporation_id = :corporation_id
""",
    "delete from reading where corporation_id = :corporation_id",
)

RESTART_CORPORATION = (
    # The corporation may already be complete. Then we know nothing about it until it is complete again.
    "delete from corporations where corporation_id = :corporation_id and run = :run",
    "delete from reading where corporation_id = :corporation_id",
    "delete from invalid_customers where corporation_id = :corporation_id and run = :run",
    # Set `last_run` to the last complete run of the corporation. With a lower number, the customers would be gone.
    """
update customers set last_run = coalesce((select run from corporations where corporation_id = :corporation_id), 0)
where corporation_id = :corporation_id and last_run = :run
""",
)

_CREATED_AT = COLUMNS.index("created_at")
_LISTS = sorted(COLUMNS.index(name) for name in LISTS)


def digest_of(raw: bytes) -> str:
    """Return a digest of a customer."""
    return blake2b(raw, digest_size=16).hexdigest()


def time_text(moment: datetime) -> str:
    """Return a time in UTC as ISO 8601 text. All texts have the same length, so they sort by time."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def rows_of(customers: list[tuple[Customer, bytes, str]], now: str, run: int) -> Iterator[list[Any]]:
    """Yield the values of `UPSERT` for customers, each with its JSON and the digest of it."""
    times = time_texts([customer.created_at for customer, _raw, _digest in customers])
    for (customer, raw, digest), created_at in zip(customers, times, strict=True):
        row = list(flatten(customer))
        row[_CREATED_AT] = created_at
        for at in _LISTS:
            if row[at] is not None:
                row[at] = ";".join(row[at])
        yield [*(_NULL if value is None else value for value in row), digest, now, now, now, run, run, raw.decode()]


def with_small_integers(row: list[Any]) -> list[Any]:
    """Return a row in which the integers that SQLite cannot store are in `extra`."""
    values, rest = row[: len(COLUMNS)], row[len(COLUMNS) :]
    return [*within_int64(tuple(None if value == _NULL else value for value in values)), *rest]


def invalid_rows_of(page: CustomerPage, run: int) -> list[tuple[Any, ...]]:
    """Return the values of the rows of `invalid_customers`."""
    return [
        (page.corporation_id, run, page.cursor or "", row.index, row.id, "; ".join(row.errors), json.dumps(row.raw))
        for row in page.invalid_customers
    ]
