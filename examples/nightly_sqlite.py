"""
Update customers.sqlite with the customers of some corporations, every night.

    flock --nonblock customers.lock python nightly_sqlite.py corp_123 corp_456

Customers and checkpoint are saved in one transaction. After a kill or an error, run the same command again: it resumes.
Exit code 0: everything is in the database. 1: something failed; standard error says what.
"""

import sqlite3
import sys
import time
from contextlib import closing

import anyio
import anyio.to_thread

from commenda_customers import AsyncCustomersAPI, Checkpoint, CustomerPage

TABLES = """
create table if not exists customers (
    corporation_id text, id text, name text, record text, run integer, primary key (corporation_id, id)
);
create table if not exists unfinished (run integer, checkpoint text);
"""


def save(db: sqlite3.Connection, run: int, page: CustomerPage, checkpoint: Checkpoint) -> None:
    """Save a page and the checkpoint after it in one transaction: both are in the database, or neither is."""
    rows = [(customer.corporation_id, customer.id, customer.name, customer.model_dump_json(), run) for customer in page]
    with db:
        db.executemany("insert or replace into customers values (?, ?, ?, ?, ?)", rows)
        db.execute("delete from unfinished")
        db.execute("insert into unfinished values (?, ?)", (run, checkpoint.model_dump_json()))


def finish(db: sqlite3.Connection, run: int, complete: list[str]) -> None:
    """End the run. Remove customers that the server no longer has, but only those of complete corporations."""
    with db:
        old = [(corporation_id, run) for corporation_id in complete]
        db.executemany("delete from customers where corporation_id = ? and run <> ?", old)
        db.execute("delete from unfinished")


async def main(db: sqlite3.Connection, corporations: list[str]) -> list[str]:
    """Run, or resume the run that was stopped. Return what failed."""
    run, text = db.execute("select * from unfinished").fetchone() or (time.time_ns(), None)
    resume = Checkpoint.model_validate_json(text) if text else None
    async with AsyncCustomersAPI() as api, api.stream(corporations, errors="collect", resume=resume) as stream:
        async for page in stream.pages():
            # In a thread: a commit waits for the disk, and must not stop the event loop.
            await anyio.to_thread.run_sync(save, db, run, page, stream.checkpoint())

    finish(db, run, [corporation_id for corporation_id in corporations if corporation_id not in stream.failures])
    return [str(error) for error in stream.failures.values()]


if __name__ == "__main__":
    # Several threads use the connection, but only one at a time.
    with closing(sqlite3.connect("customers.sqlite", check_same_thread=False)) as database:
        database.executescript(TABLES)
        failures = anyio.run(main, database, sys.argv[1:] or ["corp_123"])
    sys.exit("\n".join(failures) or 0)  # a text goes to standard error, and the exit code is 1
