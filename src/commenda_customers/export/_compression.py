"""Compression by file name. Each commit adds one member to a compressed file. So the file can be cut after any commit."""

import gzip
import sys
from importlib import import_module
from pathlib import Path
from typing import IO, Protocol, cast

_LEVEL = 6


class _Zstandard(Protocol):
    """The functions that we use of `compression.zstd`, and of its backport."""

    def compress(self, data: bytes) -> bytes: ...

    def open(self, file: Path, mode: str, *, encoding: str, newline: str) -> IO[str]: ...


class Compression:
    """Compresses and decompresses. The last suffix of a file name sets the method: `.gz`, `.zst`, or none."""

    def __init__(self, path: Path) -> None:
        """
        Choose the method by the name of a file.

        Raises:
            ModuleNotFoundError: The name ends with `.zst`, and the extra `zstd` is not installed.
        """
        self._suffix = path.suffix.lower()
        self._zstandard = _zstandard(path) if self._suffix == ".zst" else None

    def compress(self, data: bytes) -> bytes:
        """Return the data as one member of the file."""
        if self._zstandard is not None:
            return self._zstandard.compress(data)

        return gzip.compress(data, _LEVEL, mtime=0) if self._suffix == ".gz" else data

    def open(self, path: Path) -> IO[str]:
        """Open a file of such members as text. The suffix of *path* does not matter."""
        if self._zstandard is not None:
            return self._zstandard.open(path, "rt", encoding="utf-8", newline="")
        if self._suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")

        return path.open(encoding="utf-8", newline="")


def _zstandard(path: Path) -> _Zstandard:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return cast("_Zstandard", import_module(name))
    except ModuleNotFoundError as exc:
        message = f"{path}: a file name that ends with .zst needs the extra 'zstd': pip install '/path/to/clone[zstd]'"
        raise ModuleNotFoundError(message, name=exc.name) from None
