"""
What httpcore leaves to do on HTTP/2 connections: to end streams, to take the last responses, to understand how they ended.

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
_SECONDS_TO_GIVE_WAY = 0.001
_MOST_UNANSWERED = 2
"""Requests in a row that a connection may leave without an answer until they time out. One may be a slow page."""


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
    How the server, or the library in its place, ended a stream or the connection.

    Attributes:
        code: The error code.
        last_stream: The last stream that the server may have processed, if it ended the connection.
    """

    code: int
    last_stream: int | None

    @classmethod
    def of(cls, exc: BaseException) -> Self | None:
        """Find the event of h2 that an error of httpcore is about: StreamReset or ConnectionTerminated."""
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
        """Whether the server has had enough of the connection, and nothing is wrong: for example after 1,000 requests."""
        return self.is_of_connection and self.code == ErrorCode.NO_ERROR

    @property
    def is_final(self) -> bool:
        """Whether HTTP/2, or this TLS, is not good enough for the server. It will not be the next time."""
        return self.code in (ErrorCode.INADEQUATE_SECURITY, ErrorCode.HTTP_1_1_REQUIRED)

    def is_unprocessed(self, stream: int | None) -> bool:
        """Return whether the server says that it has not processed *stream* (RFC 9113, section 8.7)."""
        if self.code == ErrorCode.ENHANCE_YOUR_CALM:
            return False
        if self.last_stream is None:
            return self.code == ErrorCode.REFUSED_STREAM
        return stream is not None and stream > self.last_stream

    @property
    def is_after_others(self) -> bool:
        """Whether the server may have processed other requests of the connection that it ended."""
        return bool(self.last_stream)


@dataclass(slots=True)
class _Known:
    """
    What is known of a connection, beyond what httpcore knows.

    Attributes:
        unanswered: How many requests in a row it has left without an answer.
        farewell: How the server has announced that it ends the connection without an error.
    """

    unanswered: int = 0
    farewell: Ending | None = None


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()
"""By connection."""


def _known_of(connection: Any) -> _Known:
    """Return what is known of a connection. The first time, prepare it for its end."""
    if connection not in _known:
        _known[connection] = _Known()
        _take_last_responses(connection, _known[connection])
    return _known[connection]


def _take_last_responses(connection: Any, known: _Known) -> None:
    """
    Let a connection take the responses that a server still sends after a GOAWAY without an error (RFC 9113, section 6.8).

    nginx sends it with the last request of `keepalive_requests`, before the responses to those in flight. But h2 takes
    nothing more after any GOAWAY. If more requests are in flight than a connection may have, none would ever be answered.

    So for h2, this GOAWAY becomes a reset of each stream that the server has not processed. httpcore opens no other stream
    on the connection, and closes it after the last response. If h2 is built otherwise, nothing changes.
    """
    h2 = connection._h2_state  # noqa: SLF001 - see `H2Stream`
    handlers = getattr(h2, "_frame_dispatch_table", {})
    kinds = {kind.__name__: kind for kind in handlers}
    go_away, reset = kinds.get("GoAwayFrame"), kinds.get("RstStreamFrame")
    if go_away is None or reset is None:
        return

    end = handlers[go_away]

    def take(frame: Any) -> tuple[list[Any], list[Any]]:
        if frame.error_code != ErrorCode.NO_ERROR:
            return cast("tuple[list[Any], list[Any]]", end(frame))

        _close_when_idle(connection)
        known.farewell = Ending(ErrorCode.NO_ERROR, frame.last_stream_id)
        events: list[Any] = []
        for number in [number for number, stream in h2.streams.items() if not stream.closed]:
            if known.farewell.is_unprocessed(number):
                refused.add(number)
                events += handlers[reset](reset(number, error_code=ErrorCode.REFUSED_STREAM))[1]
        return [], events

    async def read(request: Any) -> Any:
        # One request reads for all, and the others wait in a line, also those whose reset has come. Let these go first.
        if refused & connection._events.keys():  # noqa: SLF001 - see `H2Stream`
            await anyio.sleep(_SECONDS_TO_GIVE_WAY)
            return []
        return await read_more(request)

    refused: set[int] = set()
    handlers[go_away] = take
    read_more = connection._read_incoming_data  # noqa: SLF001 - see `H2Stream`
    connection._read_incoming_data = read  # noqa: SLF001 - see `H2Stream`


