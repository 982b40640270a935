"""
One folder of part files that grows commit by commit.

Theory of operation. A commit writes one part, `_partial/part-00000.parquet` and so on. Then it writes the state file with
the number of committed parts. After a kill, the next call overwrites the parts beyond this number, or removes them at the
end.

The finish moves the parts into the folder, removes the parts of an older copy, and writes `_SUCCESS`. So an older complete
copy stays readable until the parts are moved. After a kill at any point of the finish, the next call repeats it.

The names of all other files start with `_`. They do not match `*.parquet`, and libraries that read whole folders skip them.
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
    """Encodes rows as a part."""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a part with these rows. *rows* may be empty."""
        ...

    def encode_without(self, path: Path, corporation_ids: AbstractSet[str]) -> bytes | None:
        """Return the part at *path* without the rows of some corporations. `None`: it has no such rows."""
        ...


class PartialFolder:
    """
    A folder that is not complete yet. All methods block, except `add` and `discard`. `PartialFile` is the same for a file.

    Attributes:
        path: The folder.
        partial_path: The folder of the parts until the copy is complete.
        extent: The committed parts.
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
        """The number of files in the partial folder, committed or not."""
        return len(list(self.partial_path.iterdir())) if self.partial_path.exists() else 0

    @property
    def is_long_enough(self) -> bool:
        """Whether all committed parts exist."""
        return all(self._new_part(number).exists() for number in range(self.extent.length))

    @property
    def is_complete(self) -> bool:
        """Whether the folder has a complete copy, or parts that look like one."""
        return (self.path / _SUCCESS).exists() or bool(self._parts())

    @property
    def has_news(self) -> bool:
        """Whether rows were added or discarded since the last `settle`."""
        return bool(self._rows or self._stale)

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows in memory. The next `flush` writes them. The first column is the corporation."""
        self._rows.extend(rows)

    def discard(self, corporation_id: str) -> None:
        """Forget the rows of a corporation in memory, and mark its written rows as stale."""
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
                raise OutputRefusedError(f"{self.path}: has files that no export wrote, such as {name!r}")

    def flush(self) -> Extent:
        """Write the added rows as a part. Return the new extent; `settle` makes it the committed one."""
        self.partial_path.mkdir(exist_ok=True)
        length = self.extent.length
        if self._rows:
            write_whole(self._new_part(length), self._format.encode(self._rows))
            sync_folder(self.partial_path)  # otherwise a power failure could remove a part that the state file counts
            length += 1
        return Extent(
            length=length,
            rows=self.extent.rows + len(self._rows),
            stale={**self.extent.stale, **self._stale},
        )

    def settle(self, extent: Extent) -> None:
        """Set the committed parts to *extent*, and forget the rows in memory."""
        self.extent = extent
        self._rows.clear()
        self._stale.clear()

    def finish(self) -> None:
        """Move the parts into the folder. After a kill, some of them may already be there."""
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
        """Unlock the folder. Remove it if this export created it and it is empty."""
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
        """Rewrite a part without its stale rows. A part that was moved has none: it was rewritten before."""
        part = self._new_part(number)
        stale = {corporation_id for corporation_id, parts in self.extent.stale.items() if number < parts}
        data = self._format.encode_without(part, stale) if stale and part.exists() else None
        if data is not None:
            write_whole(part, data)
            sync_folder(self.partial_path)
