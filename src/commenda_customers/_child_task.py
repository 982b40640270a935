"""A task of its own for what must be cancelled in one piece."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def in_child_task(call: Callable[[], Awaitable[T]]) -> T:
    """
    Await *call* in a child task, and return or raise what it does.

    The HTTP library shields the clean-up of its connections with cancel scopes. `task.cancel()`, `asyncio.timeout` and
    asyncio's task groups know nothing of scopes: they would cut through the clean-up and leave a connection in the pool
    that nobody can use or remove. In a child task they arrive as the cancellation of a scope.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    async def run() -> None:
        try:
            outcome.append(await call())
        except BaseException as exc:  # raised below, as itself and not in a group
            failure.append(exc)
            if isinstance(exc, anyio.get_cancelled_exc_class()):
                raise

    # A cancellation from outside ends here. One from inside, as of a future that others share, is a failure like any other.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
    if failure:
        try:
            raise failure[0]
        finally:
            failure.clear()  # or the traceback would keep itself alive

    return outcome[0]
