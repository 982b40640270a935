"""Waiting for what another thread or process does."""

from collections.abc import Callable

import anyio


async def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds. Whether it takes a millisecond or a minute is the machine's affair."""
    with anyio.fail_after(120):
        while not condition():
            await anyio.sleep(0.005)
