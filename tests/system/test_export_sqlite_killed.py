"""An export into SQLite that is killed again and again."""

import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from commenda_customers import Customer
from commenda_customers.testing import faults
from emulated import ServeEmulator
from forks import fork

PROGRAM = """
import sys
import anyio
from commenda_customers import AsyncCustomersAPI
from commenda_customers.export import SQLiteDatabase, export

async def main():
    async with AsyncCustomersAPI() as api:
        summary = await export(api, sys.argv[1:], SQLiteDatabase("customers.db"), limit=20, commit_every=2)
    sys.exit(not summary.is_complete)

anyio.run(main)
"""
LOST = [faults.Drop(probability=0.02), faults.CutBody(probability=0.02)]


def test_it_is_exact_however_often_it_is_killed(serve: ServeEmulator, tmp_path: Path) -> None:
    """Two syncs, each killed at any moment: the database is what the server has, and it knows who is gone."""
    draw = random.Random(3)
    program, path = tmp_path / "program.py", tmp_path / "customers.db"
    program.write_text(PROGRAM, encoding="utf-8")
    names = [f"corp_{number}" for number in range(12)]
    rows = {name: [{"id": f"c{number}", "corporation_id": name, "name": "old"} for number in range(170)] for name in names}
    kills = 0
    for changed in (rows, {name: [{**row, "name": "new"} for row in some[:-3]] + [None] for name, some in rows.items()}):
        server = serve(changed, latency=0.005, faults=LOST)

        def run(delay: float | None) -> int:
            process = fork(program, *names, folder=tmp_path, errors=tmp_path / "errors", prepare=dict)
            process.join(delay)
            process.kill()
            process.join()
            return int(process.exitcode)

        for _ in range(8):
            code = run(draw.uniform(0.1, 0.6))
            assert code in {0, -signal.SIGKILL}, (tmp_path / "errors").read_text()
            kills += code != 0
        assert run(None) == 0, (tmp_path / "errors").read_text()
        assert not [each for each in tmp_path.iterdir() if each.name.startswith("customers.db-")]
    assert kills >= 6

    def found(query: str) -> list[Any]:
        with closing(sqlite3.connect(path)) as db:
            return db.execute(query).fetchall()

    listed = {Customer.model_validate(row) for name in names for row in server.customers(name) if row}
    assert {Customer.model_validate_json(raw) for (raw,) in found("select raw from customers where name = 'new'")} == listed
    assert found("select count(*), count(distinct corporation_id) from invalid_customers") == [(12, 12)]
    assert found("select count(*) from gone_customers") == [(0,)]  # a row without an id may be any of them
    assert found("select distinct state from runs") == [("complete",)]
    assert found("select distinct customers, shortfall from corporations") == [(167, 0)]
    assert found("pragma integrity_check") == [("ok",)]
