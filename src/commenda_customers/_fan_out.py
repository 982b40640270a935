"""
Many readers at once, and one consumer.

Theory of operation. Each corporation has a worker task with a `PageReader`. A worker fetches one page, appends it to
a queue as a `Delivery`, and waits until the consumer has taken it; then it fetches the next. So each corporation has at
most one page that is in flight or ready. When the consumer stops, all workers stop (back-pressure). The corporations
alternate: the next page of a corporation comes after all pages that are ready. A semaphore limits the number of workers.

The first failure cancels all workers, and `take` raises it unchanged, not in a group.

Why not a memory object stream of anyio: `asyncio.Task.cancel` can make it lose an item on its way to the receiver
(agronholm/anyio pull request 595), and a stream must not lose a page.
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

from ._cancellation import ChildTasks, is_cancellation
from ._pages import PageBuffer, PageReader
from .errors import CustomersError

_SECONDS_TO_CLOSE = 5.0


@dataclass(slots=True)
class Delivery:
    """
    What a worker hands over.

    Attributes:
        corporation_id: The corporation.
        outcome: A page, or the error that ended the corporation.
        was_taken: Set when the consumer has taken it.
    """

    corporation_id: str
    outcome: PageBuffer | CustomersError
    was_taken: anyio.Event = field(default_factory=anyio.Event)


class Readers(Protocol):
    """Produces readers one by one. Is closed at the end."""

    def __aiter__(self) -> AsyncIterator[PageReader]: ...

    async def aclose(self) -> None: ...


class FanOut:
    """Runs the workers in the task that calls `run`, for the task that calls `take`."""

    def __init__(self, readers: Readers, *, concurrency: int, collect: bool) -> None:
        """
        Start nothing yet.

        Args:
            readers: Is asked for the next reader when a worker is free, and closed at the end.
            concurrency: The number of workers.
            collect: Deliver a `CustomersError` of a reader like a page, instead of ending all others.
        """
        self._readers = readers
        self._free_workers = anyio.Semaphore(concurrency)
        self._collect = collect
        self._ready: deque[Delivery] = deque()
        self._changed = anyio.Event()
        self._failure: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._was_raised = False
        self._is_complete = False
        self._is_over = False

    @cached_property
    def _scope(self) -> anyio.CancelScope:
        return anyio.CancelScope()  # not before the first use: a stream may be made before there is an event loop

    async def run(self) -> None:
        """Run all readers. Failures are raised by `take`."""
        try:
            with self._scope:
                await self._guard(self._run_all)
        finally:
            self._is_over = True
            self._changed.set()

    async def take(self) -> Delivery | None:
        """Return the next delivery; `None` at the end. A call that was cancelled has taken nothing."""
        await checkpoint()
        while not self._ready or self._failure is not None:
            if self._failure is not None:
                self._was_raised = True
                raise self._failure.with_traceback(self._traceback)
            if self._is_complete:
                return None
            if self._is_over:
                await checkpoint_if_cancelled()
                raise RuntimeError("another task closed this stream while this task was waiting for its next page")
            self._changed = anyio.Event()
            await self._changed.wait()

        delivery = self._ready.popleft()
        delivery.was_taken.set()
        return delivery

    def fail(self, error: CustomersError) -> None:
        """Cancel all workers, and let `take` raise *error*."""
        self._failure, self._traceback = error, error.__traceback__
        self._scope.cancel()

    def cancel(self) -> None:
        """Cancel all workers."""
        self._scope.cancel()

    def raise_pending_failure(self) -> None:
        """Raise a failure that `take` has not raised, unless it is the error of a corporation or a cancellation."""
        failure = self._failure
        if failure is None or self._was_raised or isinstance(failure, CustomersError) or is_cancellation(failure):
            return

        raise failure

    async def _run_all(self) -> None:
        try:
            async with ChildTasks() as tasks:
                await self._guard(self._start_workers, tasks)
            self._is_complete = True
        finally:
            # This may close the program's own generator of ids, and its clean-up code may wait.
            with anyio.move_on_after(_SECONDS_TO_CLOSE, shield=True):
                await self._readers.aclose()

    async def _start_workers(self, tasks: TaskGroup) -> None:
        await self._free_workers.acquire()
        async for reader in self._readers:
            tasks.start_soon(self._guard, self._work, reader)
            await self._free_workers.acquire()

    async def _work(self, reader: PageReader) -> None:
        try:
            while await self._deliver_page(reader):
                pass
        except CustomersError as error:
            if not self._collect:
                raise
            await self._deliver(reader, error)
        finally:
            self._free_workers.release()

    async def _deliver_page(self, reader: PageReader) -> bool:
        # A separate function, so that a local variable does not keep the page in memory until the next one has come.
        buffer = await reader.step()
        if buffer is None:
            return False

        await self._deliver(reader, buffer)
        return True

    async def _deliver(self, reader: PageReader, outcome: PageBuffer | CustomersError) -> None:
        delivery = Delivery(reader.query.corporation_id, outcome)
        self._ready.append(delivery)
        self._changed.set()
        await delivery.was_taken.wait()

    async def _guard(self, call: Callable[..., Awaitable[None]], *args: object) -> None:
        """Let the first failure cancel everything, and keep it for `take`."""
        try:
            await call(*args)
        except BaseException as exc:
            # A cancellation from inside, such as that of a shared future, is a failure like any other.
            was_cancelled = is_cancellation(exc) and anyio.current_effective_deadline() == -math.inf
            if self._failure is None and not was_cancelled:
                self._failure, self._traceback = exc, exc.__traceback__
            self._scope.cancel()
            if is_cancellation(exc):
                raise
