"""The example of a sink: customers in DuckDB."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

from commenda_customers.testing import faults
from emulated import ServeEmulator

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "examples" / "duckdb_sink.py"


def rows(folder: Path, query: str) -> list[Any]:
    with duckdb.connect(str(folder / "customers.duckdb")) as db:
        return db.execute(query).fetchall()


def start(folder: Path, *ids: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", PROGRAM, *ids]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def test_the_page_shows_the_example() -> None:
    """The program in the documentation is the program that these tests run."""
    assert f"```python\n{PROGRAM.read_text(encoding='utf-8')}```" in (ROOT / "docs" / "export.md").read_text(
        encoding="utf-8"
    )


def test_it_resumes_and_begins_anew(serve: ServeEmulator, tmp_path: Path) -> None:
    """Killed and run again it has every customer once; after a complete run, the next one replaces the data."""
    stuck = faults.Hang(corporation_id="a", pages=[40])
    server = serve({"a": 5000, "b": [{"id": "1", "corporation_id": "b"}, {"id": 5, "corporation_id": "b"}]}, faults=[stuck])
    with start(tmp_path, "a", "b") as process:
        while sum(request.params["corporation_id"] == "a" for request in server.requests) < 40:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    server.faults.remove(stuck)
    for _ in range(2):
        asked = len(server.requests)
        with start(tmp_path, "a", "b") as process:
            assert process.communicate(timeout=120) == ("5001 customers, 1 invalid rows\n", "")
        assert process.returncode == 0
        found = rows(tmp_path, "select id, record from customers where corporation_id = 'a'")
        assert sorted(name for name, _record in found) == sorted(row["id"] for row in server.customers("a"))
        assert all(json.loads(record)["id"] == name for name, record in found)
        assert rows(tmp_path, "select corporation_id, id from invalid_customers") == [("b", None)]
        assert rows(tmp_path, "select * from unfinished") == []
    assert len(server.requests) - asked == 51  # it began anew
