"""JSON Lines files: their content, the files beside them during an export, and refusals."""

import errno
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from commenda_customers import Checkpoint, Customer, CustomerPage
from commenda_customers.export import JSONLinesFile, OutputError, OutputRefusedError, Summary, _lock_file, export
from commenda_customers.testing import Emulator, faults
from emulated import connected
from exports import plain
from tables import full_disk

pytestmark = pytest.mark.anyio

SIZES = {"a": 25, "b": 12, "c": 0, "d": 30}
START_AGAIN = "start again with fresh=True, or --fresh$"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run in real time: virtual time does not wait for threads."""
    return request.param


@pytest.fixture(params=["customers.jsonl", "customers.jsonl.gz", "customers.jsonl.zst"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "out" / request.param


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


async def run(server: Emulator, sink: JSONLinesFile, *ids: str, **options: Any) -> Summary:
    async with connected(server) as api:
        return await export(api, ids or tuple(server.corporations), sink, **{"limit": 5, "commit_every": 3, **options})


async def stop(server: Emulator, sink: JSONLinesFile, *, pages: int = 5, **options: Any) -> None:
    """Begin an export, and cancel it after some pages."""
    with anyio.CancelScope() as scope:
        await run(server, sink, on_progress=lambda progress: scope.cancel() if progress.pages >= pages else None, **options)
    assert scope.cancelled_caught


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in plain(path.read_bytes()).split("\n")[:-1]]


def ids(path: Path) -> list[tuple[str, str]]:
    return sorted((row["corporation_id"], row["id"]) for row in rows(path))


def held(server: Emulator, *names: str) -> list[tuple[str, str]]:
    return sorted((name, row["id"]) for name in names or server.corporations for row in server.customers(name))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_a_line_is_a_customer(path: Path, folder: Path) -> None:
    """A line has the documented names and the unknown fields, in UTF-8. The model reads it back."""
    row = {
        "id": "1",
        "corporation_id": "a",
        "name": 'Müller \u2028 "Söhne"\n\0',
        "created_at": 1700000000,
        "vat": {"x": [1]},
    }
    server = Emulator({"a": [row, {**row, "id": "2", "shipping_address": {"address_line_1": "Road", "floor": 3}}]})
    await run(server, JSONLinesFile(path))
    first, second = rows(path)
    assert (first["name"], first["created_at"], first["vat"]) == (row["name"], "2023-11-14T22:13:20Z", {"x": [1]})
    assert (second["shipping_address"]["line1"], second["shipping_address"]["floor"]) == ("Road", 3)
    assert "Müller" in plain(path.read_bytes())
    assert [Customer.model_validate(each) for each in (first, second)] == [
        Customer.model_validate(each) for each in server.customers("a")
    ]
    assert list(files(folder)) == [path.name]


async def test_the_name_appears_when_all_is_complete(path: Path, folder: Path) -> None:
    """Until then, there are a partial file and a state file. A stopped run resumes, and has each customer once."""
    server = Emulator(SIZES)
    await stop(server, JSONLinesFile(path))
    assert set(files(folder)) == {f"{path.name}.partial", f"{path.name}.state"}
    assert len(rows(path.with_name(f"{path.name}.partial"))) == 20
    summary = await run(server, JSONLinesFile(str(path)))
    assert (summary.customers_before, summary.customers) == (20, 67)
    assert ids(path) == held(server)
    assert list(files(folder)) == [path.name]


async def test_a_sink_can_be_used_again(path: Path) -> None:
    """One sink object can resume its own run, and replace its own file."""
    server, sink = Emulator(SIZES), JSONLinesFile(path, fresh=True)
    await stop(server, sink)
    await run(server, sink)
    await run(server, sink)
    assert ids(path) == held(server)


async def test_an_empty_export_is_a_file(path: Path, folder: Path) -> None:
    """Without customers, the file is empty, and readers can decompress it."""
    await run(Emulator({"c": 0}), JSONLinesFile(path))
    assert plain(path.read_bytes()) == ""
    assert list(files(folder)) == [path.name]


async def test_a_complete_file_is_kept(path: Path, folder: Path) -> None:
    """The export refuses a complete file. With `fresh`, the file stays until the new one is complete."""
    await run(Emulator({"a": 3}), JSONLinesFile(path))
    before = files(folder)
    server = Emulator(SIZES)
    with pytest.raises(OutputRefusedError, match=f"^{path}: already exists; to replace it, {START_AGAIN}"):
        await run(server, JSONLinesFile(path))
    assert (files(folder), server.requests) == (before, [])
    await stop(server, JSONLinesFile(path, fresh=True))
    assert files(folder)[path.name] == before[path.name]
    await run(server, JSONLinesFile(path))
    assert ids(path) == held(server)


async def test_fresh_begins_again(path: Path, folder: Path) -> None:
    """`fresh` discards an unfinished run, even with other filters or a damaged state file."""
    bad = [{"id": "1", "corporation_id": "a"}, None]
    await stop(Emulator({"a": bad, "b": 50}), JSONLinesFile(path), pages=3, has_exemption=False)
    (folder / f"{path.name}.state").write_bytes(b"{")
    server = Emulator(SIZES)
    await run(server, JSONLinesFile(path, fresh=True))
    assert ids(path) == held(server)
    assert list(files(folder)) == [path.name]


async def test_invalid_rows_have_a_file(path: Path, folder: Path) -> None:
    """A separate file has each invalid row once, with its errors. Without invalid rows, there is no such file."""
    bad = [None, {"id": "x", "corporation_id": "a", "name": 5}, None]
    server = Emulator({"a": [*bad, *({"id": str(n), "corporation_id": "a"} for n in range(20)), *bad]})
    beside = path.with_name(f"{path.name}.invalid.jsonl")
    await stop(server, JSONLinesFile(path), pages=2)
    assert f"{beside.name}.partial" in files(folder)
    summary = await run(server, JSONLinesFile(path))
    assert summary.invalid_customers == 6
    assert list(map(json.loads, beside.read_text().splitlines())) == [
        {"corporation_id": "a", "id": None, "index": 0, "errors": ["the row is not an object"], "raw": None},
        {"corporation_id": "a", "id": "x", "index": 1, "errors": ["name: Input should be a valid string"], "raw": bad[1]},
        {"corporation_id": "a", "id": None, "index": 2, "errors": ["the row is not an object"], "raw": None},
        {"corporation_id": "a", "id": None, "index": 3, "errors": ["the row is not an object"], "raw": None},
        {"corporation_id": "a", "id": "x", "index": 4, "errors": ["name: Input should be a valid string"], "raw": bad[1]},
        {"corporation_id": "a", "id": None, "index": 0, "errors": ["the row is not an object"], "raw": None},
    ]
    assert set(files(folder)) == {path.name, beside.name}
    await run(Emulator({"a": 3}), JSONLinesFile(path, fresh=True))
    assert set(files(folder)) == {path.name}


async def test_a_corporation_that_begins_anew_is_there_once(path: Path) -> None:
    """If a cursor is refused, the file leaves out the earlier rows of the corporation, valid and invalid."""
    many: list[Any] = [{"id": str(number), "corporation_id": "a"} for number in range(60)]
    many.insert(2, None)
    server = Emulator({"a": many, "b": 12})
    await stop(server, JSONLinesFile(path), pages=8)
    server.faults.add(faults.ExpiredCursor(after=-1, at=[1, 2]))
    summary = await run(server, JSONLinesFile(path))
    assert (summary.restarted, summary.customers, summary.invalid_customers) == (("a",), 72, 1)
    names = [*(("a", str(number)) for number in range(60)), *held(server, "b")]
    assert ids(path) == sorted(names)
    assert len(path.with_name(f"{path.name}.invalid.jsonl").read_text().splitlines()) == 1


async def test_many_stale_rows_are_left_out_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file is compacted piece by piece."""
    monkeypatch.setattr("commenda_customers.export._partial_file._BYTES_AT_ONCE", 1000)
    server, path = Emulator({"a": 100, "b": 5}), tmp_path / "out" / "customers.jsonl"
    await stop(server, JSONLinesFile(path), pages=6)
    await run(server, JSONLinesFile(path), "b")
    assert ids(path) == held(server, "b")


