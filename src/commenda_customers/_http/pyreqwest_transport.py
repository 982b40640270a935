"""The faster transport: pyreqwest, which is written in Rust. Only this file imports it."""

import atexit
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable
from datetime import timedelta
from typing import TypeVar

import anyio
import httpx
from anyio.lowlevel import checkpoint_if_cancelled
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import ConnectError, DetailedPyreqwestError, PyreqwestError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

T = TypeVar("T")

_UNTRUSTED = "invalid peer certificate"
"""How Rust's TLS begins its message about a certificate."""

# When a call is done, a thread of pyreqwest notifies the event loop. Then the thread needs the interpreter for one more
# moment. If the interpreter has ended by then, the thread aborts the process. So the interpreter waits before it ends.
atexit.register(time.sleep, 0.05)


class PyreqwestTransport(httpx.AsyncBaseTransport):
    """
    Sends through pyreqwest, with the settings of the SDK: HTTP/1.1, no redirects, no cookies.

    pyreqwest comes with a transport for httpx, which is not used here. It decompresses without a limit, and follows
    redirects. It waits for the first 64 KB of a body before it returns the status. It does not support the scopes of anyio,
    see `_of_scope`.
    """

    def __init__(self, *, may_need_proxy: bool, seconds_idle: float) -> None:
        """
        Open no connection yet.

        Args:
            may_need_proxy: Use the proxies of the environment.
            seconds_idle: Close a connection that was idle for longer than this.
        """
        builder = ClientBuilder().http1_only().follow_redirects(False).default_cookie_store(False)
        # `BodyReader` decompresses, with a limit.
        builder = builder.gzip(False).deflate(False).brotli(False).zstd(False)
        builder = builder.pool_idle_timeout(timedelta(seconds=seconds_idle))
        self._client = (builder if may_need_proxy else builder.no_proxy()).build()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and receive the headers of its response."""
        builder = self._client.get(str(request.url)).headers(request.headers.multi_items()).streamed_read_buffer_limit(0)
        exchange = builder.build_streamed()
        response = await _of_scope(exchange.__aenter__())
        return httpx.Response(response.status, headers=[*response.headers.items()], stream=_Body(exchange, response))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: StreamRequest, response: Response) -> None:
        self._exchange = exchange
        self._reader = response.body_reader

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        while (chunk := await _of_scope(self._reader.read_chunk())) is not None:
            yield bytes(chunk)

    async def aclose(self) -> None:
        await self._exchange.__aexit__(None, None, None)


async def _of_scope(call: Awaitable[T]) -> T:
    """
    Await a call of pyreqwest.

    If a scope of anyio cancels the task, pyreqwest replaces the cancellation with its own. anyio then takes it for a
    cancellation of the task, and the task ends silently. So this function raises the cancellation of the scope instead.
    """
    try:
        return await call
    except anyio.get_cancelled_exc_class():
        await checkpoint_if_cancelled()
        raise
    except PyreqwestError as exc:
        error = _translated(exc)
    raise error  # outside of the block: its context would be the other exception, whose text is a long structure


def _translated(exc: PyreqwestError) -> httpx.TransportError:
    causes = (exc.details["causes"] or []) if isinstance(exc, DetailedPyreqwestError) else []
    reason = causes[-1]["message"] if causes else exc.message
    error = (httpx.ConnectError if isinstance(exc, ConnectError) else httpx.NetworkError)(reason)
    if reason.startswith(_UNTRUSTED):
        error.__cause__ = ssl.SSLError(reason)
    return error
