"""Exports into CSV files."""

import csv
import gzip
import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers import Checkpoint, Customer, CustomerPage
from commenda_customers.export import COLUMNS, CSVFile, OutputRefusedError, export
from commenda_customers.export._compression import Compression
from commenda_customers.testing import Emulator, faults
from emulated import connected
from tables import copied_at_each_step, full_disk, names_in, rows_of

pytestmark = pytest.mark.anyio

BEGIN = Checkpoint(query="q")
EXTEND = "shipping_address,exemption_metadata"
TRIGGERS = "=+-@\uff1d\uff0b\uff0d\uff20"
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("=+-@\uff1d'\"\r\n\t\0 ,;\u00a0"), max_size=8)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run in real time: files are written in threads."""
    return request.param


def page(corporation_id: str, *names: str | None, **fields: Any) -> CustomerPage:
    """Return a page of customers with these names."""
    customers = [
        Customer(id=f"{number}", corporation_id=corporation_id, name=name, **fields) for number, name in enumerate(names)
    ]
    return CustomerPage(corporation_id, tuple(customers))


def read(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def encoded(*names: str | None, escape_formulas: bool = True, **fields: Any) -> bytes:
    """Return the rows of some customers."""
    return CSVFile("x.csv", escape_formulas=escape_formulas).encode(page("c", *names, **fields))


def name_cells(data: bytes) -> list[str]:
    """Return the names in rows without a header, as a spreadsheet reads them."""
    return [row[COLUMNS.index("name")] for row in csv.reader(io.StringIO(data.decode(), newline=""))]


def as_cells(row: Sequence[Any]) -> list[str]:
    """Return a row as a reader of the file sees it."""

    def cell(value: Any) -> str:
        if isinstance(value, datetime):
            return value.strftime("%Y-%m-%dT%H:%M:%SZ")
        return "" if value is None else ";".join(value) if isinstance(value, tuple) else str(value)

    return [cell(value) for value in row]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.zst"])
async def test_every_customer_is_a_row(tmp_path: Path, suffix: str) -> None:
    """A CSV reader gets every customer with all values, with every compression. The header names the columns."""
    server = Emulator({"corp_1": 45, "corp_2": 3, "corp_empty": 0})
    path = tmp_path / f"customers{suffix}"
    async with connected(server) as api:
        sink = CSVFile(path)
        summary = await export(api, server.corporations, sink, limit=10, commit_every=2, extend=EXTEND.split(","))
    assert summary.is_complete
    assert names_in(tmp_path) == {path.name}
    with Compression(path).open(path) as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert sorted(rows) == [as_cells(row) for row in rows_of(server, extend=EXTEND)]


async def test_a_file_without_customers_has_a_header(tmp_path: Path) -> None:
    """The header does not depend on the customers."""
    path = tmp_path / "customers.csv"
    async with connected(Emulator({"corp_empty": 0})) as api:
        assert (await export(api, ["corp_empty"], CSVFile(path))).is_complete
    assert path.read_bytes() == ",".join(COLUMNS).encode() + b"\r\n"


def test_a_row_is_written_as_rfc_4180_says() -> None:
    """Cells are quoted only where needed, quotes are doubled, and the row ends with CR LF."""
    data = CSVFile("x.csv").encode(page("c", 'Ac"me, Ltd.', email="é@x.example", source_platform=""))
    assert data == 'c,0,"Ac""me, Ltd.",é@x.example,,,"",'.encode() + b"," * 17 + b"\r\n"


def test_nothing_and_an_empty_text_are_told_apart() -> None:
    """`None` is an empty cell, an empty text is a pair of quotes, and a text of two quotes is six."""
    assert encoded(None, "", '""', "x") == b"".join(
        b"c," + cells + b"," * 22 + b"\r\n" for cells in (b"0,", b'1,""', b'2,""""""', b"3,x")
    )


def test_times_lists_and_undocumented_fields() -> None:
    """Times are ISO 8601 in UTC, lists are joined, and undocumented fields are JSON."""
    record = {
        "id": "1",
        "corporation_id": "c",
        "created_at": "2024-01-23T10:53:20.5+02:00",
        "exemption_metadata": {"exempted_states": ["US_CA", "US_NY"], "total_certificates": -2},
        "new": [1, "a"],
    }
    customer = Customer.model_validate(record)
    other = Customer(id="2", corporation_id="c")
    header = ",".join(COLUMNS).encode() + b"\r\n"
    row, without = read(header + CSVFile("x.csv").encode(CustomerPage("c", (customer, other))))
    assert {without.pop("id"), without.pop("corporation_id"), *without.values()} == {"2", "c", ""}
    assert row["created_at"] == "2024-01-23T08:53:20.500000Z"
    assert row["exemption_metadata_exempted_states"] == "US_CA;US_NY"
    assert row["exemption_metadata_total_certificates"] == "-2"
    assert row["extra"] == '{"new":[1,"a"]}'


@pytest.mark.parametrize("start", ["", " ", "\u00a0", "\u3000", "\ufeff", "\u200b", " \t", "'", "'' "])
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(start: str, trigger: str) -> None:
    """White space and other apostrophes do not hide a formula."""
    assert name_cells(encoded(f"{start}{trigger}1+1", "harmless")) == [f"'{start}{trigger}1+1", "harmless"]


@pytest.mark.parametrize("text", ["\tx", "\rx", "\nx", "\0x", "'\tx"])
def test_a_text_that_begins_with_a_control_character_gets_an_apostrophe(text: str) -> None:
    """Some spreadsheets skip these characters, and run the rest."""
    assert name_cells(encoded(text)) == [f"'{text}"]


@pytest.mark.parametrize("text", ["'x", " x", "x=1", "O'Neil", "1-2", "'"])
def test_other_texts_stay_the_same(text: str) -> None:
    """Only texts that look like formulas get an apostrophe."""
    assert name_cells(encoded(text)) == [text]


def test_ids_and_lists_are_texts_too() -> None:
    """All text columns are escaped."""
    metadata = {"certificate_types": ["=1", "b"]}
    customer = Customer.model_validate({"id": "=i", "corporation_id": "@c", "exemption_metadata": metadata})
    cells = CSVFile("x.csv").encode(CustomerPage("@c", (customer,))).split(b",")
    assert [cell for cell in cells if cell.startswith(b"'")] == [b"'@c", b"'=i", b"'=1;b"]


def is_formula(text: str) -> bool:
    white = {char for char in text if char.isspace()} | {*"\0\u200b\ufeff"}
    return text.lstrip("".join(white))[:1] in {*TRIGGERS} or text[:1] in {*"\t\r\n\0"}


@given(st.lists(st.none() | texts, min_size=1, max_size=5))
def test_the_original_can_be_told(names: list[str | None]) -> None:
    """No cell is a formula. A reader that removes the first apostrophe before a formula gets the original text."""
    cells = name_cells(encoded(*names))
    assert not any(map(is_formula, cells))
    originals = [cell[1:] if cell.startswith("'") and is_formula(cell.lstrip("'")) else cell for cell in cells]
    assert originals == [name or "" for name in names]


@given(st.lists(st.none() | texts, min_size=1, max_size=5))
def test_formulas_can_be_left_as_they_are(names: list[str | None]) -> None:
    """With `escape_formulas=False`, every text is the same as the server sent it."""
    assert name_cells(encoded(*names, escape_formulas=False)) == [name or "" for name in names]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("escape_formulas", [True, False])
@pytest.mark.parametrize("other", ["=corp", "'=corp", 'a,"b"', "two\r\nlines\n", "corp"])
async def test_a_corporation_that_is_read_again_leaves_no_row_behind(
    tmp_path: Path, suffix: str, escape_formulas: bool, other: str
) -> None:
    """The other rows keep their bytes, also those with line breaks and quotes."""
    path = tmp_path / f"customers{suffix}"
    sink = CSVFile(path, escape_formulas=escape_formulas)
    kept = [page("kept", 'a\r\n"b"\r\n', "c\rd", "\n", '"\r\n'), page("kept", "=1,\r\n2"), page(other, "new", "x\r\n")]
    assert await sink.open() is None
    await sink.commit(BEGIN)
    for old in (page(other, "old", 'o"\r\n\r\nld'), kept[0], page(other, "older")):
        await sink.write(old)
        await sink.commit(BEGIN)
    await sink.restart(other)
    await sink.commit(BEGIN)
    for new in kept[1:]:
        await sink.write(new)
    await sink.commit(BEGIN)
    await sink.finish()
    await sink.aclose()
    data = gzip.decompress(path.read_bytes()) if suffix.endswith(".gz") else path.read_bytes()
    assert data == ",".join(COLUMNS).encode() + b"\r\n" + b"".join(sink.encode(each) for each in kept)


async def test_a_run_is_not_resumed_with_other_formulas(tmp_path: Path) -> None:
    """A file must not have apostrophes in one half only."""
    path = tmp_path / "customers.csv"
    first = CSVFile(path)
    await first.open()
    await first.commit(BEGIN)
    await first.aclose()
    async with connected(Emulator({"corp_1": 1})) as api:
        with pytest.raises(OutputRefusedError, match="formulas escaped', not 'CSV, version 1, formulas not escaped'"):
            await export(api, ["corp_1"], CSVFile(path, escape_formulas=False))


async def test_a_kill_between_any_two_file_steps_costs_nothing(tmp_path: Path) -> None:
    """After a kill at any step, the next call completes the file. It has each customer once, and leaves no other file."""
    corporations = {"corp_1": 5, "corp_2": 3}
    refused_once = faults.Status(400, corporation_id="corp_1", pages=[3], at=[1])
    server = Emulator(corporations, faults=[refused_once])
    (tmp_path / "out").mkdir()
    with copied_at_each_step(tmp_path / "out", tmp_path / "copies") as copies:
        async with connected(server) as api:
            sink = CSVFile(tmp_path / "out" / "customers.csv")
            summary = await export(api, corporations, sink, limit=1, commit_every=2)
    assert summary.restarted == ("corp_1",)
    expected = [as_cells(row) for row in rows_of(server)]
    assert len(copies()) > 20
    for copy in copies():
        path = copy / "customers.csv"
        async with connected(server) as api:
            is_whole = names_in(copy) - {f"{path.name}.lock"} == {path.name}
            if not is_whole:
                assert (await export(api, corporations, CSVFile(path), limit=1, commit_every=2)).is_complete
        assert names_in(copy) - {f"{path.name}.lock"} == {path.name}
        with path.open(encoding="utf-8", newline="") as file:
            assert sorted(list(csv.reader(file))[1:]) == expected


async def test_a_sink_that_failed_can_be_used_again(tmp_path: Path) -> None:
    """If an export could not commit some pages, the next export with the same sink does not write them."""
    server = Emulator({"corp_1": 6})
    sink = CSVFile(tmp_path / "customers.csv")
    with full_disk(after=8):
        async with connected(server) as api:
            with pytest.raises(OSError, match="No space left"):
                await export(api, ["corp_1"], sink, limit=1, commit_every=3)
    async with connected(server) as api:
        assert (await export(api, ["corp_1"], sink, limit=1)).is_complete
    assert [row["id"] for row in read((tmp_path / "customers.csv").read_bytes())] == [row[1] for row in rows_of(server)]