async def test_two_programs_do_not_mix(path: Path, folder: Path) -> None:
    """While one export is writing, a second one is refused, fresh or not. It changes nothing."""
    server, before = Emulator(SIZES), dict[str, bytes]()

    async with anyio.create_task_group() as tasks:
        has_begun, may_go_on = anyio.Event(), anyio.Event()

        class Waits(JSONLinesFile):
            async def write(self, page: CustomerPage) -> None:
                has_begun.set()
                await may_go_on.wait()
                await super().write(page)

        tasks.start_soon(run, server, Waits(path))
        await has_begun.wait()
        before = files(folder)
        for fresh in (False, True):
            with pytest.raises(OutputRefusedError, match=f"^{path}: another export is writing to it$"):
                await run(Emulator(SIZES), JSONLinesFile(path, fresh=fresh))
        assert files(folder) == before
        may_go_on.set()
    assert ids(path) == held(server)


def _cut(folder: Path, name: str) -> None:
    path = folder / f"{name}.partial"
    path.write_bytes(path.read_bytes()[:-1])


def _change_state(folder: Path, name: str, **changes: Any) -> None:
    path = folder / f"{name}.state"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (
            lambda folder, name: (folder / f"{name}.state").write_bytes(b'{"version":1'),
            "is damaged, or another release wrote",
        ),
        (lambda folder, name: _change_state(folder, name, version=2), "is damaged, or another release wrote it"),
        (
            lambda folder, name: _change_state(folder, name, format="CSV"),
            "an unfinished run in the format 'CSV', not 'JSON Lines, version 1'",
        ),
        (lambda folder, name: (folder / f"{name}.state").unlink(), "has no state file"),
        (lambda folder, name: (folder / f"{name}.partial").unlink(), "is missing, or shorter than its state file says"),
        (_cut, "is missing, or shorter than its state file says"),
    ],
    ids=["cut state", "other release", "other format", "no state", "no partial file", "cut partial file"],
)
async def test_a_damaged_run_is_refused(harm: Callable[[Path, str], None], complaint: str, path: Path, folder: Path) -> None:
    """If the files of a run do not fit together, the export refuses them, says what to do, and changes nothing."""
    server = Emulator(SIZES)
    await stop(server, JSONLinesFile(path))
    harm(folder, path.name)
    before, asked = files(folder), len(server.requests)
    with pytest.raises(OutputRefusedError, match=f"{complaint}.*; {START_AGAIN}"):
        await run(server, JSONLinesFile(path))
    assert (files(folder), len(server.requests)) == (before, asked)
    await run(server, JSONLinesFile(path, fresh=True))
    assert ids(path) == held(server)


