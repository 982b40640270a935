"""One request and its response, through a `Sender`."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import anyio
import httpx

from .._secret import Secret
from ..errors import APIConnectionError, CustomersError
from .body import BodyReader
from .http1 import end_connection
from .library import Library
from .senders import Sender
from .trace import ConnectionTrace

T = TypeVar("T")

_ERROR_BODY_LIMIT = 64 * 1024
_MOST_BUFFERED = 1024 * 1024
_SECONDS_FOR_ERROR_BODY = 1.0


@dataclass(frozen=True, slots=True)
class RawResponse:
    """
    A complete response, whatever its status.

    Attributes:
        status: The HTTP status.
        headers: The headers, by lower-case name.
        body: The body after decompression. For an error status, as much as could be read.
        repeats_token: Whether the body of a 2xx response contained the token. The token was removed, so the body is changed.

    Neither the values of the headers nor the body contain the token.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    repeats_token: bool = False
    _connection: Any = field(repr=False, default=None)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def drop_connection(self) -> None:
        """Prevent new requests on the connection of this response. pyreqwest hides its connections: then it does nothing."""
        end_connection(self._connection)


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    Sends a GET request and receives its response.

    Attributes:
        url: The URL of the endpoint.
        netloc: Host and port of the URL, for messages.
        max_response_bytes: Bytes that a response may have after decompression.
    """

    url: str
    netloc: str
    max_response_bytes: int

    async def get(
        self,
        sender: Sender,
        query: str,
        secret: Secret,
        use: Callable[[RawResponse], Awaitable[T]],
        *,
        no_cache: bool = False,
    ) -> T:
        """
        Send one GET request, receive its response, and return what *use* returns.

        Another request gets the connection only after *use* has returned. Until then, *use* can drop the connection: if the
        server sent one response too many, the next request on it, of any list, would get the wrong response.

        Args:
            sender: Sends the request.
            query: The query of the URL.
            secret: The token.
            use: Is called with the response.
            no_cache: Ask caches not to respond without asking the server (RFC 9111, section 5.2.1.4).

        Raises:
            APIConnectionError: No complete response came.
            InvalidResponseError: The body is too large, or in an encoding that the SDK did not ask for.
        """
        response, trace = await self._send_until_accepted(sender, query, secret, no_cache=no_cache)
        try:
            try:
                received = await self._body_of(response, sender.library, trace)
            except CustomersError as error:
                error.status_code = response.status_code
                raise
            # Remove the token here, so that no later code has to: a server may repeat it.
            body = secret.redact_page(received) if response.is_success else secret.redact_partial(received)
            repeats_token = response.is_success and body != received
            del received  # a traceback would show it
            headers = secret.redact_headers(response.headers)
            # HTTP/2 numbers its streams, so a request cannot get the response of another one.
            connection = None if response.http_version == "HTTP/2" else response.extensions.get("network_stream")
            return await use(RawResponse(response.status_code, headers, body, repeats_token, connection))
        finally:
            # The response is complete, or an error says why not. An error while closing adds nothing.
            with suppress(Exception):
                await response.aclose()

    async def _send_until_accepted(
        self, sender: Sender, query: str, secret: Secret, *, no_cache: bool
    ) -> tuple[httpx.Response, ConnectionTrace]:
        """
        Send a request until the server accepts it, or a connection fails.

        A server may accept only a few requests on each HTTP/2 connection, while more are in flight. Requests that it did not
        process go to the next connection. That is like waiting for a free connection: it is no attempt, and needs no
        permit. The loop ends, because each connection accepts some of the requests.
        """
        while True:
            trace = ConnectionTrace()
            request = self._request(sender, query, trace, no_cache=no_cache)
            try:
                return await self._send(sender, request, secret, trace), trace
            except APIConnectionError:
                if not trace.needs_next_connection:
                    raise

    def _request(self, sender: Sender, query: str, trace: ConnectionTrace, *, no_cache: bool) -> httpx.Request:
        with sender.library.errors_translated(self.netloc, trace):
            request = sender.request(f"{self.url}?{query}", {"trace": trace})
        if no_cache:
            request.headers["Cache-Control"] = "no-cache"
        return request

    async def _send(self, sender: Sender, request: httpx.Request, secret: Secret, trace: ConnectionTrace) -> httpx.Response:
        """Send a request and receive the headers of its response."""
        request.headers["Authorization"] = secret.authorization()
        try:
            with sender.library.errors_translated(self.netloc, trace, request):
                response = await sender.send(request)
        except APIConnectionError as error:
            trace.describe(error, had_headers=False)
            raise
        finally:
            # Errors of the library hold the request, and the errors of the SDK hold them as their cause.
            request.headers.pop("Authorization", None)

        response.next_request = None  # the request of a redirect, with a copy of the token
        return response

    async def _body_of(self, response: httpx.Response, library: Library, trace: ConnectionTrace) -> bytes:
        if response.is_closed:
            # A hook of the user's client has read or closed it.
            try:
                return response.content
            except library.module.ResponseNotRead:
                return b""

        encoding = response.headers.get("Content-Encoding", "")
        if response.is_success:
            reader = BodyReader(encoding, limit=self.max_response_bytes)
            await self._read(response, reader, library, trace)
            return reader.finish()

        # The status is known. Report it even if the body is truncated, too long, too slow or unreadable.
        try:
            reader = BodyReader(encoding, limit=_ERROR_BODY_LIMIT)
        except CustomersError:
            return b""
        time_left = anyio.current_effective_deadline() - anyio.current_time()
        with suppress(CustomersError), anyio.move_on_after(min(_SECONDS_FOR_ERROR_BODY, time_left / 2)):
            await self._read(response, reader, library, trace)
        return reader.so_far

    async def _read(self, response: httpx.Response, reader: BodyReader, library: Library, trace: ConnectionTrace) -> None:
        trace.is_sendable = True
        try:
            with library.errors_translated(self.netloc, trace):
                stream = aiter(cast("httpx.AsyncByteStream", response.stream))
                async for chunk in stream:
                    try:
                        reader.feed(chunk)
                    except CustomersError:
                        await _abandon(stream)
                        raise
        except APIConnectionError as error:
            trace.describe(error, had_headers=True)
            raise


async def _abandon(stream: AsyncIterator[bytes]) -> None:
    """
    Close a body without reading the rest of it.

    If a stream is not read to its end, the garbage collector closes its generators, and trio warns about each of them. So
    this reads what is already buffered, in a cancelled scope. The first wait for more data raises the cancellation in the
    generators. They then close the connection or the HTTP/2 stream.
    """
    buffered = 0
    with suppress(Exception), anyio.CancelScope() as scope:
        scope.cancel()
        async for chunk in stream:
            buffered += len(chunk)
            if buffered > _MOST_BUFFERED:
                await cast("AsyncGenerator[bytes]", stream).aclose()
