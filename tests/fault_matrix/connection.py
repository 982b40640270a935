"""Faults of the connection: refused, reset, closed, hanging, slow, out of step."""

from collections.abc import Callable
from typing import Any

from behaviours import BODY, GOOD, HEAD
from fault_matrix.runs import FIRST, SECOND, Fault
from raw_server import Connection, listing, ok

ANSWER = ok(SECOND)
STATUS, HEADERS = ANSWER.index(b" 200"), ANSWER.index(b"\r\nContent-Length")
BODY_AT, HALF = ANSWER.index(b"\r\n\r\n") + 4, len(ANSWER) - 60
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"".join([f"{len(BODY):x}\r\n".encode(), BODY, b"\r\n"])
HALF_CHUNK = b"14\r\n" + BODY[:20] + b"\r\n"
SHORT = 0.2
"""Seconds of a timeout that a test waits for."""


def breaks(after: bytes = b"", *, reset: bool = False) -> Callable[[Connection], None]:
    """Answer a request with these bytes, then close."""

    def strike(connection: Connection) -> None:
        connection.read_request()
        connection.send(after)
        if reset:
            connection.reset()

    return strike


def breaks_at_once(*, reset: bool) -> Callable[[Connection], None]:
    """Close a new connection."""
    return lambda connection: connection.reset() if reset else None


def is_silent(after: bytes = b"") -> Callable[[Connection], None]:
    """Answer a request with these bytes, then hang."""

    def strike(connection: Connection) -> None:
        connection.read_request()
        connection.send(after)
        connection.wait_for_end()

    return strike


def drips(data: bytes, *, every: float, after: bytes = b"") -> Callable[[Connection], None]:
    """Answer a request a byte at a time."""

    def strike(connection: Connection) -> None:
        connection.read_request()
        connection.send(after)
        connection.drip(data, every=every)

    return strike


def _stages(doing: str, make: Callable[[bytes], Callable[[Connection], None]], **options: Any) -> dict[str, Fault]:
    """Return the faults of a connection that stops at each stage of the answer."""
    stages = {
        "after the request": b"",
        "in the middle of the status line": ANSWER[:STATUS],
        "in the middle of the headers": ANSWER[:HEADERS],
        "after the headers": ANSWER[:BODY_AT],
        "after half of the body": ANSWER[:HALF],
        "between two chunks of the body": CHUNKED + HALF_CHUNK,
        "before the last, empty chunk": CHUNKED + CHUNK,
    }
    return {f"{doing} {stage}": Fault(strike=make(sent), **options) for stage, sent in stages.items()}


FAULTS: dict[str, Fault] = {
    "no server listens on the port: the connection is refused": Fault(at="port"),
    "the connection is closed as soon as it is opened": Fault(at="connection", strike=breaks_at_once(reset=False)),
    "the connection is reset as soon as it is opened": Fault(at="connection", strike=breaks_at_once(reset=True)),
    **_stages("the connection is closed", breaks),
    **_stages("the connection is reset", lambda sent: breaks(sent, reset=True)),
    "the connection is reset after the complete response": Fault(strike=breaks(ANSWER, reset=True)),
    **_stages("the server hangs", is_silent, timeout=SHORT, attempts=2),
    "the server sends one byte at a time, and completes the response within the timeout": Fault(
        strike=drips(ANSWER, every=0.0005)
    ),
    "the server sends one byte at a time, and does not complete the response within the timeout": Fault(
        strike=drips(GOOD, every=0.1), timeout=SHORT, attempts=2
    ),
    "the server sends the body one byte at a time, for longer than the timeout": Fault(
        strike=drips(BODY, every=0.1, after=ANSWER[:BODY_AT]), timeout=SHORT, attempts=2
    ),
    "the server closes an idle connection just when the client reuses it": Fault(strike=breaks(), keeps=True),
    "the server resets an idle connection just when the client reuses it": Fault(strike=breaks(reset=True), keeps=True),
    "a reused connection is closed in the middle of a response": Fault(strike=breaks(ANSWER[:HALF]), keeps=True),
    "the server sends each response twice on one connection": Fault(
        strike=breaks(ANSWER), keeps=True, after_first=ok(FIRST), times=0
    ),
    "the server sends a response without a request on an idle connection": Fault(
        strike=breaks(ANSWER), keeps=True, after_first=ok(listing("x", corporation_id="corp_2")), times=0
    ),
    "the response has `Connection: close`, but the connection stays open": Fault(
        strike=is_silent(ok(SECOND, headers=["Connection: close"]))
    ),
}
