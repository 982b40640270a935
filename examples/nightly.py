"""
Bring the customers of hundreds of corporations into customers.sqlite, every night.

    flock --nonblock customers.lock python nightly.py ids.txt   # one corporation id per line

A page and the checkpoint after it are saved in one transaction. Rows that are not valid customers have a table of their own.
Standard error says what is missing. After every exit code but 0, run the same command again: it resumes.

Exit codes:
    0  Every corporation was read to its end.
    1  Some corporations failed. The others are complete, and are not read again before the next night.
    2  The server refused the token.
"""

import json
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread

from commenda_customers import AsyncCustomersAPI, AuthenticationError, Checkpoint, CustomerPage

HOURS = 20  # A run that began longer ago is not resumed: it is that of another night.

TABLES = """
create table if not exists customers (
    corporation_id text, id text, name text, record text, run integer, primary key (corporation_id, id)
);
create table if not exists invalid_customers (
    corporation_id text, id text, next_cursor text, row_index integer, errors text, raw text, run integer,
    primary key (corporation_id, run, next_cursor, row_index)
);
create table if not exists corporations (corporation_id text primary key, shortfall integer, run integer);
create table if not exists unfinished (run integer, checkpoint text);
"""

# A customer whose row is not valid is not gone. A row without an id may be any customer.
REMOVE_GONE = """
delete from customers where corporation_id = :corporation_id and run <> :run and not exists (
    select * from invalid_customers as invalid
    where invalid.corporation_id = :corporation_id and run = :run and (invalid.id is null or invalid.id = customers.id)
)
"""


def save(db: sqlite3.Connection, run: int, page: CustomerPage, shortfall: int, checkpoint: Checkpoint) -> None:
    """Save a page and the checkpoint after it in one transaction: both are in the database, or neither is."""
    name = page.corporation_id
    rows = [(name, customer.id, customer.name, customer.model_dump_json(), run) for customer in page]
    invalid = [  # the cursor says which page it is: after a kill, a row without an id may come again
        (name, row.id, page.cursor or "", row.index, "; ".join(row.errors), json.dumps(row.raw, default=str), run)
        for row in page.invalid_customers
    ]
    with db:
        db.executemany("insert or replace into customers values (?, ?, ?, ?, ?)", rows)
        db.executemany("insert or replace into invalid_customers values (?, ?, ?, ?, ?, ?, ?)", invalid)
        if page.cursor is None:  # the corporation is complete
            db.execute("insert or replace into corporations values (?, ?, ?)", (name, shortfall, run))
            if not shortfall:
                db.execute(REMOVE_GONE, {"corporation_id": name, "run": run})
            db.execute("delete from invalid_customers where corporation_id = ? and run <> ?", (name, run))
        save_checkpoint(db, run, checkpoint)


def save_checkpoint(db: sqlite3.Connection, run: int, checkpoint: Checkpoint | None) -> None:
    """Replace the checkpoint; `None` ends the run."""
    db.execute("delete from unfinished")
    if checkpoint is not None:
        db.execute("insert into unfinished values (?, ?)", (run, checkpoint.model_dump_json()))


async def main(db: sqlite3.Connection, corporations: list[str]) -> list[str]:
    """Run, or resume the run that was stopped. Report what is missing, and return the corporations that failed."""
    newest = time.time_ns() - HOURS * 3600 * 10**9
    found = db.execute("select run, checkpoint from unfinished where run > ?", (newest,)).fetchone()
    run, text = found or (time.time_ns(), None)
    resume = Checkpoint.model_validate_json(text) if text else None
    async with (
        AsyncCustomersAPI() as api,
        api.stream(corporations, errors="collect", invalid_customers="collect", resume=resume) as stream,
    ):
        async for page in stream.pages():
            shortfall = stream.progress.corporations[page.corporation_id].shortfall or 0
            # In a thread: a commit waits for the disk, and must not stop the event loop.
            await anyio.to_thread.run_sync(save, db, run, page, shortfall, stream.checkpoint())

    checkpoint = stream.checkpoint()
    for corporation_id, error in stream.failures.items():
        print(f"{corporation_id}: {error}", file=sys.stderr)
        checkpoint = checkpoint.without(corporation_id)  # it is read from its beginning, whatever the error was
    with db:
        save_checkpoint(db, run, checkpoint if stream.failures else None)
    report(db, run)
    return list(stream.failures)


def report(db: sqlite3.Connection, run: int) -> None:
    """Print what the server did not send as it should. The numbers are of the whole run, also if it was resumed."""
    (invalid,) = db.execute("select count(*) from invalid_customers where run = ?", (run,)).fetchone()
    if invalid:
        print(f"{invalid} rows are not valid: see the table invalid_customers", file=sys.stderr)
    short = "select corporation_id, shortfall from corporations where run = ? and shortfall > 0"
    for corporation_id, shortfall in db.execute(short, (run,)):
        print(f"{corporation_id}: the server counted {shortfall} more customers than it sent", file=sys.stderr)


if __name__ == "__main__":
    ids = Path(sys.argv[1]).read_text(encoding="utf-8").split() if sys.argv[1:] else ["corp_123"]
    # Several threads use the connection, but only one at a time.
    with closing(sqlite3.connect("customers.sqlite", check_same_thread=False)) as database:
        database.executescript(TABLES)
        try:
            failed = anyio.run(main, database, list(dict.fromkeys(ids)))
        except AuthenticationError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
    sys.exit(1 if failed else 0)
