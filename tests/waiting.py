"""Waiting for what another thread or process does."""

from collections.abc import Callable

import anyio


async def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds, for a millisecond or a minute, depending on the machine."""
    with anyio.fail_after(120):
        while not condition():
            await anyio.sleep(0.005)
