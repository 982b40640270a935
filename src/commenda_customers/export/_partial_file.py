"""
One file that grows under the name `PATH.partial`, and gets its final name at the end.

Its `Extent` says how much of it is committed. The state file stores the extent.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from pydantic import BaseModel

from ._compression import Compression
from ._files import append, is_at, replace, with_suffix
from .base import OutputError, OutputRefusedError

_BYTES_AT_ONCE = 1 << 20

ReadRows = Callable[[IO[str]], Iterator[tuple[str | None, bytes]]]
"""Yields the corporation and the bytes of each row of a file. A header has no corporation."""


class Extent(BaseModel):
    """
    The committed part of a file, or of a folder of part files.

    Attributes:
        length: The number of bytes of the file, or of parts of the folder.
        rows: The number of rows, including stale rows.
        stale: For each discarded corporation, the number of a row (file) or of a part (folder). The rows of the corporation
            before it are stale.
    """

    length: int = 0
    rows: int = 0
    stale: dict[str, int] = {}


class PartialFile:
    """
    A file that is not complete yet. All methods block, except `add` and `discard`.

    Attributes:
        path: The final name of the file.
        extent: The committed part of the file.
    """

    def __init__(self, path: Path, compression: Compression, read_rows: ReadRows, *, header: bytes = b"") -> None:
        """Open nothing yet."""
        self.path = path
        self.partial_path = with_suffix(path, ".partial")
        self.extent = Extent()
        self._compression = compression
        self._read_rows = read_rows
        self._header = header
        self._file: BinaryIO | None = None
        self._pieces: list[bytes] = []
        self._rows = 0
        self._stale: dict[str, int] = {}

    @property
    def size(self) -> int:
        """The size of the partial file in bytes, including bytes that are not committed."""
        return self.partial_path.stat().st_size if self.partial_path.exists() else 0

    @property
    def is_long_enough(self) -> bool:
        """Whether the file has all committed bytes."""
        return self.size >= self.extent.length

    @property
    def is_complete(self) -> bool:
        """Whether a file with the final name exists."""
        return self.path.exists()

    @property
    def has_rows(self) -> bool:
        """Whether the complete file has rows. It has none if all were discarded."""
        return bool(self.extent.rows and self.path.exists() and self.path.stat().st_size)

    @property
    def has_news(self) -> bool:
        """Whether rows were added or discarded since the last `settle`."""
        return bool(self._rows or self._stale)

    def add(self, data: bytes, rows: int) -> None:
        """Keep rows in memory. The next `flush` appends them."""
        self._pieces.append(data)
        self._rows += rows

    def discard(self, corporation_id: str) -> None:
        """Mark all rows of a corporation that were added so far as stale."""
        self._stale[corporation_id] = self.extent.rows + self._rows

    def prepare(self) -> None:
        """
        Create nothing: the first `flush` creates the file.

        Raises:
            OutputRefusedError: There is a folder of this name.
        """
        if self.path.is_dir():
            raise OutputRefusedError(f"{self.path}: is a folder")

    def flush(self) -> Extent:
        """Write the added rows after the committed part. Return the new extent; `settle` makes it the committed one."""
        if self._file is None:
            self._file = self.partial_path.open("a+b", buffering=0)
        if not (is_at(self._file, self.partial_path) and self.is_long_enough):
            raise OutputError(f"{self.partial_path}: another program has removed or changed it")
        self._file.truncate(self.extent.length)
        # The first flush always writes a member, with the header. An empty file would not be a valid compressed file.
        data = b"".join(self._pieces if self.extent.length else [self._header, *self._pieces])
        member = self._compression.compress(data) if data or not self.extent.length else b""
        append(self._file, member, self.partial_path)
        return Extent(
            length=self.extent.length + len(member),
            rows=self.extent.rows + self._rows,
            stale={**self.extent.stale, **self._stale},
        )

    def settle(self, extent: Extent) -> None:
        """Set the committed part to *extent*, and forget the rows in memory."""
        self.extent = extent
        self._pieces.clear()
        self._stale.clear()
        self._rows = 0

    def finish(self) -> None:
        """Give the file its final name. After a kill, it may already have this name."""
        if not self.partial_path.exists():
            return

        if not self.is_long_enough:  # `truncate` would fill it with zeros
            raise OutputError(f"{self.partial_path}: another program has removed or changed it")

        self.close()  # Windows cannot rename an open file
        os.truncate(self.partial_path, self.extent.length)
        if not self.extent.stale:
            replace(self.partial_path, self.path)
            return

        compacted = with_suffix(self.path, ".compacted")
        with compacted.open("wb", buffering=0) as target, self._compression.open(self.partial_path) as source:
            for rows in _batches(self._rows_that_count(source)):
                append(target, self._compression.compress(rows), compacted)
        replace(compacted, self.path)
        self.partial_path.unlink()

    def remove(self) -> None:
        """Remove the file under both names. Call this if it has no rows."""
        self.partial_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rows_that_count(self, source: IO[str]) -> Iterator[bytes]:
        number = 0
        for corporation_id, row in self._read_rows(source):
            if corporation_id is None:
                yield row
                continue
            if number >= self.extent.stale.get(corporation_id, 0):
                yield row
            number += 1


def _batches(rows: Iterator[bytes]) -> Iterator[bytes]:
    """Join rows into pieces that are large enough to compress well."""
    batch = bytearray()
    for row in rows:
        batch += row
        if len(batch) >= _BYTES_AT_ONCE:
            yield bytes(batch)
            batch.clear()
    yield bytes(batch)
