"""
Where the SDK reaches behind the public interfaces of httpx and httpcore: here, and for HTTP/2 in `http2.py`.

httpcore leaves three things to do, and no public interface leads to them. On HTTP/1.1: to notice that a server sends more
than it was asked for. On HTTP/2: to end the streams of requests that are cut, and to understand why the server ended a
stream or the connection. And with httpx, an exception of a user's hook looks like one of the transport.

httpcore calls the trace extension from a method of the connection. So the connection is found in the frames of the callers,
also behind proxies, and in transports that wrap others. If one of the private names is not there, the connection is not
found: requests work as before, but what stands here is not done. Then `tests/unit/test_internals.py` fails. It passes with
httpx 0.28, httpcore 1.0, httpcore2 2.7 to 2.16 and h2 4.2 to 4.4.
"""

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

_H1_NAMES = ("_h11_state",)
H2_NAMES = ("_h2_state", "_events", "_write_outgoing_data", "_used_all_stream_ids")
"""The private names that are used here of `AsyncHTTP11Connection` and `AsyncHTTP2Connection` of httpcore and httpcore2."""

_OF_TRANSPORT = frozenset({"_send_single_request", "handle_async_request", "aiter_raw", "aclose"})
"""Functions of httpx through which the exceptions of transports and of bodies come, and those of hooks do not."""
_OF_TRACE = "atrace"
"""The function of httpcore that calls a trace extension."""


def calling_connection(names: Iterable[str]) -> Any:
    """Return the innermost caller's `self` that has all these attributes; `None` if there is none."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if all(hasattr(caller, name) for name in names):
            return caller
        frame = frame.f_back
    return None


@dataclass(frozen=True, slots=True)
class H1Connection:
    """
    The connection of one request.

    HTTP/1.1 does not number its responses. If a server sends one too many, for example each response twice, the next request
    on the connection gets the wrong one, and customers are lost or come twice. httpcore looks at the socket before it uses a
    connection again. But it does not look at what it has already read, and keeps that for the next response.

    Attributes:
        connection: The `AsyncHTTP11Connection` of httpcore or httpcore2.
    """

    connection: Any

    @classmethod
    def of_caller(cls) -> Self | None:
        """Find the connection that calls the trace extension. `None`: it cannot be found."""
        connection = calling_connection(_H1_NAMES)
        return None if connection is None else cls(connection)

    @property
    def has_more(self) -> bool:
        """Whether bytes have come after a complete response."""
        return bool(self.connection._h11_state.trailing_data[0])  # noqa: SLF001 - see the file


def frames_of(traceback: TracebackType | None) -> Iterator[FrameType]:
    """Yield the frames of a traceback, the outermost first."""
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def is_of_trace(frames: Iterable[FrameType]) -> bool:
    """Return whether a trace function raised the exception that came through *frames*."""
    return any(frame.f_code.co_name == _OF_TRACE for frame in frames)


def is_of_transport(frames: Iterable[FrameType], request: Any) -> bool:
    """Return whether the exception that came through *frames* is of the transport or the body of *request*."""
    return any(frame.f_code.co_name in _OF_TRANSPORT and _knows(frame, request) for frame in frames)


def _knows(frame: FrameType, request: Any) -> bool:
    """Return whether a function was called with *request*, or is a method of its response."""
    own = getattr(frame.f_locals.get("self"), "_request", None)
    return own is request or any(value is request for value in frame.f_locals.values())
