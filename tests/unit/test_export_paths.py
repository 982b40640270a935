"""Outputs of every kind under odd circumstances: links, another working directory, removed files, a second cancellation."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from commenda_customers import Checkpoint, StreamProgress
from commenda_customers.export import JSONLinesFile, OutputError, OutputRefusedError, Sink, Summary, export
from commenda_customers.testing import Emulator
from emulated import connected
from exports import KINDS, Kind, held

pytestmark = pytest.mark.anyio

SIZES = {"a": 30, "b": 5}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run in real time: virtual time does not wait for threads."""
    return request.param


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def at_page(number: int, call: Callable[[], object]) -> Callable[[StreamProgress], None]:
    """Return a callback that makes a call after so many pages."""

    def note(progress: StreamProgress) -> None:
        if progress.pages == number:
            call()

    return note


async def run(server: Emulator, sink: Sink, *ids: str, **options: Any) -> Summary:
    async with connected(server) as api:
        return await export(api, ids or tuple(server.corporations), sink, **{"limit": 5, "commit_every": 2, **options})


async def test_another_working_directory(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means the same file until the end, also if the program changes its working directory."""
    server, other = Emulator(SIZES), tmp_path / "other"
    out = tmp_path / "out"
    other.mkdir()
    out.mkdir()
    monkeypatch.chdir(out)
    sink = kind.make(kind.name)
    await run(server, sink, on_progress=at_page(3, lambda: os.chdir(other)))
    assert str(sink) == kind.name
    assert kind.rows(out) == held(server, "a", "b")
    assert (kind.left_behind(out), list(other.iterdir())) == (set(), [])


async def test_a_symbolic_link_is_the_same_output(kind: Kind, tmp_path: Path) -> None:
    """Two exports do not write to one output by two names, and a link stays a link."""
    server, link = Emulator(SIZES), tmp_path / "links" / kind.name
    out = tmp_path / "out"
    link.parent.mkdir()
    out.mkdir()
    link.symlink_to(out / kind.name)
    first = kind.make(link)
    assert await first.open() is None
    with pytest.raises(OutputRefusedError, match="is writing to it"):
        await run(server, kind.sink(out))
    await first.aclose()  # type: ignore[attr-defined]
    await run(server, first)
    assert kind.rows(out) == held(server, "a", "b")
    assert link.is_symlink()
    assert [path.name for path in link.parent.iterdir()] == [kind.name]


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        if path.suffix in {".partial", ".db"}:
            path.unlink()
    shutil.rmtree(folder / "customers" / "_partial", ignore_errors=True)


def _empty(folder: Path) -> None:
    for path in folder.glob("*.partial"):
        os.truncate(path, 0)
    for path in folder.glob("customers/_partial/part-00000.parquet"):
        path.unlink()


@pytest.mark.parametrize("harm", [_remove, _empty])
async def test_an_output_that_is_removed_meanwhile(kind: Kind, harm: Callable[[Path], None], tmp_path: Path) -> None:
    """If somebody removes what was written while the export runs, it fails. It does not say that all is complete."""
    if kind.name == "customers.db" and harm is _empty:
        pytest.skip("SQLite finds out by itself")
    server = Emulator(SIZES)
    with pytest.raises((OutputError, FileNotFoundError), match=f"{tmp_path}/customers"):
        await run(server, kind.sink(tmp_path), on_progress=at_page(5, lambda: harm(tmp_path)))
    await run(server, kind.sink(tmp_path, fresh=True))
    assert kind.rows(tmp_path) == held(server, "a", "b")


async def test_a_sink_that_two_exports_use(kind: Kind, tmp_path: Path) -> None:
    """An export refuses the sink of another one that runs, and does it no harm."""
    server, sink = Emulator(SIZES), kind.sink(tmp_path)
    refused: list[OutputRefusedError] = []

    async with anyio.create_task_group() as tasks:

        async def second() -> None:
            with pytest.raises(OutputRefusedError, match="customers.*: another export is writing to it") as caught:
                await run(server, sink)
            refused.append(caught.value)

        await run(server, sink, on_progress=at_page(3, lambda: tasks.start_soon(second)))
    assert len(refused) == 1
    assert kind.rows(tmp_path) == held(server, "a", "b")
    assert kind.left_behind(tmp_path) == set()


async def test_a_close_is_never_left_out(kind: Kind, tmp_path: Path) -> None:
    """Also a task that is cancelled again while it ends unlocks the output."""
    sinks: Any = [kind.sink(tmp_path) for _ in range(2)]
    for sink in sinks:
        await sink.open()
        await sink.commit(Checkpoint(query="q"))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await sink.aclose()


@pytest.mark.parametrize("corporation_id", ["b", "a"])
async def test_invalid_rows_that_were_discarded_leave_no_file(kind: Kind, corporation_id: str, tmp_path: Path) -> None:
    """If all invalid rows belong to a corporation that is not named again, there is no file of invalid rows."""
    lists = {name: [{"id": str(number), "corporation_id": name} for number in range(12)] for name in "ab"}
    lists["a"].insert(2, {"id": "bad", "corporation_id": "a", "name": 5})  # type: ignore[dict-item]
    server = Emulator(lists)
    with anyio.CancelScope() as scope:
        await run(server, kind.sink(tmp_path), "a", on_progress=at_page(2, scope.cancel))
    await run(server, kind.sink(tmp_path), corporation_id)
    invalid = kind.invalid(tmp_path)
    assert invalid.total() == (corporation_id == "a")
    assert kind.left_behind(tmp_path) == set()
    assert (tmp_path / f"{kind.name}.invalid.jsonl").exists() == (corporation_id == "a" and kind.name != "customers.db")


async def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    """A file cannot replace a folder. That is said before any request, also with `fresh=True`."""
    server, path = Emulator(SIZES), tmp_path / "customers.jsonl"
    path.mkdir()
    for fresh in (False, True):
        with pytest.raises(OutputRefusedError, match=r"customers\.jsonl: is a folder$"):
            await run(server, JSONLinesFile(path, fresh=fresh))
    assert (server.requests, list(tmp_path.iterdir())) == ([], [path])


async def test_two_programs_that_begin_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another program creates the file just before this one does, this one is refused like any other."""
    path = tmp_path / "customers.jsonl"
    first, second = JSONLinesFile(path), JSONLinesFile(path)
    await first.open()

    def exists(_path: Path) -> bool:
        return False

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(OutputRefusedError, match="another export is writing to it"):
        await second.open()
    await second.aclose()
    await first.aclose()


async def test_files_obey_the_umask(kind: Kind, tmp_path: Path) -> None:
    """If the umask of the program keeps other users out, they can read no file of the export, also while it runs."""
    open_to_others: list[Path] = []
    seen: set[Path] = set()

    def look() -> None:
        for path in tmp_path.rglob("*"):
            seen.add(path)
            if path.stat().st_mode & 0o077:
                open_to_others.append(path)

    before = os.umask(0o077)
    try:
        await run(Emulator(SIZES), kind.make(tmp_path / kind.name), on_progress=at_page(5, look))
        during = len(seen)
        look()
    finally:
        os.umask(before)
    assert during
    assert tmp_path / kind.name in seen
    assert open_to_others == []
