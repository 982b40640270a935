"""Blocking calls, off the event loop."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from .._cancellation import in_child_task

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """
    Run a blocking call in a thread. Return its result, or raise its exception.

    A thread cannot be cancelled. In a child task, every cancellation waits for the end of the call. Otherwise the next call
    could begin while this one is still writing.
    """
    return await in_child_task(partial(_to_its_end, call, *args))


async def _to_its_end(call: Callable[..., T], *args: object) -> T:
    # Also if the cancellation comes before the thread has begun: otherwise a second one could leave an output locked.
    outcome: list[T] = []
    with anyio.CancelScope(shield=True):
        outcome.append(await anyio.to_thread.run_sync(call, *args))
    return outcome[0]
