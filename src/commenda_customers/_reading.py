"""What iterates over lists and streams: an async generator that is written out as a class."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import TypeVar

from .checkpoint import Checkpoint
from .errors import CustomersError

__all__ = ["ResumableIterator"]

T = TypeVar("T")


class ResumableIterator(AsyncGenerator[T, None]):
    """
    An iteration over customers or pages: an async generator that also says how far it has come.

    A step that failed or was cancelled can be taken again. Nothing is held between two steps that would have to be closed.
    """

    # A generator function that is left by `break` waits for the garbage collector, and trio warns of each. One that was cut
    # by a timeout is at its end, as if the list were.

    def __init__(self, step: Callable[[], Awaitable[T]], checkpoint: Callable[[], Checkpoint]) -> None:
        """Take *step*s, each of which returns the next item or raises `StopAsyncIteration`."""
        self._step = step
        self._checkpoint = checkpoint
        self._is_running = False
        self._is_closed = False

    def checkpoint(self) -> Checkpoint:
        """Return a record of exactly what was yielded, to pass as `resume=`."""
        return self._checkpoint()

    async def asend(self, value: None, /) -> T:  # noqa: ARG002 - part of the abstract class's signature
        """Return the next item."""
        self._check_idle()
        if self._is_closed:
            raise StopAsyncIteration

        self._is_running = True
        try:
            return await self._step()
        except CustomersError as error:
            error.checkpoint = self.checkpoint()
            raise
        finally:
            self._is_running = False

    def _check_idle(self) -> None:
        if self._is_running:
            raise RuntimeError("this iteration is already waiting for its next item in another task")

    # The signature is that of the abstract class, whose method raises what it is given.
    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> T:
        """End the iteration with an exception."""
        self._check_idle()
        self._is_closed = True
        return await super().athrow(typ, val, tb)  # type: ignore[arg-type]