async def test_what_was_written_after_the_last_commit_is_cut_off(path: Path) -> None:
    """The export ignores all bytes beyond the length in the state file."""
    server = Emulator(SIZES)
    await stop(server, JSONLinesFile(path))
    with path.with_name(f"{path.name}.partial").open("ab") as partial:
        partial.write(b"half of a line")
    await run(server, JSONLinesFile(path))
    assert ids(path) == held(server)


async def die_at_the_end(server: Emulator, path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Export. During the finish, fail at the first call of *step*, a method of `Path`, on the file or its state file."""
    original = getattr(Path, step)

    def die(self: Path, *args: Any, **options: Any) -> Any:
        if step == "unlink" and self.suffix != ".state":
            return original(self, *args, **options)
        if step == "replace" and args[0] != path:
            return original(self, *args, **options)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, die)
        with pytest.raises(RuntimeError, match="killed"):
            await run(server, JSONLinesFile(path))
    assert path.with_name(f"{path.name}.state").exists()


@pytest.mark.parametrize("step", ["replace", "unlink"])
async def test_a_kill_at_the_very_end_is_finished_later(
    step: str, path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a program is killed while it renames the files, the next call completes this without a request."""
    server = Emulator(SIZES)
    await die_at_the_end(server, path, monkeypatch, step)
    asked = len(server.requests)
    assert (await run(server, JSONLinesFile(path))).is_complete
    assert len(server.requests) == asked
    assert list(files(folder)) == [path.name]
    assert ids(path) == held(server)


async def test_an_end_is_not_finished_without_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If somebody removes the file before it gets its name, the next call does not call it complete."""
    server = Emulator(SIZES)
    await die_at_the_end(server, path, monkeypatch, "replace")
    path.with_name(f"{path.name}.partial").unlink()
    with pytest.raises(OutputRefusedError, match=f"is missing, or shorter than its state file says; {START_AGAIN}"):
        await run(server, JSONLinesFile(path))


async def test_a_file_that_was_cut_before_its_end_is_not_complete(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another program has cut the partial file, it never gets its name."""
    server = Emulator(SIZES)
    await die_at_the_end(server, path, monkeypatch, "replace")
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(partial.read_bytes()[:-1])
    with pytest.raises(OutputError, match="another program has removed or changed it"):
        await run(server, JSONLinesFile(path))
    assert not path.exists()


async def test_nothing_is_added_to_a_complete_file(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the call that completes the renames has new corporations, the file becomes complete, and the call is refused."""
    server = Emulator(SIZES)
    await die_at_the_end(server, path, monkeypatch, "unlink")
    with pytest.raises(OutputRefusedError, match=f"is complete; to replace it, {START_AGAIN}"):
        await run(Emulator({**SIZES, "e": 7}), JSONLinesFile(path))
    assert list(files(folder)) == [path.name]
    assert ids(path) == held(server)


async def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """If the folder is missing, the export raises an `OSError` with the name of the file, before any request."""
    server = Emulator(SIZES)
    with pytest.raises(FileNotFoundError, match=r"missing/customers\.jsonl"):
        await run(server, JSONLinesFile(tmp_path / "missing" / "customers.jsonl"))
    assert server.requests == []


async def test_a_disk_that_fails_is_named(path: Path, folder: Path) -> None:
    """If the disk fails, the error names the file, and the next call resumes."""
    server = Emulator(SIZES)
    with full_disk(after=6), pytest.raises(OSError, match=rf"No space left on device: '{path}\.(partial|state)'"):
        await run(server, JSONLinesFile(path))
    assert set(files(folder)) == {f"{path.name}.partial", f"{path.name}.state"}
    await run(server, JSONLinesFile(path))
    assert ids(path) == held(server)


async def test_a_system_without_locks_works(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without file locks, such as Windows, exports work without them."""
    monkeypatch.setattr(_lock_file, "_fcntl", None)
    server = Emulator(SIZES)
    await run(server, JSONLinesFile(path))
    assert ids(path) == held(server)


async def test_a_lock_that_fails_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a lock fails, but not because of another program, the export raises the error."""

    def flock(_file: object, _flags: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_lock_file._fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks available"):
        await run(Emulator(SIZES), JSONLinesFile(path))


def test_zstandard_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error names it, before anything is opened."""
    monkeypatch.setitem(sys.modules, "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", None)
    with pytest.raises(ModuleNotFoundError, match=r"customers\.jsonl\.zst: .* needs the extra 'zstd'"):
        JSONLinesFile("customers.jsonl.zst")


async def test_a_sink_that_was_not_opened_can_be_closed(path: Path, folder: Path) -> None:
    """If nothing was committed, the close leaves nothing behind."""
    sink = JSONLinesFile(path)
    await sink.aclose()
    assert await sink.open() is None
    await sink.aclose()
    assert files(folder) == {}
    assert await sink.open() is None
    await sink.commit(Checkpoint(query="q"))
    await sink.aclose()
    assert set(files(folder)) == {f"{path.name}.partial", f"{path.name}.state"}


def test_compression_is_standard(tmp_path: Path) -> None:
    """The standard library reads all members of a compressed file as one file."""
    path = tmp_path / "out" / "customers.jsonl.gz"
    server = Emulator(SIZES)
    anyio.run(run, server, JSONLinesFile(path))
    with gzip.open(path, "rt") as file:
        assert len(file.readlines()) == 67
