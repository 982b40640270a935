"""
The floor: what a page costs with these models, over an HTTP client that does none of what a client should do.

A socket and httptools' parser: no pool, no timeouts, no redirects, no retries, no checks, no lists of customers.
"""

import asyncio  # noqa: TID251 - the floor is a protocol of asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import httptools

from . import TOKEN, Read
from .httpx_by_hand import Envelope, query_of


class Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._is_compressed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"content-encoding":
            self._is_compressed = value == b"gzip"

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        body = b"".join(self._chunks)
        self._body.set_result(zlib.decompress(body, 31) if self._is_compressed else body)

    async def get(self, request: bytes) -> bytes:
        """Return the body of a response."""
        self._chunks: list[bytes] = []
        self._body: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._body


@asynccontextmanager
async def open_raw(url: str) -> AsyncIterator[Read]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    host, port = parts.hostname, parts.port
    idle: list[Connection] = []
    headers = f"Host: {parts.netloc}\r\nAuthorization: Bearer {TOKEN}\r\nAccept-Encoding: gzip\r\n"

    async def count(corporation_id: str) -> int:
        query = "&".join(f"{name}={value}" for name, value in query_of(corporation_id).items())
        connection = idle.pop() if idle else (await asyncio.get_running_loop().create_connection(Connection, host, port))[1]
        number, cursor = 0, ""
        while True:
            request = f"GET {parts.path}/customers?{query}{cursor} HTTP/1.1\r\n{headers}\r\n"
            listing = Envelope.model_validate_json(await connection.get(request.encode())).data
            for _customer in listing.customers:
                number += 1
            if not listing.cursor:
                idle.append(connection)
                return number
            cursor = f"&cursor={listing.cursor}"

    async def read(ids: Sequence[str], in_flight: int) -> int:
        turn = asyncio.Semaphore(in_flight)

        async def in_turn(corporation_id: str) -> int:
            async with turn:
                return await count(corporation_id)

        return sum(await asyncio.gather(*map(in_turn, ids)))

    yield read
    for connection in idle:
        connection.transport.abort()
