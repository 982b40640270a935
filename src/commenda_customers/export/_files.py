"""Atomic steps on files. They survive a kill and a power failure."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def with_suffix(path: Path, suffix: str) -> Path:
    """Return the path with a suffix added: `customers.jsonl` becomes `customers.jsonl.partial`."""
    return path.with_name(path.name + suffix)


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return the name of a file without symbolic links. It stays right if the working directory changes."""
    return Path(os.path.realpath(path))


def replace(source: Path, target: Path) -> None:
    """Rename a file. After a power failure, it has the old or the new name."""
    source.replace(target)
    sync_folder(target.parent)


def write_whole(path: Path, data: bytes) -> None:
    """
    Replace the content of a file in one step, through `PATH.new`.

    After a power failure, the file may have the old content. If it must have the new content, call `sync_folder` next.
    """
    new = with_suffix(path, ".new")
    try:
        with new.open("wb", buffering=0) as file:
            append(file, data, path)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def append(file: BinaryIO, data: bytes, path: Path) -> None:
    """Write to an unbuffered file, and wait until the data is on the disk. An error names *path*."""
    if not data:
        return

    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(path)) from exc


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in a folder are on the disk."""
    with suppress(PermissionError):  # Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_at(file: BinaryIO, path: Path) -> bool:
    """Return whether an open file is still at *path*. Another program may have renamed it before we locked it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
