"""Exports into folders of Parquet files."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from commenda_customers import AsyncCustomersAPI, Checkpoint, Customer, CustomerPage
from commenda_customers.export import (
    COLUMNS,
    COLUMNS_VERSION,
    OutputError,
    OutputRefusedError,
    ParquetFolder,
    _lock_file,
    export,
)
from commenda_customers.testing import Emulator, faults
from emulated import connected
from tables import copied_at_each_step, full_disk, names_in, rows_of

pytestmark = pytest.mark.anyio

BEGIN = Checkpoint(query="q")
EXTEND = "shipping_address,exemption_metadata"
CORPORATIONS = {"corp_1": 4, "corp_2": 1}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run in real time: files are written in threads."""
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "customers"


def page(corporation_id: str, *ids: str, **fields: Any) -> CustomerPage:
    return CustomerPage(corporation_id, tuple(Customer(id=name, corporation_id=corporation_id, **fields) for name in ids))


async def export_all(api: AsyncCustomersAPI, sink: ParquetFolder, **options: Any) -> Any:
    return await export(api, CORPORATIONS, sink, **{"limit": 1, "commit_every": 2, **options})


async def complete(path: Path, **corporations: int) -> Emulator:
    """Make a complete copy, and return the server."""
    server = Emulator(corporations or CORPORATIONS)
    async with connected(server) as api:
        assert (await export(api, server.corporations, ParquetFolder(path), limit=1, commit_every=2)).is_complete
    return server


def read(path: Path) -> list[tuple[Any, ...]]:
    """Return the rows of a folder, in the order of their corporations and ids."""
    rows = ds.dataset(path).to_table().to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=lambda row: row[:2])


