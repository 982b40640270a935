"""
How the SDK reaches behind the public interfaces of httpx and httpcore, where no other way leads.

httpcore leaves things to do. On HTTP/1.1: to notice that a server sends more than it was asked for (`http1.py`). On HTTP/2:
to end the streams of requests that are cut, and to understand why the server ended a stream or the connection (`http2.py`).
And httpx does not say whether the transport raised an exception, or a hook of the user (`library.py`).

httpcore calls the trace extension from a method of the connection. So the connection is found in the frames of the callers,
also behind proxies, and in transports that wrap others. If one of the private names is not there, the connection is not
found: requests work as before, but these things are not done. Then `tests/unit/test_internals.py` fails. It passes with
httpx 0.28, httpcore 1.0, httpcore2 2.7 to 2.16 and h2 4.2 to 4.4.
"""

import inspect
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any

H1_NAMES = ("_h11_state", "_network_stream")
H2_NAMES = ("_h2_state", "_events", "_write_outgoing_data", "_used_all_stream_ids")
"""All private names that are used of `AsyncHTTP11Connection` and `AsyncHTTP2Connection` of httpcore and httpcore2."""
POOLED_NAMES = ("_connect_failed",)
"""The same of `AsyncHTTPConnection`, which opens one of these when it is first used."""

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
