"""A response that comes when the test lets it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from commenda_customers.testing import faults


@dataclass(frozen=True, kw_only=True)
class Gate(faults.Fault):
    """Holds responses back until it is opened."""

    was_reached: threading.Event = field(default_factory=threading.Event)
    is_open: threading.Event = field(default_factory=threading.Event)

    async def deliver(self, exchange: Any, reply: Any) -> None:
        self.was_reached.set()
        while not self.is_open.is_set():
            await exchange.pause(0.01)
        await super().deliver(exchange, reply)


MakeGate = Callable[..., Gate]
"""Returns a gate that is open at the latest when the test ends; see the fixture `make_gate`."""
