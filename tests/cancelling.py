"""Cancels a function after a number of steps of the event loop, in each way there is."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from anyio.lowlevel import checkpoint

Cancel = Callable[[Callable[[], Awaitable[None]], int], Awaitable[bool]]


async def cancel_scope(function: Callable[[], Awaitable[None]], steps: int) -> bool:
    """Cancel a scope after so many steps; return whether it was in time."""
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(_after, steps, scope.cancel)
            await function()
        tasks.cancel_scope.cancel()
    return scope.cancelled_caught


async def cancel_task(function: Callable[[], Awaitable[None]], steps: int) -> bool:
    """Cancel a task of asyncio after so many steps; return whether it was in time."""
    task = asyncio.ensure_future(function())
    await _after(steps, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def _after(steps: int, call: Callable[[], object]) -> None:
    for _ in range(steps):
        await checkpoint()
    call()


WAYS = [("asyncio", cancel_scope), ("asyncio", cancel_task), ("trio", cancel_scope)]
"""Backends, and the ways to cancel there."""
