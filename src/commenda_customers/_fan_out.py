"""
Many readers at once, and one consumer: a page of each is ready or in flight, and no more.

What is ready is handed over in the order in which it came. A reader goes on when its page is taken, so that it is its turn
again after all others that were ready, and that a consumer who stops stops them all.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._pages import PageBuffer, PageReader
from .errors import CustomersError

_SECONDS_TO_CLOSE = 5.0


@dataclass(slots=True)
class Delivery:
    """
    What a reader hands over.

    Attributes:
        corporation_id: Whose list it is.
        outcome: A page, or the error that ended the reading.
        was_taken: Set when the consumer has it.
    """

    corporation_id: str
    outcome: PageBuffer | CustomersError
    was_taken: anyio.Event = field(default_factory=anyio.Event)


class Readers(Protocol):
    """Readers one by one, from something that is to be closed."""

    def __aiter__(self) -> AsyncIterator[PageReader]: ...

    async def aclose(self) -> None: ...


class FanOut:
    """Runs readers, in the task that calls `run`, for the task that calls `take`."""

    def __init__(self, readers: Readers, *, concurrency: int, collect: bool) -> None:
        """
        Start nothing yet.

        Args:
            readers: What to run. It is asked for the next when that can begin, and closed at the end.
            concurrency: How many go on at once.
            collect: Hand over a `CustomersError` of a reader like a page, instead of ending all others.
        """
        self._readers = readers
        self._lanes = anyio.Semaphore(concurrency)
        self._collect = collect
        self._ready: deque[Delivery] = deque()
        self._news = anyio.Event()
        self._failure: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._was_raised = False
        self._is_complete = False
        self._is_over = False

    @cached_property
    def _scope(self) -> anyio.CancelScope:
        return anyio.CancelScope()  # not before the first use: a stream may be made before there is an event loop

    async def run(self) -> None:
        """Run all readers. What goes wrong is raised by `take`."""
        try:
            with self._scope:
                await self._guard(self._run_all)
        finally:
            self._is_over = True
            self._news.set()

    async def take(self) -> Delivery | None:
        """Return what is next; `None` at the end. A cancelled call has taken nothing."""
        await checkpoint()
        while not self._ready or self._failure is not None:
            if self._failure is not None:
                self._was_raised = True
                raise self._failure.with_traceback(self._traceback)
            if self._is_complete:
                return None
            if self._is_over:
                await checkpoint_if_cancelled()
                raise RuntimeError("this stream was closed, by another task, while this one was waiting for its next page")
            self._news = anyio.Event()
            await self._news.wait()

        delivery = self._ready.popleft()
        delivery.was_taken.set()
        return delivery

    def cancel(self) -> None:
        """End all readers."""
        self._scope.cancel()

    def raise_mistake(self) -> None:
        """Raise what went wrong and was not raised yet, if it is neither a corporation's error nor a cancellation."""
        expected = (CustomersError, anyio.get_cancelled_exc_class())
        if self._failure is not None and not self._was_raised and not isinstance(self._failure, expected):
            raise self._failure

    async def _run_all(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                await self._guard(self._start_readers, tasks)
            self._is_complete = True
        finally:
            # Behind it may be the program's own generator of ids, with clean-up of its own.
            with anyio.move_on_after(_SECONDS_TO_CLOSE, shield=True):
                await self._readers.aclose()

    async def _start_readers(self, tasks: TaskGroup) -> None:
        await self._lanes.acquire()
        async for reader in self._readers:
            tasks.start_soon(self._guard, self._read, reader)
            await self._lanes.acquire()

    async def _read(self, reader: PageReader) -> None:
        try:
            while await self._read_page(reader):
                pass
        except CustomersError as error:
            if not self._collect:
                raise
            await self._hand_over(reader, error)
        finally:
            self._lanes.release()

    async def _read_page(self, reader: PageReader) -> bool:
        # A function of its own, or the page would be in memory until the next has come.
        buffer = await reader.step()
        if buffer is None:
            return False

        await self._hand_over(reader, buffer)
        return True

    async def _hand_over(self, reader: PageReader, outcome: PageBuffer | CustomersError) -> None:
        delivery = Delivery(reader.query.corporation_id, outcome)
        self._ready.append(delivery)
        self._news.set()
        await delivery.was_taken.wait()

    async def _guard(self, call: Callable[..., Awaitable[None]], *args: object) -> None:
        """Let the first failure end everything, and be raised by `take` as itself instead of in a group."""
        try:
            await call(*args)
        except BaseException as exc:
            is_cancellation = isinstance(exc, anyio.get_cancelled_exc_class())
            # One that comes from inside, as of a future that others share, is a failure like any other.
            if self._failure is None and not (is_cancellation and anyio.current_effective_deadline() == -math.inf):
                self._failure, self._traceback = exc, exc.__traceback__
            self._scope.cancel()
            if is_cancellation:
                raise
