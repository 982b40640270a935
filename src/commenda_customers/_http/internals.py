"""
The private names of httpx and httpcore that the SDK uses, where no public interface exists.

Some things httpcore does not do. On HTTP/1.1: notice that a server sends more than one response (`http1.py`). On HTTP/2:
reset the stream of a request that is cancelled, and say why the server ended a stream or the connection (`http2.py`). And
httpx does not say whether an exception came from the transport or from a hook of the user (`library.py`).

httpcore calls the trace extension from a method of the connection. So the connection is found in the frames of the callers,
also behind proxies and in transports that wrap others. If a version lacks one of the private names, the connection is not
found: requests still work, but without these additions. Then `tests/unit/test_internals.py` fails. It passes with
httpx 0.28, httpcore 1.0, httpcore2 2.7 to 2.16 and h2 4.2 to 4.4.
"""

import inspect
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any

H1_NAMES = ("_h11_state", "_network_stream")
H2_NAMES = ("_h2_state", "_events", "_write_outgoing_data", "_read_incoming_data", "_used_all_stream_ids")
POOLED_NAMES = ("_connect_failed", "_connection")
"""
All private names that the SDK uses of `AsyncHTTP11Connection`, `AsyncHTTP2Connection`, and of `AsyncHTTPConnection`, which
opens them. They are the same in httpcore and httpcore2.
"""

POOL_NAME = "_pool"
"""The attribute of `httpx.AsyncHTTPTransport` that holds its connections."""

_OF_TRANSPORT = frozenset({"_send_single_request", "handle_async_request", "aiter_raw", "aclose"})
"""Functions of httpx that exceptions of transports and bodies pass through, and exceptions of hooks do not."""
_OF_TRACE = "atrace"
"""The function of httpcore that calls a trace extension."""


def calling_connection(names: Iterable[str]) -> Any:
    """Return the innermost caller's `self` that has all these attributes; `None` if there is none."""
    # Start at the caller. This function's own frame would hold itself, and only the garbage collector could free the frames.
    frame: FrameType | None = getattr(inspect.currentframe(), "f_back", None)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if all(hasattr(caller, name) for name in names):
            return caller
        frame = frame.f_back
    return None


def inner_connection(opener: Any, names: Iterable[str]) -> Any:
    """Return *opener*, or else the connection that it has opened, if it has all these attributes; else `None`."""
    for connection in (opener, getattr(opener, "_connection", None)):
        if all(hasattr(connection, name) for name in names):
            return connection
    return None


def frames_of(traceback: TracebackType | None) -> Iterator[FrameType]:
    """Yield the frames of a traceback, the outermost first."""
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def is_of_trace(frames: Iterable[FrameType]) -> bool:
    """Return whether a trace function raised the exception with these frames."""
    return any(frame.f_code.co_name == _OF_TRACE for frame in frames)


def is_of_transport(frames: Iterable[FrameType], request: Any) -> bool:
    """Return whether the exception with these frames comes from the transport or the body of *request*."""
    return any(frame.f_code.co_name in _OF_TRANSPORT and _uses(frame, request) for frame in frames)


def _uses(frame: FrameType, request: Any) -> bool:
    """Return whether a function was called with *request*, or is a method of its response."""
    own = getattr(frame.f_locals.get("self"), "_request", None)
    return own is request or any(value is request for value in frame.f_locals.values())
