"""A file whose only purpose is its lock: while it is locked, other programs keep off."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from ._files import is_at, lock


class LockFile:
    """A lock file. If the program is killed, the system unlocks it. The file stays then, and does no harm."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self._path = path
        self._file: BinaryIO | None = None

    def acquire(self) -> bool:
        """
        Create and lock the file, and return whether no other program has it.

        Raises:
            OSError: The folder is missing, or cannot be written.
        """
        while True:
            with ExitStack() as stack:
                file = stack.enter_context(self._path.open("ab"))
                if not lock(file):
                    return False
                if is_at(file, self._path):  # otherwise another program removed it before it was locked
                    self._file = file
                    stack.pop_all()
                    return True

    def release(self) -> None:
        """Remove and unlock the file, if it was acquired. It is removed first: nobody can lock a file that has no name."""
        if self._file is None:
            return

        with suppress(PermissionError):  # Windows cannot remove an open file
            self._path.unlink(missing_ok=True)
        self._file.close()
        self._file = None
