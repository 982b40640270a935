"""
Keep customers.db in sync with the customers of hundreds of corporations, every night.

    python nightly.py ids.txt   # one corporation id on each line

If the exit code is not 0, run the same command again. Within half an hour, it reads only what is missing.

Exit codes:
    0  Every corporation was read to its end.
    1  Some corporations failed. The others are in sync.
    2  The server refused the token, or the export refused the database: for example, another job is writing to it.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import anyio

from commenda_customers import AsyncCustomersAPI, AuthenticationError
from commenda_customers.export import OutputRefusedError, SQLiteDatabase, Summary, export

DATABASE = Path("customers.db")
CHANGES = """
select 'new', count(*) from customers where changed_run = (select max(id) from runs) and changed_at = first_seen
union all
select 'changed', count(*) from customers where changed_run = (select max(id) from runs) and changed_at > first_seen
union all
select 'gone', count(*) from gone_customers
"""


async def main(corporation_ids: list[str]) -> Summary:
    """Sync the database, or resume a run that was stopped."""
    async with AsyncCustomersAPI() as api:
        return await export(api, corporation_ids, SQLiteDatabase(DATABASE))


def report(summary: Summary) -> None:
    """Print the changes. Print to standard error what is missing."""
    with closing(sqlite3.connect(DATABASE)) as db:
        print(", ".join(f"{count} {what}" for what, count in db.execute(CHANGES)))
    for corporation_id, error in summary.failures.items():
        print(f"{corporation_id}: {error}", file=sys.stderr)
    for corporation_id, count in summary.shortfalls.items():
        print(f"{corporation_id}: the server counted {count} more customers than it sent", file=sys.stderr)
    if summary.invalid_customers:
        print(f"{summary.invalid_customers} rows are not valid: see the table invalid_customers", file=sys.stderr)


if __name__ == "__main__":
    ids = Path(sys.argv[1]).read_text(encoding="utf-8").split() if sys.argv[1:] else ["corp_123"]
    try:
        result = anyio.run(main, ids)
    except (AuthenticationError, OutputRefusedError) as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
    report(result)
    sys.exit(0 if result.is_complete else 1)
