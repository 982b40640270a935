"""What the unit tests of exports share: the rows of an emulator, copies of a folder at every file step, and a full disk."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from commenda_customers import Customer
from commenda_customers.export.columns import flatten
from commenda_customers.testing import Emulator

_STEPS = ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate")


def rows_of(server: Emulator, **params: str) -> list[tuple[Any, ...]]:
    """Return all customers of all corporations as rows, in the order of their corporations and ids."""
    records = [record for name in server.corporations for record in server.customers(name, **params)]
    return sorted((flatten(Customer.model_validate(record)) for record in records), key=lambda row: row[:2])


@contextmanager
def copied_at_each_step(folder: Path, copies: Path) -> Iterator[Callable[[], list[Path]]]:
    """
    Copy *folder* before each step that changes files: what a kill between two steps would leave.

    Yields a function that returns the copies that differ.
    """
    taken: list[Path] = []
    is_copying = False

    def copy() -> None:
        nonlocal is_copying
        is_copying = True
        taken.append(copies / f"{len(taken):04}")
        shutil.copytree(folder, taken[-1])
        is_copying = False
        if len(taken) > 1 and _content(taken[-1]) == _content(taken[-2]):
            is_copying = True
            shutil.rmtree(taken.pop())
            is_copying = False

    def watched(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if not is_copying:
                copy()
            return step(*args, **options)

        return call

    copies.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in _STEPS:
            patch.setattr(os, name, watched(getattr(os, name)))
        yield lambda: taken


@contextmanager
def full_disk(*, after: int) -> Iterator[None]:
    """Let the disk be full when it was synced so many times."""
    fsync, left = os.fsync, after

    def fail_late(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail_late)
        yield


def _content(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def names_in(folder: Path) -> set[str]:
    """Return the names of the files of a folder."""
    return {path.name for path in folder.iterdir()}
