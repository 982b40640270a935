"""Behaviours of the raw server: faults of the wire."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from commenda_customers import (
    AsyncCustomersAPI,
    RetryPolicy,
)
from raw_server import Behaviour, Connection, listing, ok

MakeAPI = Callable[..., AbstractAsyncContextManager[AsyncCustomersAPI]]
"""Opens a client of the raw server; see the fixture `make_api`."""

QUICK = RetryPolicy(max_attempts=4, initial_wait=0.01)
GOOD = ok(listing("a", "b"))


BODY = json.dumps(listing("a", "b")).encode()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def connections_of(api: AsyncCustomersAPI) -> list[Any]:
    """Return the connections that a client has made for itself, and not closed."""
    sender: Any = api._fetcher.http._sender
    connections: list[Any] = sender._transport._pool.connections
    return connections


def sends(*parts: bytes, reset: bool = False) -> Behaviour:
    """Answer the first request with these bytes, then close."""

    def behaviour(connection: Connection) -> None:
        connection.read_request()
        for part in parts:
            connection.send(part)
        if reset:
            connection.reset()

    return behaviour


def hangs(after: bytes = b"") -> Behaviour:
    """Send these bytes, then nothing."""

    def behaviour(connection: Connection) -> None:
        connection.read_request()
        connection.send(after)
        connection.wait_for_end()

    return behaviour


def drips(after: bytes = b"", drops: bytes = GOOD) -> Behaviour:
    """Send these bytes, then others a byte at a time, each in time for any read timeout."""

    def behaviour(connection: Connection) -> None:
        connection.read_request()
        connection.send(after)
        connection.drip(drops, every=0.1)

    return behaviour
