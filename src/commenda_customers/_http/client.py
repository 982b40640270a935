"""Sends one request at a time, through the user's HTTP client or through its own."""

import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread
import httpx
from anyio.lowlevel import current_token

from .._cancellation import in_child_task
from .._secret import Secret
from .._version import __version__
from ..errors import APIConnectionError, APITimeoutError, CustomersError
from ..query import PARAMETERS
from .base_url import checked_base_url
from .body import ACCEPT_ENCODING, BodyReader
from .library import Library
from .trace import ConnectionTrace

MAX_CONNECTIONS = 100
"""The most connections, and so the most requests in flight. It is the size of httpx's default pool."""

_ERROR_BODY_LIMIT = 64 * 1024
_MOST_BUFFERED = 1024 * 1024
_SECONDS_TO_ABANDON = 0.1
_SECONDS_TO_CLOSE = 5.0
_SECONDS_FOR_ERROR_BODY = 1.0


class AnyAsyncClient(Protocol):
    """
    An `httpx.AsyncClient` or an `httpx2.AsyncClient`, for type checkers. No other client is accepted.

    A union of the two would accept everything where httpx2 is not installed.
    """

    @property
    def build_request(self) -> Callable[..., Any]:
        """Make a request."""
        ...

    @property
    def send(self) -> Callable[..., Awaitable[Any]]:
        """Send it."""
        ...


