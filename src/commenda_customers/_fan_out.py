"""
Many walks at once, and one consumer: a page of each is ready or under way, and no more.

What is ready is handed over in the order in which it came. A walk goes on when its page is taken, so that it is its turn
again after all others that were ready, and that a consumer who stops stops them all.
"""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ._paging import PageWalk, Portion
from .errors import CustomersError


@dataclass(slots=True)
class Delivery:
    """
    What a walk hands over.

    Attributes:
        corporation_id: Whose list it is.
        outcome: A page, or the error that ended the walk.
    """

    corporation_id: str
    outcome: Portion | CustomersError
    taken: anyio.Event = field(default_factory=anyio.Event)


class FanOut:
    """Runs walks, in the task that calls `run`, for the task that calls `take`."""

    def __init__(self, walks: AsyncGenerator[PageWalk, None], *, concurrency: int, collect: bool) -> None:
        """
        Start nothing yet.

        Args:
            walks: What to run. It is asked for the next when that can begin, and closed at the end.
            concurrency: How many go on at once.
            collect: Hand over a `CustomersError` of a walk like a page, instead of ending all others.
        """
        self._walks = walks
        self._lanes = anyio.Semaphore(concurrency)
        self._collect = collect
        self._ready: deque[Delivery] = deque()
        self._news = anyio.Event()
        self._failure: BaseException | None = None
        self._is_over = False
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Run all walks. What goes wrong is raised by `take`."""
        try:
            with self._scope:
                await self._guard(self._run_all)
        finally:
            self._is_over = True
            self._news.set()

    async def take(self) -> Delivery | None:
        """Return what is next; `None` at the end. A cancelled call has taken nothing."""
        await checkpoint()
        while True:
            if self._failure is not None:
                raise self._failure
            if self._ready:
                break
            if self._is_over:
                return None
            self._news = anyio.Event()
            await self._news.wait()

        delivery = self._ready.popleft()
        delivery.taken.set()
        return delivery

    def cancel(self) -> None:
        """End all walks."""
        self._scope.cancel()

    async def _run_all(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                await self._guard(self._start_walks, tasks)
        finally:
            with anyio.CancelScope(shield=True):
                await self._walks.aclose()

    async def _start_walks(self, tasks: TaskGroup) -> None:
        await self._lanes.acquire()
        async for walk in self._walks:
            tasks.start_soon(self._guard, self._follow, walk)
            await self._lanes.acquire()

    async def _follow(self, walk: PageWalk) -> None:
        corporation_id = walk.query.corporation_id
        try:
            while walk.position is not None:
                await self._hand_over(Delivery(corporation_id, await walk.step()))
        except CustomersError as error:
            if not self._collect:
                raise
            await self._hand_over(Delivery(corporation_id, error))
        finally:
            self._lanes.release()

    async def _hand_over(self, delivery: Delivery) -> None:
        self._ready.append(delivery)
        self._news.set()
        await delivery.taken.wait()

    async def _guard(self, call: Callable[..., Awaitable[None]], *args: object) -> None:
        """Let the first failure end everything, and be raised by `take` as itself instead of in a group."""
        try:
            await call(*args)
        except BaseException as exc:
            # A cancellation that comes from inside, as of a future that others share, is a failure like any other.
            self._failure = self._failure or exc
            self._scope.cancel()
            if isinstance(exc, anyio.get_cancelled_exc_class()):
                raise
