"""Tasks: how asyncio and trio differ when a task is cancelled, and what must be checked before a task starts."""

from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import TypeVar, cast

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


def is_cancellation(exc: BaseException) -> bool:
    """
    Return whether *exc* is the cancellation of a task.

    With trio that may be a group: `trio.open_tcp_stream` tries several addresses at once, and each attempt is cancelled.
    """
    return all(isinstance(leaf, anyio.get_cancelled_exc_class()) for leaf in _leaves(exc))


class ChildTasks:
    """
    A task group that never raises an exception group, except for cancellations.

    Its block and its tasks raise only cancellations. Other exceptions are Ctrl-C, which trio raises in the task that waits
    for the group, and `RecursionError`, which Python may raise when a task starts. They are raised without the group.
    """

    def __init__(self) -> None:
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._group.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            failure = next((leaf for leaf in _leaves(group) if not is_cancellation(leaf)), group)
        raise failure  # here, because in the block above the group would be its context


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if not isinstance(exc, BaseExceptionGroup):
        yield exc
        return
    for member in cast("BaseExceptionGroup[BaseException]", exc).exceptions:
        yield from _leaves(member)


def check_stack(calls: int = 100) -> None:
    """
    Raise `RecursionError` if the stack has no room for that many nested *calls*.

    Call it before anything else. If an event loop reaches the recursion limit while it starts a task, it may wait for ever.
    """
    if calls:
        check_stack(calls - 1)


async def in_child_task(call: Callable[[], Awaitable[T]]) -> T:
    """
    Await *call* in a child task, and return or raise what it does.

    httpcore protects its connections from cancelled scopes only, not from `asyncio.Task.cancel` (encode/httpcore issue
    1093), which `asyncio.timeout` and asyncio's task groups use: that leaves a connection in the pool that can neither be
    used nor removed. In a child task, every cancellation arrives as that of a scope.
    """
    check_stack()
    outcome: list[T] = []
    failure: list[BaseException] = []

    async def run() -> None:
        try:
            outcome.append(await call())
        except BaseException as exc:  # raised below, as itself and not in a group
            failure.append(exc)
            if is_cancellation(exc):
                raise

    # Raises a cancellation from outside. One from inside, such as that of a shared future, is a failure: it is raised below.
    async with ChildTasks() as tasks:
        tasks.start_soon(run)
    return result_of(outcome, failure)


def result_of(outcome: list[T], failure: list[BaseException]) -> T:
    """Return what is in *outcome*, or raise what is in *failure*, as itself and not in a group."""
    if failure:
        try:
            raise failure[0]
        finally:
            failure.clear()  # otherwise the exception and its traceback keep each other alive

    return outcome.pop()  # so that a thread or a task that is still ending does not keep it alive