def as_lists(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows in the form of Arrow: with lists instead of tuples."""
    return [tuple(list(value) if isinstance(value, tuple) else value for value in row) for row in rows]


def ids_in(path: Path) -> list[str]:
    return [row[1] for row in read(path)]


async def test_every_reader_gets_every_customer(path: Path) -> None:
    """Arrow, DuckDB and polars read the folder as one table, with all values."""
    server = Emulator({"corp_1": 45, "corp_2": 3, "corp_empty": 0})
    async with connected(server) as api:
        sink = ParquetFolder(path)
        summary = await export(api, server.corporations, sink, limit=10, commit_every=3, extend=EXTEND.split(","))
    assert summary.is_complete
    assert names_in(path) == {"_SUCCESS", *(f"part-0000{number}.parquet" for number in range(3))}
    assert names_in(path.parent) == {path.name}
    expected = as_lists(rows_of(server, extend=EXTEND))
    assert read(path) == expected
    assert sorted(pl.scan_parquet(f"{path}/*.parquet").collect().rows(), key=lambda row: row[:2]) == expected
    table = duckdb.sql(f"SELECT * FROM read_parquet('{path}/*.parquet') ORDER BY corporation_id, id").to_arrow_table()
    assert [tuple(row.values()) for row in table.to_pylist()] == expected


async def test_the_schema_is_typed(path: Path) -> None:
    """The types do not depend on the data. The metadata has the version of the columns."""
    await complete(path)
    schema = pq.read_schema(path / "part-00000.parquet")
    assert tuple(schema.names) == COLUMNS
    assert schema.metadata[b"commenda_customers.columns_version"] == str(COLUMNS_VERSION).encode()
    types = {name: str(schema.field(name).type) for name in COLUMNS}
    assert types["created_at"] == "timestamp[us, tz=UTC]"
    assert {name for name, kind in types.items() if kind == "int64"} == {
        name for name in COLUMNS if name.endswith(("_count", "_certificates", "_total_exempted_states"))
    }
    assert {name for name, kind in types.items() if kind.startswith("list<")} == {
        "exemption_metadata_certificate_types",
        "exemption_metadata_exempted_states",
    }
    assert [name for name in COLUMNS if not schema.field(name).nullable] == ["corporation_id", "id"]


async def test_a_commit_is_a_file_of_one_row_group(path: Path) -> None:
    """`commit_every` sets the number of customers in a file. A commit without customers writes no file."""
    server = Emulator({"corp_1": 450, "corp_empty": 0})
    async with connected(server) as api:
        await export(api, server.corporations, ParquetFolder(path), concurrency=1, commit_every=4)
    sizes = [pq.ParquetFile(part).metadata for part in sorted(path.glob("*.parquet"))]
    assert [(each.num_rows, each.num_row_groups) for each in sizes] == [(400, 1), (50, 1)]


async def test_a_folder_without_customers_has_its_columns(path: Path) -> None:
    """Without customers, a reader gets a table without rows."""
    await complete(path, corp_empty=0)
    assert names_in(path) == {"_SUCCESS", "part-00000.parquet"}
    assert tuple(ds.dataset(path).schema.names) == COLUMNS
    assert read(path) == []


async def test_invalid_rows_are_next_to_the_folder(path: Path) -> None:
    """A separate file has the invalid rows."""
    server = Emulator(
        {"corp_1": [{"id": "1", "corporation_id": "corp_1"}, {"id": "2", "corporation_id": "corp_1", "name": 3}]}
    )
    async with connected(server) as api:
        summary = await export(api, ["corp_1"], ParquetFolder(path))
    assert (summary.customers, summary.invalid_customers) == (1, 1)
    assert ids_in(path) == ["1"]
    assert names_in(path.parent) == {"customers", "customers.invalid.jsonl"}
    assert json.loads((path.parent / "customers.invalid.jsonl").read_text())["id"] == "2"


@pytest.mark.parametrize("number", [1 << 63, 10**30])
async def test_integers_of_more_than_64_bits_are_kept(path: Path, number: int) -> None:
    """Integers of more than 64 bits move to `extra`. The other customers in the file do not change."""
    records = [
        {"id": name, "corporation_id": "corp_1", "exemption_metadata": {"total_certificates": value}}
        for name, value in (("1", number), ("2", 7))
    ]
    async with connected(Emulator({"corp_1": records})) as api:
        assert (await export(api, ["corp_1"], ParquetFolder(path))).is_complete
    column = COLUMNS.index("exemption_metadata_total_certificates")
    assert [(row[column], json.loads(row[-1] or "null")) for row in read(path)] == [
        (None, {"exemption_metadata": {"total_certificates": number}}),
        (7, None),
    ]


async def test_a_kill_between_any_two_file_steps_costs_nothing(tmp_path: Path) -> None:
    """After a kill at any step, the next call completes the folder. It has each customer once, and no other file."""
    refused_once = faults.Status(400, corporation_id="corp_1", pages=[3], at=[1])
    server = Emulator(CORPORATIONS, faults=[refused_once])
    (tmp_path / "out").mkdir()
    with copied_at_each_step(tmp_path / "out", tmp_path / "copies") as copies:
        async with connected(server) as api:
            summary = await export_all(api, ParquetFolder(tmp_path / "out" / "customers"))
    assert summary.restarted == ("corp_1",)
    assert len(copies()) > 40
    for copy in copies():
        await (check_refused if is_complete(copy / "customers") else finish)(server, copy / "customers")


async def finish(server: Emulator, path: Path) -> None:
    """Resume an export, and check that the folder is complete."""
    async with connected(server) as api:
        assert (await export_all(api, ParquetFolder(path))).is_complete
    assert read(path) == as_lists(rows_of(server))
    assert {name for name in names_in(path) if not name.startswith("part-")} == {"_SUCCESS"}
    assert names_in(path.parent) == {path.name}


async def check_refused(server: Emulator, path: Path) -> None:
    """Check that a folder is complete, and that an export refuses it."""
    async with connected(server) as api:
        with pytest.raises(OutputRefusedError, match="already exists"):
            await export_all(api, ParquetFolder(path))
    assert read(path) == as_lists(rows_of(server))
    # A run with `fresh=True` may have been killed while it wrote its first state file.
    assert {name for name in names_in(path) if not name.startswith("part-")} - {"_state.json.new"} == {"_SUCCESS"}


def is_complete(path: Path) -> bool:
    return (path / "_SUCCESS").exists() and not (path / "_state.json").exists()


async def test_a_kill_while_a_complete_folder_is_replaced(tmp_path: Path) -> None:
    """The old copy is readable until the new one is complete. After a kill, the next call completes the new one."""
    out = tmp_path / "out" / "customers"
    out.parent.mkdir()
    old = await complete(out, corp_old=7)
    new = Emulator(CORPORATIONS)
    with copied_at_each_step(out.parent, tmp_path / "copies") as copies:
        async with connected(new) as api:
            assert (await export_all(api, ParquetFolder(out, fresh=True))).is_complete
    assert read(out) == as_lists(rows_of(new))
    for copy in copies():
        path = copy / "customers"
        if is_complete(path):
            await check_refused(old if len(ids_in(path)) == 7 else new, path)
            continue
        if not json.loads((path / "_state.json").read_bytes())["is_finishing"]:
            assert (path / "_SUCCESS").exists()
            assert read(path) == as_lists(rows_of(old))
        await finish(new, path)


async def test_a_fresh_run_replaces_an_unfinished_one(path: Path) -> None:
    """The export discards the unfinished run, although its files have the same names."""
    sink = ParquetFolder(path)
    await sink.open()
    for number in range(9):
        await sink.write(page("corp_old", f"{number}"))
        await sink.commit(BEGIN)
    await sink.aclose()
    server = Emulator(CORPORATIONS)
    async with connected(server) as api:
        assert (await export_all(api, ParquetFolder(path, fresh=True))).is_complete
    assert read(path) == as_lists(rows_of(server))


async def test_a_corporation_that_is_read_again_leaves_no_row_behind(path: Path) -> None:
    """If a corporation is read again, its old rows are left out, committed or not. Files without them stay the same."""
    sink = ParquetFolder(path)
    await sink.open()
    for pages in ([page("a", "old"), page("b", "1")], [page("b", "2")], [page("a", "older")]):
        for each in pages:
            await sink.write(each)
        await sink.commit(BEGIN)
    untouched = (path / "_partial" / "part-00001.parquet").stat().st_ino
    await sink.write(page("a", "oldest"))
    await sink.write(page("b", "3"))
    await sink.restart("a")
    await sink.write(page("a", "new"))
    await sink.commit(BEGIN)
    await sink.finish()
    await sink.aclose()
    assert ids_in(path) == ["new", "1", "2", "3"]
    assert (path / "part-00001.parquet").stat().st_ino == untouched
    assert pq.read_table(path / "part-00002.parquet").num_rows == 0


async def test_the_folder_of_another_program_is_refused(path: Path) -> None:
    """The export refuses a folder with other files, even with `fresh=True`. Hidden files do not matter."""
    path.mkdir()
    (path / ".hidden").touch()
    (path / "report.txt").touch()
    async with connected(Emulator(CORPORATIONS)) as api:
        for fresh in (False, True):
            with pytest.raises(OutputRefusedError, match="has files that no export wrote, such as 'report.txt'"):
                await export_all(api, ParquetFolder(path, fresh=fresh))
        assert names_in(path) == {".hidden", "report.txt"}
        (path / "report.txt").unlink()
        assert (await export_all(api, ParquetFolder(path))).is_complete


async def test_a_file_in_the_place_of_the_folder_is_refused(path: Path) -> None:
    """If the path is a file, the export refuses it, and the file stays."""
    path.write_text("mine")
    async with connected(Emulator(CORPORATIONS)) as api:
        with pytest.raises(OutputRefusedError, match="customers: is not a folder"):
            await export_all(api, ParquetFolder(path))
    assert path.read_text() == "mine"


async def test_a_folder_in_use_is_refused(path: Path) -> None:
    """Only one export writes to a folder. A refused export does not remove the lock."""
    first = ParquetFolder(path)
    await first.open()
    await first.commit(BEGIN)
    async with connected(Emulator(CORPORATIONS)) as api:
        for fresh in (False, True):
            with pytest.raises(OutputRefusedError, match="customers: another export is writing to it"):
                await export_all(api, ParquetFolder(path, fresh=fresh))
    assert "_lock" in names_in(path)
    await first.aclose()
    assert names_in(path) == {"_partial", "_state.json"}


async def test_a_run_is_not_resumed_with_other_filters(path: Path) -> None:
    """An unfinished run with other filters is refused: a folder must not mix two sets of customers."""
    sink = ParquetFolder(path)
    await sink.open()
    await sink.commit(BEGIN)
    await sink.aclose()
    async with connected(Emulator(CORPORATIONS)) as api:
        with pytest.raises(OutputRefusedError, match="customers: holds an unfinished run with other filters"):
            await export_all(api, ParquetFolder(path), search_term="x")


async def test_a_complete_folder_is_refused(path: Path) -> None:
    """A complete copy is replaced only with `fresh=True`."""
    await complete(path)
    before = {name: (path / name).stat().st_mtime_ns for name in names_in(path)}
    async with connected(Emulator(CORPORATIONS)) as api:
        with pytest.raises(
            OutputRefusedError, match="customers: already exists; to replace it, start again with fresh=True"
        ):
            await export_all(api, ParquetFolder(path))
    assert {name: (path / name).stat().st_mtime_ns for name in names_in(path)} == before


async def test_parts_that_nothing_explains_are_refused(path: Path) -> None:
    """Without `fresh=True`, the export does not overwrite files that look like those of an export."""
    await complete(path)
    (path / "_SUCCESS").unlink()
    async with connected(Emulator(CORPORATIONS)) as api:
        with pytest.raises(OutputRefusedError, match="already exists"):
            await export_all(api, ParquetFolder(path))
    sink = ParquetFolder(path, fresh=True)
    await sink.open()
    await sink.write(page("a", "1"))
    await sink.commit(BEGIN)
    await sink.aclose()
    (path / "_state.json").unlink()
    shutil.rmtree(path / "_partial")
    for part in path.glob("*.parquet"):
        (path / "_partial").mkdir(exist_ok=True)
        part.rename(path / "_partial" / part.name)
    async with connected(Emulator(CORPORATIONS)) as api:
        with pytest.raises(OutputRefusedError, match="_partial: has no state file"):
            await export_all(api, ParquetFolder(path))


async def test_a_missing_part_is_found(path: Path) -> None:
    """If a file of an unfinished run is missing, the export does not resume and does not complete."""
    sink = ParquetFolder(path)
    await sink.open()
    for name in "12":
        await sink.write(page("a", name))
        await sink.commit(BEGIN)
    await sink.aclose()
    (path / "_partial" / "part-00000.parquet").unlink()
    async with connected(Emulator(CORPORATIONS)) as api:
        with pytest.raises(OutputRefusedError, match="_partial: is missing, or shorter than its state file says"):
            await export_all(api, ParquetFolder(path))


async def test_a_damaged_part_is_an_error_that_names_it(path: Path) -> None:
    """If a file must be rewritten but is not readable, the error names the file."""
    sink = ParquetFolder(path)
    await sink.open()
    await sink.write(page("a", "1"))
    await sink.commit(BEGIN)
    (path / "_partial" / "part-00000.parquet").write_bytes(b"PAR1 and nothing else")
    await sink.restart("a")
    await sink.commit(BEGIN)
    with pytest.raises(OutputError, match=r"^\S+part-00000\.parquet: .+$"):
        await sink.finish()
    await sink.aclose()


async def test_what_cannot_be_encoded_is_an_error_that_names_the_folder(path: Path) -> None:
    """An exception of pyarrow becomes an `OutputError`."""
    sink = ParquetFolder(path)
    await sink.open()
    await sink.write(CustomerPage("a", (Customer.model_construct(id=1.5, corporation_id="a"),)))
    with pytest.raises(OutputError, match=r"^\S+customers: Expected bytes, got a 'float' object$"):
        await sink.commit(BEGIN)
    await sink.aclose()


async def test_nothing_is_left_if_nothing_began(path: Path) -> None:
    """A folder that was only opened is removed. A folder that existed before stays."""
    sink = ParquetFolder(path)
    for _ in range(2):
        assert await sink.open() is None
        await sink.aclose()
    assert not path.exists()
    path.mkdir()
    await sink.open()
    await sink.aclose()
    assert names_in(path) == set()


async def test_a_new_folder_that_is_used_by_now_stays(path: Path) -> None:
    """If another program puts a file into the folder meanwhile, the folder stays."""
    sink = ParquetFolder(path)
    await sink.open()
    (path / "other").touch()
    await sink.aclose()
    assert names_in(path) == {"other"}


async def test_a_sink_that_failed_can_be_used_again(path: Path) -> None:
    """If an export could not commit some pages, the next export with the same sink does not write them."""
    server = Emulator({"corp_1": 6})
    sink = ParquetFolder(path)
    with full_disk(after=8):
        async with connected(server) as api:
            with pytest.raises(OSError, match="No space left"):
                await export(api, ["corp_1"], sink, limit=1, commit_every=3)
    async with connected(server) as api:
        assert (await export(api, ["corp_1"], sink, limit=1)).is_complete
    assert read(path) == as_lists(rows_of(server))


async def test_without_locks_nothing_is_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, which has no file locks, an export works, and leaves no lock file behind."""
    monkeypatch.setattr(_lock_file, "_fcntl", None)
    sink = ParquetFolder(path)
    await sink.open()
    await sink.commit(BEGIN)
    await sink.aclose()
    assert names_in(path) == {"_partial", "_state.json"}


async def test_with_fresh_nothing_is_resumed(path: Path) -> None:
    """With `fresh=True`, the export requests every customer again."""
    await complete(path)
    server = Emulator({"corp_1": 2})
    async with connected(server) as api:
        assert (await export(api, ["corp_1"], ParquetFolder(path, fresh=True))).customers_before == 0
    assert len(ids_in(path)) == 2


def test_without_the_extra_the_package_works(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """`ParquetFolder` imports pyarrow. If pyarrow is missing, the error says in one line what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("commenda_customers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    from commenda_customers import export as package

    with pytest.raises(ModuleNotFoundError, match=r"^\S+customers: .* needs the extra 'parquet': pip install '[^\n]+'$"):
        package.ParquetFolder(path)
