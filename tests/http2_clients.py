"""Helpers for HTTP/2 tests: the client, failed attempts, and response headers."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from hyperframe.frame import Frame

from commenda_customers import (
    AsyncCustomersAPI,
    CustomersError,
    Event,
    RequestFailed,
    RetryPolicy,
    RetryScheduled,
)
from raw_h2_server import (
    H2Behaviour,
    H2Connection,
    Request,
)

QUICK = RetryPolicy(max_attempts=4, initial_wait=0.01)
ONCE = RetryPolicy(max_attempts=1)


class Failures:
    """Keeps the failed attempts, and the waits after them."""

    def __init__(self) -> None:
        self.errors: list[CustomersError] = []
        self.waits: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestFailed):
            self.errors.append(event.error)
        if isinstance(event, RetryScheduled):
            self.waits.append(event.wait)


MakeH2 = Callable[..., AbstractAsyncContextManager[AsyncCustomersAPI]]


async def ids_of(api: AsyncCustomersAPI, corporation_id: str = "corp_1") -> list[str]:
    return [customer.id async for customer in api.list(corporation_id)]


async def read_many(api: AsyncCustomersAPI, corporations: int) -> int:
    """Read many corporations at once, and return how many different customers came."""
    async with api.stream([f"corp_{number}" for number in range(corporations)], concurrency=16) as stream:
        return len({customer.id async for customer in stream})


def keep(kept: list[H2Connection], behaviour: H2Behaviour) -> H2Behaviour:
    def keeping(connection: H2Connection) -> None:
        kept.append(connection)
        behaviour(connection)

    return keeping


def head_of(connection: H2Connection, request: Request, **frame: Any) -> Frame:
    return connection.head(request.stream, [(":status", "200")], **frame)