@dataclass(frozen=True, slots=True)
class H2Stream:
    """
    The stream of one request.

    If a request is cut, by a timeout or a cancellation, httpcore forgets its stream and resets nothing. The server works on
    for nobody. The stream still counts against the most that the server allows: after as many, no request gets through. And
    nobody acknowledges its data, so the window of the connection shrinks until all its requests hang.

    So this resets the stream. No public interface leads to it. The only public way is to close the connection, and that
    fails all other requests on it. httpcore calls the trace extension from a method of the connection, so the connection is
    found in the frames of the callers: also behind proxies, and in transports that wrap others. If it is not found, nothing
    is reset.

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
        """Find the stream that is about to be opened, from the trace event about it. `None`: it cannot be found."""
        connection = calling_connection(H2_NAMES)
        if connection is None:
            return None

        # If a request is cancelled while it waits for another one to open the connection, httpcore takes that for a failure
        # to connect, and the pool forgets the connection. The other requests use it, and nobody would close it.
        if is_forgotten():
            _close_when_idle(connection)
        request = copy(info["request"])
        request.headers = []
        return cls(connection, info["stream_id"], request)

    @property
    def farewell(self) -> Ending | None:
        """How the server has announced that it ends the connection without an error. It takes no new streams then."""
        return _known_of(self.connection).farewell

    @property
    def is_to_blame(self) -> bool:
        """Whether the headers could not be sent because of themselves, and not because of the connection."""
        return bool(not self.is_connection_over and self.number in self.connection._h2_state.streams)  # noqa: SLF001 - see the class

    @property
    def is_connection_over(self) -> bool:
        """Whether h2 takes nothing more from the connection: a GOAWAY came, or the server has broken the protocol."""
        return bool(self.connection._h2_state.state_machine.state.name == "CLOSED")  # noqa: SLF001 - see the class

    def note_answer(self) -> None:
        """Note that the head of a response has come."""
        _known_of(self.connection).unanswered = 0

    def note_silence(self) -> None:
        """
        Note that the request has timed out, and no head has come. After some, no other request uses the connection.

        A connection may be dead without an end: a firewall has forgotten it, or the server hangs. HTTP/1.1 closes the
        connection of each request that times out. HTTP/2 would use it for ever.
        """
        known = _known_of(self.connection)
        known.unanswered += 1
        if known.unanswered >= _MOST_UNANSWERED:
            _close_when_idle(self.connection)

    async def end(self, *, is_damaged: bool) -> None:
        """
        Reset the stream, unless it has ended, and give back the window of the connection that its unread data takes.

        Args:
            is_damaged: Whether frames may be missing, sent or received. Frames of other streams may be among them, and
                header blocks after a missing one mean something else. So this closes the connection. The others then do not
                wait for what never comes, and are sent again.
        """
        # The connection may have ended; the server may not read. What cut the request is what its caller has to know.
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
    """Let no other request use *connection*. httpcore closes one without numbers left, when its last request has ended."""
    connection._used_all_stream_ids = True  # noqa: SLF001 - see `H2Stream`


def was_cut_while_writing(exc: BaseException) -> bool:
    """
    Return whether a cancellation has cut a write, so that the frames of this write are lost.

    Any other exception makes httpcore give up the connection by itself.
    """
    return any(frame.f_code.co_name == "write" for frame in frames_of(exc.__traceback__))


def is_forgotten() -> bool:
    """
    Return whether the connection that calls the trace extension, to open itself, is one that the pool has forgotten.

    Requests wait for the one that opens an HTTP/2 connection. If it cannot, the pool forgets the connection. But the next
    request in line opens it all the same, and nobody closes it. No public interface leads to it: see `H2Stream`.
    """
    return getattr(calling_connection(POOLED_NAMES), "_connect_failed", None) is True


def is_of_ended_connection(exc: BaseException) -> bool:
    """
    Return whether the connection had ended before *exc*.

    h2 takes nothing more after a GOAWAY, not even the responses that the server still sends (RFC 9113, section 6.8). If both
    come at once, its error about the response is all that is left.
    """
    return any("in state ConnectionState.CLOSED" in text_of(link) for link in chain(exc))