@dataclass(frozen=True, slots=True)
class RawResponse:
    """
    A complete response, whatever its status.

    Attributes:
        status: The HTTP status.
        headers: The headers, by lower-case name.
        body: The body after decompression. Of an error, as much as could be read.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    _connection: Any = field(repr=False, default=None)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def drop_connection(self) -> None:
        """Let no other request use the connection of this response."""
        connection = self._connection and self._connection.get_extra_info("socket")
        if connection is None:
            return

        # Shut down, not closed: the pool then sees that the connection has ended and closes it. A closed socket makes the
        # pool's check fail on trio. Through a duplicate, because the socket of uvloop cannot be shut down.
        with suppress(OSError), socket.fromfd(connection.fileno(), connection.family, connection.type) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


class HTTPClient:
    """
    Sends requests through the user's client, or through its own, which it opens when it is first needed.

    Attributes:
        base_url: The address of the API.
        connections: Counts the free connections. A task that has acquired one never waits in the pool of the HTTP library,
            where the wait would count as part of an attempt.
    """

    def __init__(self, base_url: str, client: AnyAsyncClient | None, *, max_response_bytes: int) -> None:
        """
        Check the arguments; open nothing yet.

        Raises:
            ValueError: A token must not be sent to *base_url*, or *client* has parameters of the API.
            TypeError: *client* is not an `AsyncClient` of httpx or httpx2.
        """
        base = checked_base_url(base_url)
        self.base_url = str(base).rstrip("/")
        self._url = f"{self.base_url}/customers"
        self._netloc = base.netloc.decode("ascii")
        self._is_encrypted = base.scheme == "https"
        self.connections = anyio.Semaphore(MAX_CONNECTIONS, fast_acquire=True)
        self._library = Library.of(httpx.AsyncClient if client is None else type(client))
        # httpx2 has the interface of httpx, so httpx's types stand for both from here on.
        self._client = cast("httpx.AsyncClient | None", client)
        self._check_params()
        self._is_own = client is None
        self._is_closed = False
        self._opening = anyio.Lock()
        self._home: tuple[int, object] | None = None
        self._max_response_bytes = max_response_bytes

    def _check_params(self) -> None:
        """Refuse a user's client that would add parameters of the API to every request."""
        for name in PARAMETERS:
            if self._client is not None and name in self._client.params:
                raise ValueError(f"http_client: its params contain {name!r}; pass it to list() or stream() instead")

    async def open(self) -> httpx.AsyncClient:
        """
        Return the HTTP client; open it if that was not done yet.

        Raises:
            RuntimeError: It was closed, or it is in use in another event loop or process.
        """
        self.check_usable()
        return self._client or await self._open_own()

    def check_usable(self) -> None:
        """
        Refuse a use that cannot work.

        Raises:
            RuntimeError: It was closed, or it is in use in another event loop or process.
        """
        if self._is_closed:
            raise RuntimeError("this AsyncCustomersAPI is closed; make a new one")
        here = (os.getpid(), current_token())
        self._home = self._home or here
        if self._home != here:
            raise RuntimeError("this AsyncCustomersAPI is in use in another event loop or process; make one for each")

    async def _open_own(self) -> httpx.AsyncClient:
        async with self._opening:
            self.check_usable()
            if self._client is None:
                self._client = await self._new_client()
            return self._client

    async def _new_client(self) -> httpx.AsyncClient:
        try:
            if self._is_encrypted:
                # To read the certificates takes tens of milliseconds, and must not block the event loop.
                context = await anyio.to_thread.run_sync(httpx.create_ssl_context)
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used; trusts no certificate

            return httpx.AsyncClient(
                verify=context,
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
                headers={"User-Agent": f"commenda-customers/{__version__}"},
                # No cookies are kept: a server that sets a new one with each response would make requests grow for ever.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                # Plain http is for loopback: no proxy of the environment may see the token.
                trust_env=self._is_encrypted,
            )
        except (OSError, ImportError, ValueError, httpx.InvalidURL) as exc:
            # The environment names certificates or proxies that do not exist.
            raise APIConnectionError(
                f"the HTTP client could not be made from the environment variables for proxies and certificates: {exc}"
            ) from exc

    async def aclose(self) -> None:
        """Close the SDK's HTTP client; a client of the user stays open. May be called more than once."""
        self._is_closed = True
        # A cancelled task comes through here too, and must not leave connections behind.
        with anyio.move_on_after(_SECONDS_TO_CLOSE, shield=True):
            await in_child_task(self._close_own)

    async def _close_own(self) -> None:
        async with self._opening:
            if self._is_own and self._client is not None:
                await self._client.aclose()

    @asynccontextmanager
    async def get(self, params: Sequence[tuple[str, str]], secret: Secret) -> AsyncGenerator[RawResponse]:
        """
        Send one GET request and receive its response, for the length of a block.

        The connection returns to the pool when the block ends. Before that the caller can drop it: a connection that is one
        response behind would give the next request, of any list, the response of this one.

        Raises:
            APIConnectionError: No complete response came.
            InvalidResponseError: The body is too large, or encoded in a way that was not asked for.
        """
        client = await self.open()
        response = await self._send(client, params, secret)
        try:
            body = await self._body_of(response)
            headers = dict(response.headers.items())
            if not response.is_success:
                # Some servers repeat what they refuse. A list of customers is not touched.
                body = secret.redact_bytes(body)
                headers = {name: secret.redact(value) for name, value in headers.items()}
            # HTTP/2 numbers its responses, so its connections are never one behind.
            connection = None if response.http_version == "HTTP/2" else response.extensions.get("network_stream")
            yield RawResponse(response.status_code, headers, body, connection)
        finally:
            await response.aclose()

    async def _send(self, client: httpx.AsyncClient, params: Sequence[tuple[str, str]], secret: Secret) -> httpx.Response:
        """Send a request and receive the head of its response."""
        trace = ConnectionTrace()
        try:
            return await self._send_traced(client, params, secret, trace)
        except APIConnectionError as error:
            error.is_stale_connection = trace.was_kept
            error.is_rejection = error.transient and not isinstance(error, APITimeoutError)
            raise

    async def _send_traced(
        self, client: httpx.AsyncClient, params: Sequence[tuple[str, str]], secret: Secret, trace: ConnectionTrace
    ) -> httpx.Response:
        with self._library.errors_translated(self._netloc):
            request = client.build_request(
                "GET",
                self._url,
                params=list(params),
                headers={"Accept": "application/json", "Accept-Encoding": ACCEPT_ENCODING},
                # The caller limits the whole attempt. The library limits each read only: a slow server never exceeds that.
                timeout=None,
                extensions={"trace": trace},
            )
        request.headers["Authorization"] = secret.authorization()
        try:
            with self._library.errors_translated(self._netloc):
                # No auth of the user's client: it would replace the token. No redirects: they would send it elsewhere.
                response = await client.send(request, stream=True, auth=None, follow_redirects=False)
        except self._library.status_error as exc:
            # A hook of the user's client raised it, for this response or for another request.
            if exc.response.request is not request:
                raise
            response = exc.response
        finally:
            # Errors of the library hold the request, and ours hold those errors as their cause.
            request.headers.pop("Authorization", None)

        response.next_request = None  # the request of a redirect, with a copy of the token
        return response

    async def _body_of(self, response: httpx.Response) -> bytes:
        if response.is_closed:
            # A hook of the user's client has read or closed it.
            try:
                return response.content
            except self._library.not_read:
                return b""

        encoding = response.headers.get("Content-Encoding", "")
        if response.is_success:
            reader = BodyReader(encoding, limit=self._max_response_bytes)
            await self._read(response, reader)
            return reader.finish()

        # The status is known. Report it even if the body is cut, too long, too slow or unreadable.
        try:
            reader = BodyReader(encoding, limit=_ERROR_BODY_LIMIT)
        except CustomersError:
            return b""
        time_left = anyio.current_effective_deadline() - anyio.current_time()
        with suppress(CustomersError), anyio.move_on_after(min(_SECONDS_FOR_ERROR_BODY, time_left / 2)):
            await self._read(response, reader)
        return reader.so_far

    async def _read(self, response: httpx.Response, reader: BodyReader) -> None:
        stream = aiter(cast("httpx.AsyncByteStream", response.stream))
        with self._library.errors_translated(self._netloc):
            async for chunk in stream:
                try:
                    reader.feed(chunk)
                except CustomersError:
                    await self._abandon(response, stream)
                    raise

    async def _abandon(self, response: httpx.Response, stream: AsyncIterator[bytes]) -> None:
        """
        Leave the rest of a body unread.

        If a closed stream is not read to its end, the garbage collector closes its generators, and trio warns about each of
        them. So this reads what was already buffered, until the stream raises an error because it is closed.
        """
        await response.aclose()
        buffered = 0
        # HTTP/2 would wait for more.
        with suppress(self._library.request_error), anyio.move_on_after(_SECONDS_TO_ABANDON):
            async for chunk in stream:
                buffered += len(chunk)
                if buffered > _MOST_BUFFERED:
                    break
