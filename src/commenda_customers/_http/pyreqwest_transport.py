"""The faster transport: pyreqwest, which is written in Rust. Only this file imports it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from datetime import timedelta
from typing import TypeVar

import anyio
import httpx
from anyio.lowlevel import checkpoint_if_cancelled
from pyreqwest.client import ClientBuilder
from pyreqwest.compatibility.httpx import HttpxTransport

T = TypeVar("T")


class PyreqwestTransport(httpx.AsyncBaseTransport):
    """
    Sends through pyreqwest, with the settings of the SDK: HTTP/1.1, no redirects, no cookies.

    If a scope of anyio cancels a task, pyreqwest replaces the cancellation by one of its own. anyio then takes it for a
    cancellation of the task, and the task ends without a word. So this raises the cancellation of the scope again.
    """

    def __init__(self, *, may_need_proxy: bool, seconds_idle: float) -> None:
        """
        Open no connection yet.

        Args:
            may_need_proxy: Use the proxies of the environment.
            seconds_idle: Close a connection that was idle for longer.
        """
        builder = ClientBuilder().http1_only().follow_redirects(False).default_cookie_store(False)
        # `BodyReader` decompresses, with a limit.
        builder = builder.gzip(False).deflate(False).brotli(False).zstd(False)
        builder = builder.pool_idle_timeout(timedelta(seconds=seconds_idle))
        self._transport = HttpxTransport((builder if may_need_proxy else builder.no_proxy()).build())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and receive the headers of its response."""
        response = await _of_scope(self._transport.handle_async_request(request))
        response.stream = _Body(response.stream)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - for type checkers
        self._stream = stream

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        chunks: AsyncIterator[bytes] = aiter(self._stream)
        while (chunk := await _of_scope(anext(chunks, None))) is not None:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _of_scope(call: Awaitable[T]) -> T:
    """Await a call of pyreqwest. If a scope has cancelled it, raise the cancellation of that scope."""
    try:
        return await call
    except anyio.get_cancelled_exc_class():
        await checkpoint_if_cancelled()
        raise
