"""
The common part of all outputs on disk: they grow commit by commit, can resume, and get their final name when complete.

Theory of operation. The rows of a file go into `PATH.partial`. The state file `PATH.state` has the checkpoint, and the
length of the partial file at this checkpoint. A commit appends to the partial file, and then replaces the state file in one
step. After a kill, the state file is correct. The next call cuts off all that the partial file has beyond this length. At
the end, the partial file is renamed to `PATH`. A folder of part files works in the same way: see `_partial_folder.py`.

If a corporation must be read again, its rows stay in the partial output as stale rows. The finish leaves them out.
"""

import os
from abc import abstractmethod
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from ..checkpoint import Checkpoint
from ..models import CustomerPage
from ._compression import Compression
from ._files import real_path, sync_folder, with_suffix, write_whole
from ._invalid_rows import encode_invalid, read_lines
from ._lock_file import LockFile
from ._partial_file import Extent, PartialFile, ReadRows
from ._threads import in_thread
from .base import START_AGAIN, OutputError, OutputRefusedError, Sink


class _State(BaseModel):
    """
    The state file.

    Attributes:
        version: The version of this format.
        format: The format of the rows, and its version.
        checkpoint: The last checkpoint that was committed.
        data: The committed part of the partial output.
        invalid: The committed part of the file of invalid rows.
        is_finishing: Whether every page is committed, and the files get their final names now.
    """

    version: Literal[1] = 1
    format: str
    checkpoint: Checkpoint
    data: Extent = Extent()
    invalid: Extent = Extent()
    is_finishing: bool = False


class PartialOutput(Protocol):
    """An output that is not complete yet. `PartialFile` documents the methods."""

    partial_path: Path
    extent: Extent

    @property
    def size(self) -> int: ...

    @property
    def is_long_enough(self) -> bool: ...

    @property
    def is_complete(self) -> bool: ...

    @property
    def has_news(self) -> bool: ...

    def prepare(self) -> None: ...

    def discard(self, corporation_id: str) -> None: ...

    def flush(self) -> Extent: ...

    def settle(self, extent: Extent) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


Output = TypeVar("Output", bound=PartialOutput)


