"""Time that jumps to whatever is waited for, on both backends: hours of waiting in milliseconds."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import trio.testing


class _JumpingSelector(selectors.DefaultSelector):
    """Where the event loop would wait for a timer, nothing waits: its clock is put forward."""

    jumped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            return super().select()
        events = super().select(0)
        if not events:
            self.jumped += timeout
        return events


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped


def virtual_backend(name: str) -> tuple[str, dict[str, Any]]:
    """Return `name` with a clock of its own that begins at 0, for `anyio.run` and for the fixture `anyio_backend`.

    Not for what needs a real socket or a thread: the clock would not wait for it.
    """
    if name == "asyncio":
        return name, {"loop_factory": _JumpingLoop}
    return name, {"clock": trio.testing.MockClock(autojump_threshold=0)}


def run(function: Callable[[], Awaitable[Any]], backend: str) -> Any:
    """Run a function in virtual time, for tests that need several event loops."""
    name, options = virtual_backend(backend)
    return anyio.run(function, backend=name, backend_options=options)
