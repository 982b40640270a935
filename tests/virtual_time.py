"""Time that jumps to whatever is waited for, on both backends: hours of waiting in milliseconds."""

import asyncio
import selectors
from typing import Any

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


VIRTUAL_BACKENDS: list[tuple[str, dict[str, Any]]] = [
    ("asyncio", {"loop_factory": _JumpingLoop}),
    ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}),
]
"""For the fixture `anyio_backend`. Not for what needs a real socket or a thread: the clock would not wait for it."""