class ResumableSink(Sink, Generic[Output]):
    """An output on disk that can be resumed. A subclass takes pages."""

    format: str
    """The format of the output, and its version."""

    def __init__(
        self, name: str | os.PathLike[str], path: Path, *, fresh: bool, data: Output, state_path: Path, lock_path: Path
    ) -> None:
        """Open nothing yet. *name* is what the user calls the output."""
        self._name = str(Path(name))
        self._fresh = fresh
        self._state_path = state_path
        self._lock = LockFile(lock_path, self._name)
        self._data = data
        invalid = with_suffix(path, ".invalid.jsonl")
        self._invalid = PartialFile(invalid, Compression(invalid), read_lines)
        self._state: _State | None = None  # the state file on disk, if this run wrote it
        self._is_finished = False

    def __str__(self) -> str:
        return self._name

    @abstractmethod
    def _add(self, page: CustomerPage) -> None:
        """Keep the customers of a page in memory."""

    async def open(self) -> Checkpoint | None:
        """
        Lock the output, and return the checkpoint of an unfinished run.

        Raises:
            OutputRefusedError: The output is in use, is complete, is damaged, or has another format.
            OSError: The folder is missing or not writable.
        """
        return await in_thread(self._open)

    async def write(self, page: CustomerPage) -> None:
        """Keep the rows of a page in memory until the next commit."""
        self._add(page)
        self._invalid.add(encode_invalid(page), len(page.invalid_customers))

    async def commit(self, checkpoint: Checkpoint) -> None:
        """
        Append the rows, then replace the state file.

        Raises:
            OutputError: The rows could not be encoded.
            OSError: The write failed, for example because the disk is full. Earlier commits are safe.
        """
        await in_thread(self._commit, checkpoint)

    async def restart(self, corporation_id: str) -> None:
        """Discard the rows of a corporation. The complete output does not have them."""
        self._data.discard(corporation_id)
        self._invalid.discard(corporation_id)

    async def finish(self) -> None:
        """Give the output its final name, and remove the state file."""
        await in_thread(self._finish)

    async def aclose(self) -> None:
        """Close the output. If nothing was committed, leave nothing behind."""
        await in_thread(self._close)

    def _open(self) -> Checkpoint | None:
        self._state, self._is_finished = None, False
        self._data.prepare()
        self._lock.acquire()
        state = None if self._fresh else self._load()
        # Forget the pages that an earlier export could not commit: they are not in the checkpoint.
        self._data.settle(state.data if state else Extent())
        self._invalid.settle(state.invalid if state else Extent())
        if state is None:
            self._refuse_others()
            return None

        if not self._has_all(state):
            raise OutputRefusedError(
                f"{self._data.partial_path}: is missing, or shorter than its state file says; {START_AGAIN}"
            )
        self._state = state
        if state.is_finishing:
            self._give_names()
            self._is_finished = True
        return state.checkpoint

    def _refuse_others(self) -> None:
        """Refuse to replace what this run has not begun, unless it may start again."""
        if self._fresh:
            return
        if self._data.is_complete:
            raise OutputRefusedError(f"{self}: already exists; to replace it, {START_AGAIN}")
        if self._data.size:
            raise OutputRefusedError(f"{self._data.partial_path}: has no state file; {START_AGAIN}")

    def _has_all(self, state: _State) -> bool:
        """Return whether all that counts is there. At the end, it may have its final name already."""
        if state.is_finishing:
            return self._data.partial_path.exists() or self._data.is_complete

        return self._data.is_long_enough and self._invalid.is_long_enough

    def _load(self) -> _State | None:
        try:
            state = _State.model_validate_json(self._state_path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise OutputRefusedError(f"{self._state_path}: is damaged, or another release wrote it; {START_AGAIN}") from None

        if state.format != self.format:
            raise OutputRefusedError(
                f"{self}: has an unfinished run in the format {state.format!r}, not {self.format!r}; {START_AGAIN}"
            )
        return state

    def _save(self, state: _State) -> None:
        write_whole(self._state_path, state.model_dump_json().encode())
        self._state = state

    def _commit(self, checkpoint: Checkpoint) -> None:
        if self._is_finished:
            if self._data.has_news or self._invalid.has_news:
                raise OutputRefusedError(f"{self}: is complete; to replace it, {START_AGAIN}")
            return

        if self._state is None:
            # Write the state file first. Without it, a partial file with rows is refused.
            self._save(_State(format=self.format, checkpoint=checkpoint))
            sync_folder(self._state_path.parent)
        data = self._data.flush()
        invalid = self._invalid.flush() if self._invalid.has_news else self._invalid.extent
        self._save(_State(format=self.format, checkpoint=checkpoint, data=data, invalid=invalid))
        self._data.settle(data)
        self._invalid.settle(invalid)

    def _finish(self) -> None:
        if self._is_finished or self._state is None:
            return

        if not self._has_all(self._state):
            raise OutputError(f"{self._data.partial_path}: another program has removed or changed it")
        self._save(self._state.model_copy(update={"is_finishing": True}))
        self._give_names()
        self._is_finished = True

    def _give_names(self) -> None:
        """Rename the files, and remove the state file. After a kill at any point, the next call repeats this."""
        if self._invalid.extent.rows:
            self._invalid.finish()
        if not self._invalid.has_rows:
            self._invalid.remove()
        self._data.finish()
        self._state_path.unlink(missing_ok=True)
        sync_folder(self._state_path.parent)

    def _close(self) -> None:
        self._invalid.close()
        self._lock.release()
        self._data.close()


class FileSink(ResumableSink[PartialFile]):
    """A file of rows. A subclass encodes the rows, and reads them again."""

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool, read_rows: ReadRows, header: bytes = b"") -> None:
        """Open nothing yet."""
        real = real_path(path)
        data = PartialFile(real, Compression(real), read_rows, header=header)
        state_path, lock_path = with_suffix(real, ".state"), with_suffix(real, ".lock")
        super().__init__(path, real, fresh=fresh, data=data, state_path=state_path, lock_path=lock_path)

    @abstractmethod
    def encode(self, page: CustomerPage) -> bytes:
        """Return the rows of a page."""

    def _add(self, page: CustomerPage) -> None:
        self._data.add(self.encode(page), len(page))
