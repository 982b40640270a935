"""
What lists and streams have in common: the iterator that users hold, and the state behind it.

Theory of operation. `_pages.py` produces a `PageBuffer` for each page. An `Iteration` holds the buffer that is being
consumed and hands out its customers, one by one or as a page. The buffer counts what was yielded from it, so a
checkpoint is cheap: it is computed from the buffer only when it is needed, or when the next page replaces the buffer.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import TypeVar

from ._event_loops import NotCopyable
from ._pages import PageBuffer
from .checkpoint import Checkpoint, CheckpointBuilder
from .errors import CustomersError
from .events import Event, InvalidCustomerReceived
from .models import Customer, CustomerPage
from .progress import CorporationProgress, StreamProgress

__all__ = ["ResumableIterator"]

T = TypeVar("T")

RESUME_ADVICE = "make a client where it is used, and resume from a checkpoint"


class ResumableIterator(NotCopyable, AsyncGenerator[T, None]):
    """
    Iterates over customers or pages, and says what it has yielded.

    It is an async generator. A step that failed or was cancelled can be repeated. Between two steps nothing is open, so
    there is nothing to close.
    """

    _advice = RESUME_ADVICE

    # Not a generator function, for two reasons. When a generator is left by `break`, it waits for the garbage collector, and
    # trio warns about it. When a generator is cancelled by a timeout, it is exhausted: it looks like the end of the list.

    def __init__(
        self,
        step: Callable[[], Awaitable[T]],
        checkpoint: Callable[[], Checkpoint],
        take_ready: Callable[[], T | None] = lambda: None,
    ) -> None:
        """
        Begin; nothing is requested yet.

        Args:
            step: Returns the next item, or raises `StopAsyncIteration`.
            checkpoint: Returns a record of what was yielded.
            take_ready: Returns the next item if no `step` is needed for it, else `None`.
        """
        self._step = step
        self._checkpoint = checkpoint
        self._take_ready = take_ready
        self._is_running = False
        self._is_closed = False

    def checkpoint(self) -> Checkpoint:
        """Return a record of exactly what was yielded, to pass as `resume=`."""
        return self._checkpoint()

    async def __anext__(self) -> T:
        """Return the next item."""
        # Nearly every customer is on a page that has already come. This shortcut saves 5 % of the time of a page.
        if not (self._is_running or self._is_closed):
            item = self._take_ready()
            if item is not None:
                return item

        return await self.asend(None)

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
            raise RuntimeError("this iterator is already waiting for its next item in another task")

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


class Iteration(ABC):
    """The state of an iteration: the page that is being consumed, and what was yielded before it."""

    def __init__(self, builder: CheckpointBuilder, emit: Callable[[Event], None]) -> None:
        self._builder = builder
        self._emit = emit
        self._buffer: PageBuffer | None = None
        self._counters: tuple[StreamProgress | CorporationProgress, ...] = ()  # those of the present page

    @abstractmethod
    async def _fetch_buffer(self) -> PageBuffer:
        """Replace `_buffer` by the next page and return it; raise `StopAsyncIteration` after the last."""

    @abstractmethod
    def _count(self, customers: int, *, invalid: int = 0) -> None:
        """Count rows of the present page that are about to be yielded or reported."""

    def take_ready(self) -> Customer | None:
        """
        Return the next customer if there is nothing to do but count it, else `None`: `next_customer` returns it then.

        The first customer of a page needs more, because rows that are not valid are reported before it. The last one may end
        the corporation.
        """
        buffer = self._buffer
        if buffer is None or not 0 < buffer.taken < len(buffer.page.customers) - 1:
            return None

        for counter in self._counters:
            counter.customers += 1
        buffer.taken += 1
        return buffer.page.customers[buffer.taken - 1]

    async def next_customer(self) -> Customer:
        """Return the next customer; raise `StopAsyncIteration` after the last."""
        while (customer := self._take_one()) is None:
            await self._fetch_buffer()

        self._count(1)
        return customer

    async def next_page(self) -> CustomerPage:
        """Return the next page, or the rest of the present one; raise `StopAsyncIteration` after the last."""
        buffer = self._buffer
        if buffer is None or buffer.is_used_up:
            buffer = await self._fetch_buffer()

        self._report_invalid(buffer)
        page = buffer.take_rest()
        self._count(len(page))
        return page

    def _take_one(self) -> Customer | None:
        """Return the next customer of the present page, after its invalid rows were reported."""
        if self._buffer is None:
            return None

        buffer = self._buffer
        self._report_invalid(buffer)
        return buffer.take_one()

    def _report_invalid(self, buffer: PageBuffer) -> None:
        """Report the invalid rows of a page. If a hook raises, the next step continues with the next row."""
        while (row := buffer.report_one()) is not None:
            self._count(0, invalid=1)
            event = InvalidCustomerReceived(corporation_id=buffer.page.corporation_id, cursor=buffer.cursor, customer=row)
            try:
                self._emit(event)
            except StopAsyncIteration as exc:
                # It would silently end the list.
                raise RuntimeError("a hook raised StopAsyncIteration") from exc

    def checkpoint(self) -> Checkpoint:
        """Return a record of what was yielded."""
        self._record()
        return self._builder.checkpoint()

    def _record(self) -> None:
        """Record what was yielded from the current page."""
        buffer = self._buffer
        if buffer is None:
            return
        if buffer.is_at_end:
            self._builder.finish(buffer.end)
        else:
            self._builder.record(buffer.position)
