"""Follows the connection of a request, through the trace events of the HTTP library."""

import math
from contextlib import suppress
from typing import Any

import anyio

from ..errors import APIConnectionError, APITimeoutError
from .http1 import H1Connection
from .http2 import Ending, ErrorCode, H2Stream, is_dropped_by_pool, is_of_ended_connection, was_cancelled_in_write

_CONNECTS = ("connect_tcp.started", "connect_unix_socket.started")
_CONNECTED = ("connect_tcp.complete", "connect_unix_socket.complete")
"""Suffixes of the events of a new connection. The prefix is the kind of connection; proxies have their own."""


class ConnectionTrace:
    """
    Follows the connection of one request. It is passed to the library as the `trace` extension.

    It knows whether the request was sent on an idle connection from the pool: a server may close such a connection at the
    moment at which the client reuses it.

    It also closes a connection whose TLS handshake failed or was cancelled, because httpcore does not (encode/httpcore pull
    request 443). It shuts down connections with extra data, see `H1Connection`, and resets HTTP/2 streams, see `H2Stream`.

    Attributes:
        is_sendable: Whether the library has found nothing wrong with the request itself.
        needs_next_connection: Whether the server ended the connection without an error, after other requests and before
            processing this one. The request then goes to the next connection.
        peer: Host and port of the new connection, or those of the proxy if there is one. `None`: no new connection.
    """

    def __init__(self) -> None:
        self.is_sendable = False
        self.needs_next_connection = False
        self.peer: str | None = None
        self._opened: Any = None
        self._was_sent = False
        self._connection: H1Connection | None = None
        self._stream: H2Stream | None = None
        self._is_damaged = False
        self._deadline = math.inf

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        """Receive an event of the library."""
        match event:
            case _ if event.endswith(_CONNECTS):
                self._note_connecting(info)
            case _ if event.endswith(_CONNECTED):
                self._opened = info["return_value"]
            case _ if event.endswith("start_tls.failed"):
                with suppress(Exception), anyio.CancelScope(shield=True):
                    await self._opened.aclose()
            case "http11.send_request_headers.started":
                self._was_sent, self.is_sendable = True, False  # before this, only the CONNECT for a proxy was sent
                self._connection = H1Connection.of_caller()
            case "http2.send_request_headers.started":
                self._note_stream(info)
            case "http11.send_request_headers.complete" | "http2.send_request_headers.complete":
                self.is_sendable = True
            case "http2.receive_response_headers.complete" if self._stream is not None:
                self._stream.note_response()
            case "http11.response_closed.started" | "http2.response_closed.started":
                await self._release()
            case _ if event.startswith("http2.") and event.endswith(".failed"):
                self._note_failure(event, info["exception"])
            case _:
                pass

    def note_reuse(self) -> None:
        """Note that the request goes to an open connection, whose events are not traced."""
        self._was_sent = self.is_sendable = True

    async def _release(self) -> None:
        """Release the connection. Until this returns, it still belongs to this request, or carries its stream."""
        if self._stream is not None:
            await self._stream.end(is_damaged=self._is_damaged)
        elif self._connection is not None:
            self._connection.shut_down_if_extra_data()

    def _note_connecting(self, info: dict[str, Any]) -> None:
        if is_dropped_by_pool():
            raise _unsent_error("another request could not open the connection that this one waited for")
        if "host" in info:
            self.peer = f"{info['host']}:{info['port']}"

    def _note_stream(self, info: dict[str, Any]) -> None:
        stream = H2Stream.of(info)
        if stream is not None and stream.goaway is not None:
            self.needs_next_connection = stream.goaway.may_have_processed_others
            raise _unsent_error("the server has announced the end of the connection")

        self._was_sent = True
        self._stream = stream
        self._deadline = anyio.current_effective_deadline()

    def _note_failure(self, event: str, exc: BaseException) -> None:
        if not isinstance(exc, Exception):
            self._is_damaged = was_cancelled_in_write(exc)
            is_timeout = anyio.current_time() >= self._deadline
            if event == "http2.receive_response_headers.failed" and is_timeout and self._stream is not None:
                self._stream.note_timeout()
            return

        # At a protocol error, h2 drops all data that arrived with it, also data of other requests. At a GOAWAY, it does not.
        self._is_damaged = self._stream is not None and self._stream.is_connection_closed and Ending.of(exc) is None
        if event == "http2.send_request_headers.failed":
            has_unsendable_headers = self._stream is not None and self._stream.has_unsendable_headers
            self.is_sendable = not has_unsendable_headers
            # A header block that was not completed has changed the HPACK state, so later header blocks would be wrong.
            self._is_damaged |= has_unsendable_headers

    def describe(self, error: APIConnectionError, *, had_headers: bool) -> None:
        """
        Set the fields of *error* that say what happened to the request.

        Args:
            error: The reason why no complete response came.
            had_headers: Whether the headers of a response came.
        """
        was_reused = self._was_sent and self._opened is None and not had_headers
        number = None if self._stream is None else self._stream.number
        ending, goaway = Ending.of(error), None if self._stream is None else self._stream.goaway
        if goaway is not None and (ending is None or goaway.is_unprocessed(number)):
            ending = goaway
        if ending is None:
            error.is_stale_connection = was_reused or is_of_ended_connection(error)
            # An HTTP/2 connection ends once for all requests on it. For the limiter, that is not a refusal of each.
            is_known = error.is_stale_connection and self._stream is not None
            error.is_rejection = not (had_headers or is_known or isinstance(error, APITimeoutError)) and error.transient
            return

        is_enhance_your_calm = ending.code == ErrorCode.ENHANCE_YOUR_CALM
        error.transient = error.transient and not ending.is_final
        error.is_unprocessed = ending.is_unprocessed(number)
        self.needs_next_connection = error.is_unprocessed and ending.is_graceful and ending.may_have_processed_others
        error.is_stale_connection = ending.is_graceful or (
            was_reused and ending.is_of_connection and not is_enhance_your_calm
        )
        error.is_rejection = error.transient and (is_enhance_your_calm or not (had_headers or ending.is_graceful))


def _unsent_error(why: str) -> APIConnectionError:
    error = APIConnectionError(why, transient=True)
    error.is_unprocessed = True
    return error
