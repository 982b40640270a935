"""Problems with outputs: another program, a full disk, a read-only folder."""

import os
import resource
import signal
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from emulated import ServeEmulator
from exports import KINDS, Kind, held, prepare_export

SIZES = {"corp_1": 900, "corp_2": 60, "corp_3": 0}
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def limit_file_size(size: int) -> None:
    """Limit the size of files that this process writes, as if the disk were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def become_nobody() -> None:
    """Give up the rights of root, because root can write to every folder."""
    if os.getuid() == 0:
        os.setuid(65534)


@pytest.mark.one_python
@EACH_KIND
def test_two_programs_at_once(kind: Kind, serve: ServeEmulator, tmp_path: Path) -> None:
    """The second program ends with one line that has the reason. The output of the first program is exact."""
    server = serve(SIZES, latency=0.005)
    job = prepare_export(kind, tmp_path, server, SIZES)
    first = job.start()
    while first.is_alive and len(server.requests) < 12:
        time.sleep(0.001)
    os.kill(first.process.pid, signal.SIGSTOP)
    try:
        code, error = job.finish()
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    assert (code, error[:20], "another" in error) == (1, "OutputRefusedError: ", True)
    assert str(tmp_path / kind.name) in error
    assert first.wait() == (0, "")
    assert kind.rows(tmp_path) == held(server, *SIZES)
    assert kind.left_behind(tmp_path) == set()


@pytest.mark.one_python
@EACH_KIND
@pytest.mark.parametrize("size", [0, 100, 2_000, 20_000])
def test_a_full_disk_loses_nothing(kind: Kind, size: int, serve: ServeEmulator, tmp_path: Path) -> None:
    """If the disk is full, the error is one line with the name of the output. The next call resumes."""
    server = serve(SIZES)
    job = prepare_export(kind, tmp_path, server, SIZES)
    code, error = job.finish(partial(limit_file_size, size))
    if code:  # 20,000 bytes are enough for a compressed file
        assert (code, error.count("\n")) == (1, 0)
        assert str(tmp_path / kind.name) in error
        assert job.finish() == (0, "")
    assert code or size == 20_000
    assert kind.rows(tmp_path) == held(server, *SIZES)
    assert kind.left_behind(tmp_path) == set()


@EACH_KIND
@pytest.mark.parametrize("trouble", ["missing", "read-only", "file"])
def test_a_folder_that_cannot_be_written(kind: Kind, trouble: str, serve: ServeEmulator, tmp_path: Path) -> None:
    """If the folder is missing, read-only or a file, the program says so in one line before any request."""
    server = serve(SIZES)
    folder = tmp_path / "out"
    if trouble == "file":
        folder.touch()
    elif trouble == "read-only":
        folder.mkdir(mode=0o555)
        for path in [path for path in folder.parents if path.stat().st_uid == os.getuid() and "pytest" in str(path)]:
            path.chmod(path.stat().st_mode | 0o711)
    job = prepare_export(kind, folder, server, SIZES)
    code, error = job.finish(become_nobody if trouble == "read-only" else int)
    assert (code, error.count("\n")) == (1, 0)
    assert str(folder / kind.name) in error
    assert server.requests == []


def test_a_database_that_is_locked_loses_nothing(serve: ServeEmulator, tmp_path: Path) -> None:
    """If another program locks the database for too long, the error is one line. The next call resumes."""
    kind = next(kind for kind in KINDS if kind.name.endswith(".db"))
    server = serve(SIZES, latency=0.005)
    job = prepare_export(kind, tmp_path, server, SIZES)
    running = job.start()
    while len(server.requests) < 12:
        time.sleep(0.001)
    with closing(sqlite3.connect(tmp_path / kind.name, isolation_level=None)) as other:
        other.execute("begin immediate")
        assert running.wait() == (1, f"OutputError: {tmp_path / kind.name}: database is locked")
        other.execute("rollback")
    assert job.finish() == (0, "")
    assert kind.rows(tmp_path) == held(server, *SIZES)
