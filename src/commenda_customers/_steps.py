"""Long work in steps, between which other tasks run."""

from collections.abc import Generator
from typing import TypeVar, cast

from anyio.lowlevel import checkpoint

T = TypeVar("T")


async def in_steps(steps: Generator[None, None, T]) -> T:
    """Run *steps* to their end, and return what they return. Other tasks run at each `yield`."""
    try:
        while True:
            next(steps)
            await checkpoint()
    except StopIteration as done:
        return cast("T", done.value)
