"""
One folder of part files that is written in pieces.

Theory of operation. A commit writes one part, `_partial/part-00000.parquet` and so on, and then the state file, which says
how many parts count. After a kill, what is beyond them is overwritten, or removed at the end. The end moves the parts into
the folder, removes those of an older copy, and writes `_SUCCESS`. So an older complete copy can be read until the parts are
moved. After a kill the end is done again, from any point.

Names that start with `_` do not match `*.parquet`, and libraries that read whole folders skip them.
"""

import re
import shutil
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ._files import sync_folder, write_whole
from ._partial_file import Extent
from .base import OutputRefusedError
from .columns import Row

STATE = "_state.json"
LOCK = "_lock"
_SUCCESS = "_SUCCESS"
_PARTIAL = "_partial"
_OWN_NAMES = {STATE, f"{STATE}.new", _SUCCESS, LOCK, _PARTIAL}
_PART = re.compile(r"part-\d{5,}\.parquet")


class PartFormat(Protocol):
    """How rows become a part."""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a part with these rows. There may be none."""
        ...

    def encode_without(self, path: Path, corporation_ids: AbstractSet[str]) -> bytes | None:
        """Return the part at *path* without the rows of some corporations; `None` if it has none of them."""
        ...


class PartialFolder:
    """
    A folder that is not complete yet. Everything here blocks, except `add` and `discard`. `PartialFile` does it for a file.

    Attributes:
        path: The folder.
        partial_path: Where the parts are until all is complete.
        extent: How many parts count.
    """

    def __init__(self, path: Path, part_format: PartFormat) -> None:
        """Open nothing yet."""
        self.path = path
        self.partial_path = path / _PARTIAL
        self.extent = Extent()
        self._format = part_format
        self._is_new = False
        self._rows: list[Row] = []
        self._stale: dict[str, int] = {}

    @property
    def size(self) -> int:
        """The number of parts that are not in their place yet, whether they count or not."""
        return len(list(self.partial_path.iterdir())) if self.partial_path.exists() else 0

    @property
    def is_long_enough(self) -> bool:
        """Whether all that counts is there."""
        return all(self._new_part(number).exists() for number in range(self.extent.length))

    @property
    def is_complete(self) -> bool:
        """Whether there is a complete copy, or what looks like one."""
        return (self.path / _SUCCESS).exists() or bool(self._parts())

    @property
    def has_news(self) -> bool:
        """Whether something was added or discarded since the last `settle`."""
        return bool(self._rows or self._stale)

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows at the next `flush`. The first column is the corporation."""
        self._rows.extend(rows)

    def discard(self, corporation_id: str) -> None:
        """Let no row of a corporation count that was added so far. What is not written yet is forgotten."""
        self._rows = [row for row in self._rows if row[0] != corporation_id]
        self._stale[corporation_id] = self.extent.length

    def prepare(self) -> None:
        """
        Create the folder.

        Raises:
            OutputRefusedError: It is no folder, or has files of others. Hidden files do not matter.
        """
        self._is_new = not self.path.exists()
        if not (self._is_new or self.path.is_dir()):
            raise OutputRefusedError(f"{self.path}: is not a folder")

        self.path.mkdir(exist_ok=True)
        for name in (path.name for path in self.path.iterdir()):
            if not (name in _OWN_NAMES or name.startswith(".") or _PART.fullmatch(name)):
                raise OutputRefusedError(f"{self.path}: has files that are not of an export, such as {name!r}")

    def flush(self) -> Extent:
        """Write a part with what was added, and return what counts then. `settle` makes it so."""
        self.partial_path.mkdir(exist_ok=True)
        length = self.extent.length
        if self._rows:
            write_whole(self._new_part(length), self._format.encode(self._rows))
            sync_folder(self.partial_path)  # the state must not name a part that a power failure can take away
            length += 1
        return Extent(
            length=length,
            rows=self.extent.rows + len(self._rows),
            stale={**self.extent.stale, **self._stale},
        )

    def settle(self, extent: Extent) -> None:
        """Let *extent* count: what was written is not written again."""
        self.extent = extent
        self._rows.clear()
        self._stale.clear()

    def finish(self) -> None:
        """Put the parts into their place. Some may be there already, if this is tried again after a kill."""
        self.partial_path.mkdir(exist_ok=True)
        if not self.extent.length:  # without a part, readers would not know the columns
            write_whole(self._new_part(0), self._format.encode([]))
        numbers = range(self.extent.length or 1)
        for number in numbers:
            self._remove_stale_rows(number)

        success = self.path / _SUCCESS
        success.unlink(missing_ok=True)
        for number in numbers:
            if self._new_part(number).exists():
                self._new_part(number).replace(self._part(number))
        for old in self._parts() - {self._part(number) for number in numbers}:
            old.unlink()
        sync_folder(self.path)
        success.touch()
        sync_folder(self.path)
        shutil.rmtree(self.partial_path)

    def close(self) -> None:
        """Remove the folder if it was only created."""
        if self._is_new:
            with suppress(OSError):  # it has files, or another program uses it now
                self.path.rmdir()

    def _part(self, number: int) -> Path:
        return self.path / f"part-{number:05}.parquet"

    def _new_part(self, number: int) -> Path:
        return self.partial_path / self._part(number).name

    def _parts(self) -> set[Path]:
        return {path for path in self.path.iterdir() if _PART.fullmatch(path.name)}

    def _remove_stale_rows(self, number: int) -> None:
        """Rewrite a part, if it has such rows. If it was moved, it was rewritten before."""
        part = self._new_part(number)
        stale = {corporation_id for corporation_id, parts in self.extent.stale.items() if number < parts}
        data = self._format.encode_without(part, stale) if stale and part.exists() else None
        if data is not None:
            write_whole(part, data)
            sync_folder(self.partial_path)
