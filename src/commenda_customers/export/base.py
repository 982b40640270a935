"""What an output is: the protocol of a sink, and the errors of outputs."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ..checkpoint import Checkpoint
from ..errors import CustomersError
from ..models import CustomerPage

START_AGAIN = "start again with fresh=True, or --fresh"
"""How an `OutputRefusedError` ends, if that helps."""


class OutputError(Exception):
    """The output could not be written. What was committed before is safe: run the export again, and it resumes."""


class OutputRefusedError(OutputError):
    """
    The export cannot begin with this output, and has changed nothing.

    Another program writes to the output, or it is complete, or it holds an unfinished run with other filters, or it is
    damaged, or another format or release wrote it.
    """


@runtime_checkable
class Sink(Protocol):
    """
    An output of `export`. Write your own for another kind of database or file.

    The export calls `open` once, and then `commit` with the checkpoint from which it begins. For each page, it calls
    `write`. Every `commit_every` pages, and at the end, it calls `commit`. If the output is complete, it calls `finish`. The
    calls never overlap. Blocking work belongs into a thread, for example with `anyio.to_thread.run_sync`.

    A sink may also have methods of `SupportsRestart`, `SupportsFailures` and `SupportsClose`.
    """

    async def open(self) -> Checkpoint | None:
        """
        Open the output, and keep other programs off it.

        What was written after the last commit must not count.

        Returns:
            The last checkpoint that was committed, if the output holds an unfinished run; `None` if a new run begins.
        """
        ...

    async def write(self, page: CustomerPage) -> None:
        """
        Take the customers and the invalid rows of a page.

        They must count only after the next `commit`. `page.cursor` is `None` on the last page of a corporation.
        """
        ...

    async def commit(self, checkpoint: Checkpoint) -> None:
        """
        Save *checkpoint* and all pages since the last commit: all of it, or nothing.

        If it raises an error, a later `commit` must save these pages too. Refuse a checkpoint whose `query` is not that of
        the output.
        """
        ...

    async def finish(self) -> None:
        """Mark the output as complete. After that, `open` begins a new run, or refuses to."""
        ...


@runtime_checkable
class SupportsRestart(Protocol):
    """A sink that can discard what it has of a corporation, so that the export can read its list again."""

    async def restart(self, corporation_id: str) -> None:
        """Discard what this run has written of *corporation_id*. It counts only after the next `commit`."""
        ...


@runtime_checkable
class SupportsFailures(Protocol):
    """A sink that keeps the failures of a run."""

    async def end_with_failures(self, failures: Mapping[str, CustomersError]) -> None:
        """Take note that the run has ended, and that some corporations failed. The last `commit` came before."""
        ...


@runtime_checkable
class SupportsClose(Protocol):
    """A sink that must be closed."""

    async def aclose(self) -> None:
        """Close the output. It is called whatever has happened, also if `open` failed."""
        ...
