"""The queries of the documentation do what the text above them says."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from commenda_customers import AsyncCustomersAPI
from commenda_customers.export import SQLiteDatabase, export
from commenda_customers.testing import Emulator, faults

PAGE = Path(__file__).parent.parent.parent / "docs" / "export.md"
QUERIES = re.findall(r"([^\n]+):\n\n```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


class CountsTooMany(faults.Fault):
    """The server counts two more customers than it sends."""

    def change_listing(self, listing: dict[str, Any], asked: str | None, again: str) -> dict[str, Any]:
        return {**listing, "total_customers": listing["total_customers"] + 2}


def records(corporation_id: str, *names: str, **changed: Any) -> list[Any]:
    return [{"id": name, "corporation_id": corporation_id, "name": changed.get(name, "old")} for name in names]


async def sync(server: Emulator, path: Path) -> None:
    async with AsyncCustomersAPI(server.token, base_url=server.base_url) as api:
        await export(api, server.corporations, SQLiteDatabase(path), limit=2)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Between two exports, one customer is gone, one has changed and one is new. Other corporations have problems."""
    path = tmp_path_factory.mktemp("export") / "customers.db"
    names = ("corp_ok", "corp_failing", "corp_short", "corp_invalid")
    with Emulator({name: records(name, "a", "b", "c") for name in names}) as server:
        anyio.run(sync, server, path)
    lists: dict[str, list[Any]] = {
        "corp_ok": records("corp_ok", "b", "c", "d", b="new"),
        "corp_failing": records("corp_failing", "a"),
        "corp_short": records("corp_short", "b", "c"),
        "corp_invalid": [*records("corp_invalid", "a", "b", b=7), None],
    }
    trouble = [faults.Status(404, corporation_id="corp_failing"), CountsTooMany(corporation_id="corp_short")]
    with Emulator(lists, faults=trouble) as server:
        anyio.run(sync, server, path)
    return path


OTHERS = {(name, key) for name in ("corp_failing", "corp_short", "corp_invalid") for key in "abc"}
CURRENT = {("corp_ok", "b"), ("corp_ok", "c"), ("corp_ok", "d"), *OTHERS} - {("corp_short", "a")}
EXPECTED = {
    "All customers that the server listed": CURRENT,
    "The customers that are gone": {("corp_ok", "a"), ("corp_short", "a")},
    "The customers that are new or have changed since a time. Write the time without `Z`, because SQLite compares texts": {
        *CURRENT,
        ("corp_ok", "a"),
        ("corp_short", "a"),
    },
    "The customers that are new or have changed in the last run. This does not depend on the clock": {
        ("corp_ok", "b"),
        ("corp_ok", "d"),
    },
    "The corporations that failed in the last run, the reason, and the time when they were last complete": {
        ("corp_failing", "NotFoundError")
    },
    "The invalid rows": {("corp_invalid", "b"), ("corp_invalid", None)},
    "The last runs": {(2, "failed"), (1, "complete")},
}


@pytest.mark.parametrize(("text", "query"), QUERIES, ids=[text for text, _query in QUERIES])
def test_queries_find_what_the_text_says(text: str, query: str, database: Path, tmp_path: Path) -> None:
    """Each query of the page is one statement, and returns the expected rows."""
    path = shutil.copy(database, tmp_path)
    with closing(sqlite3.connect(path)) as db:
        cursor = db.execute(query)
        found = cursor.fetchall()
        if text in EXPECTED:
            assert {row[:2] for row in found} == EXPECTED[text]
            assert len(found) == len(EXPECTED[text])
        elif text.startswith("Delete"):
            assert cursor.rowcount == 1
            assert db.execute("select corporation_id, id from gone_customers").fetchall() == [("corp_short", "a")]
        elif "with a shortfall" in text:
            assert [(row[0], *row[2:]) for row in found] == [("corp_short", 2, 4, 2)]
        else:
            assert "field of the JSON" in text
            assert len(found) == 13


def test_every_query_has_a_result_that_is_checked() -> None:
    """The tests cover every query of the page, and every expected query is on the page."""
    assert len(QUERIES) == PAGE.read_text(encoding="utf-8").count("```sql") == len(EXPECTED) + 3


def test_what_is_new_and_what_has_changed(database: Path) -> None:
    """The query for changes distinguishes new and changed customers."""
    (query,) = [query for text, query in QUERIES if "changed in the last run" in text]
    with closing(sqlite3.connect(database)) as db:
        assert sorted(row[1:] for row in db.execute(query)) == [("b", "new", "changed"), ("d", "old", "new")]


def test_all_tables_views_and_columns_are_documented(database: Path) -> None:
    """The page has every name, except those of `COLUMNS`. Those are in the API reference."""
    text = PAGE.read_text(encoding="utf-8")
    with closing(sqlite3.connect(database)) as db:
        tables = [name for (name,) in db.execute("select name from sqlite_master where type in ('table', 'view')")]
        assert [name for name in tables if f"`{name}`" not in text] == []
        for table in ("corporations", "invalid_customers", "runs", "failures"):
            names = [row[1] for row in db.execute(f"pragma table_info({table})")]
            assert [name for name in names if f"`{name}`" not in text] == []
