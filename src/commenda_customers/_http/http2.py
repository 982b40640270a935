"""
What httpcore does not do on HTTP/2 connections: reset streams, read the last responses after a GOAWAY, say why they ended.

HTTP/2 sends many requests on one connection, each as a stream (RFC 9113).
"""

from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self, cast
from weakref import WeakKeyDictionary

import anyio

from ..errors import chain, text_of
from .internals import H2_NAMES, POOLED_NAMES, calling_connection, frames_of

_SECONDS_TO_RESET = 1.0
_SECONDS_TO_YIELD = 0.001
_MOST_UNANSWERED = 2
"""Requests in a row that may time out without a response before the connection is closed. One may be a slow page."""


class ErrorCode(IntEnum):
    """The codes that decide what to do next (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


@dataclass(frozen=True, slots=True)
class Ending:
    """
    How the server, or the library on its behalf, ended a stream or the connection.

    Attributes:
        code: The error code.
        last_stream: The last stream that the server may have processed, if it ended the connection.
    """

    code: int
    last_stream: int | None

    @classmethod
    def of(cls, exc: BaseException) -> Self | None:
        """Find the h2 event (StreamReset or ConnectionTerminated) that caused an error of httpcore."""
        for link in chain(exc):
            for event in link.args:
                code = getattr(event, "error_code", None)
                if isinstance(code, int) and not isinstance(event, BaseException):
                    return cls(code, getattr(event, "last_stream_id", None))

        return None

    @property
    def is_of_connection(self) -> bool:
        """Whether it ended the connection, and not only the stream."""
        return self.last_stream is not None

    @property
    def is_graceful(self) -> bool:
        """Whether the server ended the connection without an error, for example after 1,000 requests."""
        return self.is_of_connection and self.code == ErrorCode.NO_ERROR

    @property
    def is_final(self) -> bool:
        """Whether the server does not accept HTTP/2 or this TLS. A retry cannot help."""
        return self.code in (ErrorCode.INADEQUATE_SECURITY, ErrorCode.HTTP_1_1_REQUIRED)

    def is_unprocessed(self, stream: int | None) -> bool:
        """Return whether the server says that it has not processed *stream* (RFC 9113, section 8.7)."""
        if self.code == ErrorCode.ENHANCE_YOUR_CALM:
            return False
        if self.last_stream is None:
            return self.code == ErrorCode.REFUSED_STREAM
        return stream is not None and stream > self.last_stream

    @property
    def may_have_processed_others(self) -> bool:
        """Whether the server may have processed other requests of the connection that it ended."""
        return bool(self.last_stream)


@dataclass(slots=True)
class _ConnectionState:
    """
    What the SDK knows about a connection, and httpcore does not.

    Attributes:
        unanswered: How many requests in a row have timed out on it without a response.
        goaway: The GOAWAY without an error, if the server has sent one.
    """

    unanswered: int = 0
    goaway: Ending | None = None


_states: WeakKeyDictionary[Any, _ConnectionState] = WeakKeyDictionary()
"""By connection."""


def _state_of(connection: Any) -> _ConnectionState:
    """Return the state of a connection. The first call also makes the connection read the last responses after a GOAWAY."""
    if connection not in _states:
        _states[connection] = _ConnectionState()
        _read_last_responses(connection, _states[connection])
    return _states[connection]


def _read_last_responses(connection: Any, state: _ConnectionState) -> None:
    """
    Make a connection read the responses that a server still sends after a GOAWAY without an error (RFC 9113, section 6.8).

    nginx sends the GOAWAY with the last request of `keepalive_requests`, before the responses to requests in flight. But h2
    reads nothing more after any GOAWAY. If more requests are in flight than a connection may carry, all of them would fail.

    So this replaces the GOAWAY by a reset of each stream that the server has not processed. httpcore opens no new stream
    on the connection, and closes it after the last response. If h2 has another structure, this does nothing.
    """
    h2 = connection._h2_state  # noqa: SLF001 - see `H2Stream`
    handlers = getattr(h2, "_frame_dispatch_table", {})
    kinds = {kind.__name__: kind for kind in handlers}
    go_away, reset = kinds.get("GoAwayFrame"), kinds.get("RstStreamFrame")
    if go_away is None or reset is None:
        return

    default_handler = handlers[go_away]

    def handle_goaway(frame: Any) -> tuple[list[Any], list[Any]]:
        if frame.error_code != ErrorCode.NO_ERROR:
            return cast("tuple[list[Any], list[Any]]", default_handler(frame))

        _close_when_idle(connection)
        state.goaway = Ending(ErrorCode.NO_ERROR, frame.last_stream_id)
        events: list[Any] = []
        for number in [number for number, stream in h2.streams.items() if not stream.closed]:
            if state.goaway.is_unprocessed(number):
                refused.add(number)
                events += handlers[reset](reset(number, error_code=ErrorCode.REFUSED_STREAM))[1]
        return [], events

    async def read_unless_reset(request: Any) -> Any:
        # One request reads for all of them. The others wait for their turn. Let requests whose stream was reset go first.
        if refused & connection._events.keys():  # noqa: SLF001 - see `H2Stream`
            await anyio.sleep(_SECONDS_TO_YIELD)
            return []
        return await read(request)

    refused: set[int] = set()
    handlers[go_away] = handle_goaway
    read = connection._read_incoming_data  # noqa: SLF001 - see `H2Stream`
    connection._read_incoming_data = read_unless_reset  # noqa: SLF001 - see `H2Stream`


@dataclass(frozen=True, slots=True)
class H2Stream:
    """
    The stream of one request.

    If a timeout or a cancellation ends a request, httpcore drops its stream without a reset. The server keeps working on
    it. The stream still counts against the server's limit of concurrent streams: in the end, no request can start. And
    its data is never acknowledged, so the window of the connection shrinks until all its requests hang.

    So this class resets the stream. There is no public interface for it. The only public way is to close the connection,
    which fails all other requests on it. httpcore calls the trace extension from a method of the connection, so the
    connection is found in the frames of the callers, also behind proxies and in transports that wrap others. If it is not
    found, nothing is reset.

    Attributes:
        connection: The `AsyncHTTP2Connection` of httpcore or httpcore2.
        number: The number of the stream.
        request: The request, as httpcore has it.
    """

    connection: Any
    number: int
    request: Any

    @classmethod
    def of(cls, info: dict[str, Any]) -> Self | None:
        """Return the stream that httpcore is about to open, from its trace event; `None` if it cannot be found."""
        connection = calling_connection(H2_NAMES)
        if connection is None:
            return None

        # If a request is cancelled while it waits for another one to open the connection, httpcore treats that as a failed
        # connect, and the pool drops the connection. Other requests still use it, but nothing would close it.
        if is_dropped_by_pool():
            _close_when_idle(connection)
        request = copy(info["request"])
        request.headers = []
        return cls(connection, info["stream_id"], request)

    @property
    def goaway(self) -> Ending | None:
        """The GOAWAY without an error, if the server has sent one. The server then accepts no new streams."""
        return _state_of(self.connection).goaway

    @property
    def has_unsendable_headers(self) -> bool:
        """Whether the headers could not be sent because they are invalid, and not because of the connection."""
        return bool(not self.is_connection_closed and self.number in self.connection._h2_state.streams)  # noqa: SLF001 - see the class

    @property
    def is_connection_closed(self) -> bool:
        """Whether h2 reads nothing more from the connection: a GOAWAY came, or the server has violated the protocol."""
        return bool(self.connection._h2_state.state_machine.state.name == "CLOSED")  # noqa: SLF001 - see the class

    def note_response(self) -> None:
        """Note that the headers of a response have arrived."""
        _state_of(self.connection).unanswered = 0

    def note_timeout(self) -> None:
        """
        Note that the request has timed out without a response. After two in a row, nothing reuses the connection.

        A connection may be dead although it was never closed: a firewall has dropped it, or the server hangs. With HTTP/1.1,
        the connection of each request that times out is closed. With HTTP/2, it would be reused for ever.
        """
        state = _state_of(self.connection)
        state.unanswered += 1
        if state.unanswered >= _MOST_UNANSWERED:
            _close_when_idle(self.connection)

    async def end(self, *, is_damaged: bool) -> None:
        """
        Reset the stream, unless it has ended, and release the part of the connection window that its unread data takes.

        Args:
            is_damaged: Whether frames, sent or received, may be missing. They may be frames of other streams, and after a
                missing header block, later ones are decoded wrongly. So this closes the connection. The other requests then
                do not wait for responses that never come, and the client sends them again.
        """
        # The connection may have ended, or the server may not read. The caller needs the original exception, not these.
        with suppress(Exception), anyio.move_on_after(_SECONDS_TO_RESET, shield=True) as scope:
            if not is_damaged:
                self._end()
                await self.connection._write_outgoing_data(self.request)  # noqa: SLF001 - see the class
        if is_damaged or scope.cancelled_caught:
            with suppress(Exception), anyio.move_on_after(_SECONDS_TO_RESET, shield=True):
                await self.connection.aclose()

    def _end(self) -> None:
        h2 = self.connection._h2_state  # noqa: SLF001 - see the class
        events = self.connection._events.get(self.number, ())  # noqa: SLF001 - see the class
        unread = sum(getattr(event, "flow_controlled_length", None) or 0 for event in events)
        if unread:
            h2.acknowledge_received_data(unread, self.number)
        stream = h2.streams.get(self.number)
        if stream is not None and not stream.closed:
            h2.reset_stream(self.number, ErrorCode.CANCEL)


def _close_when_idle(connection: Any) -> None:
    """Prevent new requests on *connection*. httpcore closes a connection without free stream ids after its last request."""
    connection._used_all_stream_ids = True  # noqa: SLF001 - see `H2Stream`


def was_cancelled_in_write(exc: BaseException) -> bool:
    """
    Return whether a cancellation interrupted a write, so that the frames of this write are lost.

    After any other exception, httpcore itself closes the connection.
    """
    return any(frame.f_code.co_name == "write" for frame in frames_of(exc.__traceback__))


def is_dropped_by_pool() -> bool:
    """
    Return whether the pool has dropped the connection that is being opened, and that calls the trace extension.

    Requests wait for the one that opens an HTTP/2 connection. If that request fails, the pool drops the connection. But the
    next waiting request still opens it, and nothing closes it. There is no public interface for it: see `H2Stream`.
    """
    return getattr(calling_connection(POOLED_NAMES), "_connect_failed", None) is True


def is_of_ended_connection(exc: BaseException) -> bool:
    """
    Return whether the connection had ended before *exc*.

    h2 reads nothing more after a GOAWAY, not even the responses that the server still sends (RFC 9113, section 6.8). If both
    arrive together, only h2's error about the response tells that the connection had ended.
    """
    return any("in state ConnectionState.CLOSED" in text_of(link) for link in chain(exc))
