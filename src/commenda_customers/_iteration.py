"""What iterates over lists and streams: an async generator that is written out as a class."""

from abc import abstractmethod
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TypeVar

from .checkpoint import Checkpoint
from .errors import CustomersError

__all__ = ["Walk"]

T = TypeVar("T")


class Walk(AsyncGenerator[T, None]):
    """
    An iteration over customers or pages: an async generator that also says how far it has come.

    A step that failed or was cancelled can be taken again. Nothing is held between two steps that would have to be closed.
    """

    # A generator function that is left by `break` waits for the garbage collector, and trio warns of each. One that was cut
    # by a timeout is at its end, as if the list were.

    def __init__(self) -> None:
        self._is_running = False
        self._is_closed = False

    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """Return a record of exactly what was yielded, to pass as `resume=`."""

    @abstractmethod
    async def _step(self) -> T:
        """Return the next item; raise `StopAsyncIteration` after the last."""

    async def asend(self, value: None, /) -> T:  # noqa: ARG002 - part of the abstract class's signature
        """Return the next item."""
        if self._is_running:
            raise RuntimeError("this iteration is already waiting for its next item in another task")
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

    # The signature is that of the abstract class, whose method raises what it is given.
    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> T:
        """End the iteration with an exception."""
        self._is_closed = True
        return await super().athrow(typ, val, tb)  # type: ignore[arg-type]
