"""A file whose only purpose is its lock: while it is locked, other exports keep off the output."""

import errno
from contextlib import ExitStack, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from ._files import is_at
from .base import OutputRefusedError

_fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None  # Windows has no such locks


class LockFile:
    """
    A lock file. If the program is killed, the system unlocks it. The file stays then, and does no harm.

    On Windows nothing is locked.
    """

    def __init__(self, path: Path, output: str) -> None:
        """Open nothing yet. *output* is what others keep off, for the error."""
        self._path = path
        self._output = output
        self._file: BinaryIO | None = None

    def acquire(self) -> None:
        """
        Create and lock the file.

        Raises:
            OutputRefusedError: Another program has locked it.
            OSError: The folder is missing, or cannot be written.
        """
        while True:
            with ExitStack() as stack:
                file = stack.enter_context(self._path.open("ab"))
                if not _lock(file):
                    raise OutputRefusedError(f"{self._output}: another export is writing to it")
                if is_at(file, self._path):  # otherwise another program removed it before we locked it
                    self._file = file
                    stack.pop_all()
                    return

    def release(self) -> None:
        """
        Remove and unlock the file, if we hold the lock.

        Remove it first. Otherwise another program could lock it in between, and we would remove a file in use.
        """
        if self._file is None:
            return

        try:
            with suppress(PermissionError):  # Windows cannot remove an open file
                self._path.unlink(missing_ok=True)
        finally:
            self._file.close()
            self._file = None


def _lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed, and return whether no other program holds the lock."""
    if _fcntl is None:
        return True

    try:
        _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise
        return False

    return True
