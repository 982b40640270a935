"""Faults of HTTP/2: streams, connections, and frames that no server may send."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import httpx
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from fault_matrix.connection import SHORT
from fault_matrix.runs import FIRST, SECOND, Fault, Site
from fault_matrix.tls import trusting
from raw_h2_server import (
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    H2Connection,
    Request,
    settings_frame,
)
from raw_server import Connection

BODY = json.dumps(SECOND).encode()
LENGTH = ("content-length", str(len(BODY)))
OK = (":status", "200")
CODES = {
    "NO_ERROR": 0x0,
    "PROTOCOL_ERROR": 0x1,
    "INTERNAL_ERROR": 0x2,
    "FLOW_CONTROL_ERROR": 0x3,
    "SETTINGS_TIMEOUT": 0x4,
    "STREAM_CLOSED": 0x5,
    "FRAME_SIZE_ERROR": 0x6,
    "REFUSED_STREAM": 0x7,
    "CANCEL": 0x8,
    "COMPRESSION_ERROR": 0x9,
    "CONNECT_ERROR": 0xA,
    "ENHANCE_YOUR_CALM": 0xB,
    "INADEQUATE_SECURITY": 0xC,
    "HTTP_1_1_REQUIRED": 0xD,
}
Strike = Callable[[H2Connection, Request], None]


def _open_client(_: str) -> AbstractAsyncContextManager[Any]:
    return httpx.AsyncClient(http1=False, http2=True, verify=trusting())  # reading all certificates takes long


def _serve(site: Site, connection: Connection, *, goes_away: bool = False, **settings: int) -> None:
    if site.fault.at == "connection" and site.strikes():
        site.fault.strike(connection)
        return
    h2 = H2Connection(connection)
    h2.start(**settings)
    while request := h2.read_request():
        if "cursor" not in request.params:
            end = [GoAwayFrame(last_stream_id=request.stream)] if goes_away else []
            h2.send_frames(*h2.response(request.stream, FIRST), *end)
        elif site.fault.at == "request" and site.strikes():
            site.fault.strike(h2, request)
        else:
            h2.respond(request.stream, SECOND)


def h2(strike: Callable[..., None], *, serve: Callable[[Site, Connection], None] = _serve, **fault: Any) -> Fault:
    """Return a fault of a server that speaks HTTP/2."""
    return Fault(strike=strike, serve=serve, client=_open_client, **fault)


def sends(*make: Callable[[H2Connection, int], Frame | bytes], then: str = "") -> Strike:
    """Answer a request with these frames, then go on, reset the stream, or close or reset the connection."""

    def strike(connection: H2Connection, request: Request) -> None:
        parts = [make_one(connection, request.stream) for make_one in make]
        # In one write: what the client does may depend on what it reads at once.
        connection.raw.send(b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts))
        if then:
            if then == "reset":
                connection.raw.reset()
            connection.raw.close()

    return strike


def head(*headers: tuple[str, str], **options: Any) -> Callable[[H2Connection, int], Frame]:
    """Make the head of a response."""
    return lambda connection, stream: connection.head(stream, headers or (OK, LENGTH), **options)


def data(body: bytes = BODY, *, ends: bool = True, **options: Any) -> Callable[[H2Connection, int], Frame]:
    """Make a frame of a body."""
    flags = ["END_STREAM"] * ends + ["PADDED"] * ("pad_length" in options)
    return lambda _, stream: DataFrame(stream, body, flags=flags, **options)


def frame(make: Callable[[int], Frame | bytes]) -> Callable[[H2Connection, int], Frame | bytes]:
    """Make any other frame."""
    return lambda _, stream: make(stream)


def good(connection: H2Connection, stream: int) -> bytes:
    """Make a good response."""
    return b"".join(part.serialize() for part in connection.response(stream, SECOND))


def resets(code: int) -> Callable[[H2Connection, int], Frame]:
    """Make a reset of the stream."""
    return lambda _, stream: RstStreamFrame(stream, error_code=code)


def goes_away(code: int = NO_ERROR, *, below: bool = False, after: bytes = b"") -> Strike:
    """Send GOAWAY that includes our stream or not, respond or not, and close."""

    def strike(connection: H2Connection, request: Request) -> None:
        connection.go_away(max(request.stream - 2, 0) if below else request.stream, code)
        if after:
            connection.respond(request.stream, body=after)
        connection.raw.close()

    return strike


def _header(kind: int, stream: int, *, size: int = 0, flags: int = 0) -> bytes:
    """Return the head of a frame, as it is on the wire."""
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")


def _continued(connection: H2Connection, stream: int) -> bytes:
    whole = connection.head(stream, [OK, LENGTH, ("x", "y" * 300)])
    parts = HeadersFrame(stream, whole.data[:9]), ContinuationFrame(stream, whole.data[9:], flags=["END_HEADERS"])
    return b"".join(part.serialize() for part in parts)


def _interrupted(connection: H2Connection, stream: int) -> bytes:
    whole = connection.head(stream, [OK, LENGTH])
    return HeadersFrame(stream, whole.data).serialize() + PingFrame(opaque_data=bytes(8)).serialize()


def _flow_controlled(connection: H2Connection, request: Request) -> None:
    large = json.dumps({**SECOND, "extra": "x" * 300_000}).encode()
    connection.send_frames(connection.head(request.stream, [OK]))
    connection.send_data(request.stream, large)


def _is_silent(connection: H2Connection, request: Request) -> None:
    connection.raw.wait_for_end()


FLOOD = b"".join(settings_frame(MAX_CONCURRENT_STREAMS=100).serialize() for _ in range(500))
PINGS = b"".join(PingFrame(opaque_data=bytes(8)).serialize() for _ in range(500))

READ: dict[str, Fault] = {
    "the server allows one stream at a time": h2(sends(good), serve=partial(_serve, MAX_CONCURRENT_STREAMS=1), times=0),
    "the server has a flow-control window of 0": h2(sends(good), serve=partial(_serve, INITIAL_WINDOW_SIZE=0), times=0),
    "a body is larger than the flow-control window": h2(_flow_controlled),
    "interim responses come first": h2(sends(head((":status", "103")), head((":status", "100")), good)),
    "trailers follow the body": h2(sends(head(), data(ends=False), head(("x-checksum", "1"), ends=True))),
    "frames are padded": h2(sends(head(), data(BODY[:50], ends=False, pad_length=200), data(BODY[50:], pad_length=9))),
    "the headers are in two frames": h2(sends(_continued, data())),
    "empty frames come in the middle of the body": h2(
        sends(head(), data(BODY[:50], ends=False), *[data(b"", ends=False)] * 20, data(BODY[50:]))
    ),
    "frames of an unknown type come": h2(sends(frame(lambda stream: _header(0xBE, stream, size=4) + b"what"), good)),
    "a flood of SETTINGS frames comes": h2(sends(frame(lambda _: FLOOD), good)),
    "a flood of PING frames comes": h2(sends(frame(lambda _: PINGS), good)),
    "the stream is reset without an error after the complete response": h2(sends(good, resets(NO_ERROR))),
    "the server ends an idle connection without an error (`GOAWAY`)": h2(
        sends(good), serve=partial(_serve, goes_away=True), times=0
    ),
    "the server sends GOAWAY without an error, and completes the response": h2(goes_away(after=BODY)),
}
STREAMS: dict[str, Fault] = {
    **{f"the stream is reset before the response (`{name}`)": h2(sends(resets(code))) for name, code in CODES.items()},
    **{
        f"the stream is reset in the body (`{name}`)": h2(sends(head(), data(BODY[:50], ends=False), resets(code)))
        for name, code in CODES.items()
    },
    "the stream is reset with a code that does not exist": h2(sends(resets(0xBEEF))),
    "the stream hangs before the response": h2(sends(), timeout=SHORT, attempts=2),
    "the stream hangs in the body": h2(sends(head(), data(BODY[:50], ends=False)), timeout=SHORT, attempts=2),
}
CONNECTIONS: dict[str, Fault] = {
    "the server sends GOAWAY, and has not processed the request": h2(goes_away(below=True)),
    "the server sends GOAWAY without an error, and does not respond": h2(goes_away()),
    "the server sends GOAWAY with an error (`INTERNAL_ERROR`)": h2(goes_away(INTERNAL_ERROR)),
    "the server sends GOAWAY with an error (`PROTOCOL_ERROR`)": h2(goes_away(PROTOCOL_ERROR)),
    "the server sends GOAWAY because of too many requests (`ENHANCE_YOUR_CALM`)": h2(goes_away(0xB, below=True)),
    "an HTTP/2 connection is closed before the response": h2(sends(then="close")),
    "an HTTP/2 connection is reset before the response": h2(sends(then="reset")),
    "an HTTP/2 connection is closed in the body": h2(sends(head(), data(BODY[:50], ends=False), then="close")),
    "an HTTP/2 connection is reset in the body": h2(sends(head(), data(BODY[:50], ends=False), then="reset")),
    "a hundred HTTP/2 connections in a row are closed before the response, with `max_attempts=None`": h2(
        sends(then="close"), times=100, lasts=False
    ),
    "an HTTP/2 connection is closed as soon as it is opened": h2(lambda connection: None, at="connection"),
    "the server responds in HTTP/1.1": h2(lambda raw: raw.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), at="connection"),
    "a whole HTTP/2 connection hangs": h2(_is_silent, timeout=SHORT, attempts=2),
    "the server does not respond to the first frames": h2(
        lambda raw: raw.wait_for_end(), at="connection", timeout=SHORT, attempts=2
    ),
}
VIOLATIONS: dict[str, Fault] = {
    "the body is shorter than `content-length`": h2(sends(head(OK, ("content-length", "999")), data())),
    "the body is longer than `content-length`": h2(sends(head(OK, ("content-length", "9")), data())),
    "a body comes before its headers": h2(sends(data(), head())),
    "a body comes on a stream that does not exist": h2(sends(frame(lambda stream: DataFrame(stream + 100, BODY)), good)),
    "a frame is larger than allowed": h2(
        sends(head(), frame(lambda stream: _header(0, stream, size=20_000) + bytes(20_000)))
    ),
    "a frame has an invalid size for its type": h2(sends(frame(lambda _: _header(6, 0, size=3) + b"abc"))),
    "the compressed headers are damaged": h2(
        sends(frame(lambda stream: HeadersFrame(stream, b"\xff" * 9, flags=["END_HEADERS"])))
    ),
    "the headers are larger than allowed": h2(sends(head(OK, *[("x", "y" * 9000)] * 8), data())),
    "another frame comes in the middle of the headers": h2(sends(_interrupted)),
    "there is no status": h2(sends(head(("x", "y")), data())),
    "the status comes twice": h2(sends(head(OK, OK), data())),
    "the status is not a number": h2(sends(head((":status", "fine")), data())),
    "the name of a header is in upper case": h2(sends(head(OK, ("X-Y", "z")), data())),
    "the server pushes a response (`PUSH_PROMISE`)": h2(
        sends(frame(lambda stream: PushPromiseFrame(stream, promised_stream_id=2, data=b"\x82", flags=["END_HEADERS"])))
    ),
    "a WINDOW_UPDATE has the increment 0": h2(sends(frame(lambda _: _header(8, 0, size=4) + bytes(4)))),
    "a WINDOW_UPDATE makes the window too large": h2(
        sends(frame(lambda _: WindowUpdateFrame(0, window_increment=2**31 - 1)))
    ),
    "a setting has an invalid value": h2(sends(frame(lambda _: settings_frame(MAX_FRAME_SIZE=1)))),
    "bytes that are not HTTP/2 frames come": h2(
        sends(frame(lambda _: b"this is no frame of HTTP/2 at all")), timeout=SHORT, attempts=2
    ),
    "a response comes twice on one stream": h2(sends(good, good)),
}
FAULTS: dict[str, Fault] = {**READ, **STREAMS, **CONNECTIONS, **VIOLATIONS}
