"""
The connections of the SDK's own client, in place of httpcore's pool.

At each request, httpcore's pool looks at all of its connections, and asks the system about each idle one. With 64 requests
in flight, that takes a fifth of the client's time. With one server and HTTP/1.1, any free connection will do.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import anyio
import httpcore
import httpx

from .._cancellation import in_child_task
from .http1 import H1Connection
from .trace import ConnectionTrace


class ConnectionStack:
    """
    HTTP/1.1 connections to one server, in place of the pool of httpx's transport. The one used last is used next.

    It does not limit the number of connections: `HTTPClient.connections` does.

    Its state is correct at each `await`, whatever is raised there. The state of httpcore's pool is not, if a task is
    cancelled with `asyncio.Task.cancel` (encode/httpcore issue 1093). So requests through that pool need a child task. Here,
    only a request that opens a connection runs in one: on trio, the exceptions of several addresses come in a group.
    """

    def __init__(self, url: httpx.URL, ssl_context: ssl.SSLContext, *, seconds_idle: float) -> None:
        port = url.port or (443 if url.scheme == "https" else 80)
        self._origin = httpcore.Origin(url.raw_scheme, url.raw_host, port)
        self._ssl_context = ssl_context
        self._seconds_idle = seconds_idle
        self._idle: deque[httpcore.AsyncConnectionInterface] = deque()  # the one used last is at the right
        self._in_use: set[httpcore.AsyncConnectionInterface] = set()

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request and receive the headers of its response."""
        connection = await self._take_idle()
        is_new = connection is None
        if connection is None:
            connection = self._new()
        else:
            # A connection that is already open needs no trace. Without it, a page takes 5 % less time.
            trace: ConnectionTrace = _extensions_of(request)["trace"]
            trace.note_reuse()
            request.extensions = {}
        self._in_use.add(connection)
        try:
            send = partial(connection.handle_async_request, request)
            response = await (in_child_task(send) if is_new else send())
        except BaseException:
            await self._release(connection)
            raise

        body = _Body(response.stream, partial(self._release, connection))
        extensions = _extensions_of(response)
        return httpcore.Response(response.status, headers=response.headers, content=body, extensions=extensions)

    def _new(self) -> httpcore.AsyncHTTPConnection:
        return httpcore.AsyncHTTPConnection(self._origin, self._ssl_context, keepalive_expiry=self._seconds_idle)

    async def _take_idle(self) -> httpcore.AsyncConnectionInterface | None:
        """Return an idle connection, if there is one. Close those that have expired."""
        while self._idle and self._idle[0].has_expired():
            await _close(self._idle.popleft())
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await _close(connection)
        return None

    async def _release(self, connection: httpcore.AsyncConnectionInterface) -> None:
        """Keep a connection if its response is complete, else close it."""
        if connection not in self._in_use:
            return

        self._in_use.discard(connection)
        opened = H1Connection.inside(connection)
        if connection.is_available() and not (opened is not None and opened.has_extra_data):
            # Leave out the object that opened it. That one takes a lock at each request: 2 % of the time of a page.
            self._idle.append(connection if opened is None else opened.connection)
        else:
            await _close(connection)

    @property
    def connections(self) -> list[httpcore.AsyncConnectionInterface]:
        """All connections, idle or in use."""
        return [*self._idle, *self._in_use]

    async def aclose(self) -> None:
        """Close all connections. One that is still being opened is closed when its request, which is cancelled, ends."""
        for connection in self.connections:
            await _close(connection)
        self._idle.clear()


class _Body:
    """The body of a response. Releases the connection when it is closed."""

    def __init__(self, stream: Any, release: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._release = release

    def __aiter__(self) -> AsyncIterator[bytes]:
        return cast("AsyncIterator[bytes]", aiter(self._stream))

    async def aclose(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
        finally:
            await self._release()


def _extensions_of(message: Any) -> dict[str, Any]:
    """Return the extensions of a request or a response, whose type httpcore does not declare."""
    extensions: dict[str, Any] = message.extensions
    return extensions


async def _close(connection: httpcore.AsyncConnectionInterface) -> None:
    with suppress(Exception), anyio.CancelScope(shield=True):
        await connection.aclose()
