"""
Export to tables of DuckDB: a sink of your own.

    python duckdb_sink.py corp_123 corp_456   # writes customers.duckdb

This works in the same way for any database with transactions. For PostgreSQL, use an async driver without threads.
"""

import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import duckdb

from commenda_customers import AsyncCustomersAPI, Checkpoint, CustomerPage
from commenda_customers.export import export

TABLES = """
create table if not exists customers (corporation_id text, id text, name text, record json);
create table if not exists invalid_customers (corporation_id text, id text, errors text);
create table if not exists unfinished (checkpoint text);
"""


class DuckDBTables:
    """The customers of one run. Until the run is complete, also its checkpoint."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self._path = path
        self._db: Any = None
        self._pages: list[CustomerPage] = []
        self._is_resumed = False

    async def open(self) -> Checkpoint | None:
        """Open the database. DuckDB itself locks it against other programs."""
        self._db = await anyio.to_thread.run_sync(duckdb.connect, str(self._path))
        self._db.execute(TABLES)
        found = self._db.execute("select checkpoint from unfinished").fetchone()
        self._is_resumed = found is not None
        return Checkpoint.model_validate_json(found[0]) if found else None

    async def write(self, page: CustomerPage) -> None:
        """Keep the page until the next commit."""
        self._pages.append(page)

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Save the pages and the checkpoint in one transaction. Use a thread, because it waits for the disk."""
        await anyio.to_thread.run_sync(self._commit, checkpoint)

    def _commit(self, checkpoint: Checkpoint) -> None:
        customers = [(c.corporation_id, c.id, c.name, c.model_dump_json()) for page in self._pages for c in page]
        invalid = [(p.corporation_id, row.id, "; ".join(row.errors)) for p in self._pages for row in p.invalid_customers]
        self._db.begin()
        try:
            if not self._is_resumed:  # a new run replaces the previous one
                self._db.execute("delete from customers; delete from invalid_customers")
            if customers:
                self._db.executemany("insert into customers values (?, ?, ?, ?)", customers)
            if invalid:
                self._db.executemany("insert into invalid_customers values (?, ?, ?)", invalid)
            self._db.execute("delete from unfinished")
            self._db.execute("insert into unfinished values (?)", [checkpoint.model_dump_json()])
            self._db.commit()
        except BaseException:
            self._db.rollback()
            raise
        self._is_resumed = True
        self._pages.clear()

    async def finish(self) -> None:
        """End the run. The next export begins a new one."""
        self._db.execute("delete from unfinished")

    async def aclose(self) -> None:
        """Close the database. This method is optional. The export calls it even if `open` failed."""
        if self._db is not None:
            self._db.close()


async def main(corporation_ids: list[str]) -> bool:
    """Export. Return whether every corporation is complete."""
    async with AsyncCustomersAPI() as api:
        summary = await export(api, corporation_ids, DuckDBTables(Path("customers.duckdb")))
    print(summary.customers, "customers,", summary.invalid_customers, "invalid rows")
    for corporation_id, error in summary.failures.items():
        print(f"{corporation_id}: {error}", file=sys.stderr)
    return summary.is_complete


if __name__ == "__main__":
    sys.exit(0 if anyio.run(main, sys.argv[1:] or ["corp_123"]) else 1)
