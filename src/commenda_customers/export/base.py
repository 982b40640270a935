"""The protocol of a sink, and the errors of outputs."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ..checkpoint import Checkpoint
from ..errors import CustomersError
from ..models import CustomerPage

START_AGAIN = "start again with fresh=True, or --fresh"
"""How an `OutputRefusedError` ends, if that helps."""


class OutputError(Exception):
    """The sink could not write. Earlier commits are safe: run the export again, and it resumes."""


class OutputRefusedError(OutputError):
    """
    The export cannot use this output. It has changed nothing.

    Possible reasons: another program is writing to the output; it is complete; it is damaged; it holds a run with other
    filters; it has another format; another release wrote it.
    """


@runtime_checkable
class Sink(Protocol):
    """
    An output of `export`. Write your own sink for another kind of database or file.

    The export calls `open` once, and then `commit` with the checkpoint at which it starts. It calls `write` for each page.
    It calls `commit` after every `commit_every` pages, and at the end. If every corporation is complete, it calls `finish`.
    The calls never overlap. Run blocking work in a thread, for example with `anyio.to_thread.run_sync`.

    A sink may also have the methods of `SupportsRestart`, `SupportsFailures` and `SupportsClose`.
    """

    async def open(self) -> Checkpoint | None:
        """
        Open the output, and lock it against other programs.

        Discard all pages after the last commit.

        Returns:
            The last committed checkpoint, if the output holds an unfinished run. `None`: a new run begins.
        """
        ...

    async def write(self, page: CustomerPage) -> None:
        """
        Take the customers and the invalid rows of a page.

        They must not count before the next `commit`. On the last page of a corporation, `page.cursor` is `None`.
        """
        ...

    async def commit(self, checkpoint: Checkpoint) -> None:
        """
        Save *checkpoint* and all pages since the last commit. Save everything or nothing.

        If `commit` raises an error, a later `commit` must save these pages too. If the output belongs to another
        `checkpoint.query`, raise `OutputRefusedError`.
        """
        ...

    async def finish(self) -> None:
        """Mark the output as complete. The next `open` begins a new run, or refuses the output."""
        ...


@runtime_checkable
class SupportsRestart(Protocol):
    """A sink that can discard a corporation. Then the export can read its list again from the beginning."""

    async def restart(self, corporation_id: str) -> None:
        """Discard the rows of *corporation_id* that this run has written. The next `commit` makes this durable."""
        ...


@runtime_checkable
class SupportsFailures(Protocol):
    """A sink that keeps the failures of a run."""

    async def end_with_failures(self, failures: Mapping[str, CustomersError]) -> None:
        """Record that the run has ended, and which corporations failed. The export calls this after its last `commit`."""
        ...


@runtime_checkable
class SupportsClose(Protocol):
    """A sink that must be closed."""

    async def aclose(self) -> None:
        """Close the output. The export always calls this at its end, even if `open` failed."""
        ...
