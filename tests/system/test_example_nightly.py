"""The nightly job of the examples."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from commenda_customers.testing import faults
from emulated import ServeEmulator

PROGRAM = Path(__file__).parent.parent.parent / "examples" / "nightly.py"
NAMES = ["corp_1", "corp_2", "corp_3", "corp_4"]


def customer(corporation_id: str, number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"{corporation_id}_{number}", "corporation_id": corporation_id, "name": f"Customer {number}", **changes}


def run(folder: Path) -> tuple[int, str, str]:
    (folder / "ids.txt").write_text("\n".join(NAMES), encoding="utf-8")
    command = [sys.executable, "-W", "error", PROGRAM, "ids.txt"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ, timeout=120)
    return done.returncode, done.stdout, done.stderr


class CountsTooMany(faults.Fault):
    """The server counts seven customers that it does not send."""

    def change_listing(self, listing: dict[str, Any], asked: str | None, again: str) -> dict[str, Any]:
        return {**listing, "total_customers": listing["total_customers"] + 7}


def test_it_follows_the_server_from_night_to_night(serve: ServeEmulator, tmp_path: Path) -> None:
    """It says what is new, changed, gone and missing. The next call reads only what is missing."""
    first = {name: [customer(name, number) for number in range(20)] for name in NAMES}
    serve(first)
    assert run(tmp_path) == (0, "80 new, 0 changed, 0 gone\n", "")

    second: dict[str, list[Any]] = {name: rows[5:] for name, rows in first.items()}
    second["corp_1"] = [customer("corp_1", 5, name="New name"), *second["corp_1"][1:], customer("corp_1", 30)]
    second["corp_2"][3] = customer("corp_2", 8, name=12345)  # known from yesterday
    failing = faults.Status(404, corporation_id="corp_4")
    server = serve(second, faults=[failing, CountsTooMany(corporation_id="corp_3")])
    code, output, errors = run(tmp_path)
    assert (code, output) == (1, "1 new, 1 changed, 15 gone\n")
    failure, shortfall, invalid = errors.splitlines()
    assert failure.startswith("corp_4: the server answered 404")
    assert shortfall == "corp_3: the server counted 7 more customers than it sent"
    assert invalid == "1 rows are not valid: see the table invalid_customers"

    server.faults.remove(failing)
    asked = len(server.requests)
    assert run(tmp_path)[:2] == (0, "1 new, 1 changed, 20 gone\n")
    assert {request.params["corporation_id"] for request in server.requests[asked:]} == {"corp_4"}
    with closing(sqlite3.connect(tmp_path / "customers.db")) as db:
        (names,) = db.execute("select group_concat(id) from gone_customers where corporation_id = 'corp_2'").fetchone()
    assert sorted(names.split(",")) == [f"corp_2_{number}" for number in range(5)]


def test_a_refused_token_ends_the_job(serve: ServeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be read without a token: one line and an exit code of its own say so."""
    serve(dict.fromkeys(NAMES, 5))
    monkeypatch.setenv("COMMENDA_API_TOKEN", "wrong")
    code, _output, errors = run(tmp_path)
    assert (code, errors.count("\n")) == (2, 1)
