"""Faults of a response's head, and of how it says where its body ends."""

from behaviours import BODY, HEAD
from fault_matrix.connection import CHUNKED, SHORT, breaks, is_silent
from fault_matrix.runs import SECOND, Fault
from raw_server import Connection, ok

ANSWER = ok(SECOND)
PLAIN = HEAD + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
WITH = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = f"Content-Length: {len(ANSWER) - ANSWER.index(b'{')}\r\n"
JSON = ANSWER[ANSWER.index(b"{") :]


def answers(headers: str, body: bytes = JSON, *, status: str = "HTTP/1.1 200 OK") -> Fault:
    """Return the fault of an answer with these lines, after which the connection is closed."""
    return Fault(strike=breaks(f"{status}\r\n{headers}\r\n".encode("latin-1") + body))


def chunked(*chunks: bytes, headers: str = "") -> Fault:
    """Return the fault of an answer in these chunks, bytes as they are."""
    return answers(f"Transfer-Encoding: chunked\r\n{headers}", b"".join(chunks))


def _endless(connection: Connection) -> None:
    connection.read_request()
    connection.send(CHUNKED)
    for _ in range(300):
        connection.send(b"2710\r\n" + bytes(10_000) + b"\r\n")


def _noise(*heads: str) -> Fault:
    """Return the fault of an answer that other heads precede."""
    return Fault(strike=breaks("".join(f"{head}\r\n\r\n" for head in heads).encode() + ANSWER))


def _interim(connection: Connection) -> None:
    connection.read_request()
    connection.drip(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000, every=0.005)


GOOD_CHUNK = f"{len(JSON):x}\r\n".encode() + JSON + b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"

FAULTS: dict[str, Fault] = {
    # --- before the answer ---
    "`100 Continue` comes before the response": _noise("HTTP/1.1 100 Continue"),
    "`103 Early Hints` comes before the response": _noise("HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload"),
    "a thousand interim responses come before the response": _noise(*["HTTP/1.1 102 Processing"] * 1000),
    "interim responses never end": Fault(strike=_interim, timeout=SHORT, attempts=2),
    "`101 Switching Protocols` comes, without a request for it": answers(
        "Upgrade: websocket\r\nConnection: upgrade\r\n", b"", status="HTTP/1.1 101 Switching Protocols"
    ),
    # --- the head ---
    "the response is not HTTP, but the greeting of another protocol": Fault(strike=breaks(b"SSH-2.0-OpenSSH_9.6\r\n")),
    "the response is HTTP/1.0": answers(LENGTH, status="HTTP/1.0 200 OK"),
    "the response is HTTP/2, but the request was HTTP/1.1": Fault(strike=breaks(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))),
    "the response has an HTTP version that does not exist": answers(LENGTH, status="HTTP/7.3 200 OK"),
    "the status has two digits, or four": answers(LENGTH, status="HTTP/1.1 20 OK"),
    "the status is smaller than 100": answers(LENGTH, status="HTTP/1.1 099 Low"),
    "there is no reason phrase": answers(LENGTH, status="HTTP/1.1 200"),
    "lines end without a carriage return": Fault(strike=breaks(ANSWER.replace(b"\r\n", b"\n"))),
    "an empty line comes before the status line": Fault(strike=breaks(b"\r\n" + ANSWER)),
    "a header is 32 KiB long": answers(f"X: {'x' * 32768}\r\n{LENGTH}"),
    "a header is a megabyte long": answers(f"X: {'x' * 1_000_000}\r\n{LENGTH}"),
    "there are 5,000 headers": answers("X: y\r\n" * 5000 + LENGTH),
    "there are 50,000 headers": answers("X: y\r\n" * 50_000 + LENGTH),
    "a header has non-ASCII bytes": answers(f"X: caf\xe9\r\n{LENGTH}"),
    "a header has a NUL byte": answers(f"X: a\x00b\r\n{LENGTH}"),
    "a header has no colon": answers(f"nonsense\r\n{LENGTH}"),
    "a header has a space before its colon": answers(f"X : y\r\n{LENGTH}"),
    "a header continues on the next line": answers(f"X: y\r\n  z\r\n{LENGTH}"),
    "a header has no name": answers(f": y\r\n{LENGTH}"),
    # --- the length ---
    "`Content-Length` is smaller than the body": answers("Content-Length: 50\r\n"),
    "`Content-Length` is larger than the body": answers("Content-Length: 1000\r\n"),
    "`Content-Length` comes twice, with the same number": answers(LENGTH * 2),
    "`Content-Length` comes twice, with two numbers": answers(f"Content-Length: 5\r\n{LENGTH}"),
    "`Content-Length` is negative": answers("Content-Length: -5\r\n"),
    "`Content-Length` is not a number": answers("Content-Length: many\r\n"),
    "`Content-Length` has thirty digits": answers(f"Content-Length: {'9' * 30}\r\n"),
    "`Content-Length` comes with a chunked body": chunked(GOOD_CHUNK, LAST_CHUNK, headers="Content-Length: 5\r\n"),
    "the response has no length, and the connection is closed after the body": answers(""),
    "the response has no length, and the connection is closed after half of the body": answers("", JSON[:80]),
    "the response has no length, and the connection stays open": Fault(
        strike=is_silent(f"{WITH}\r\n".encode() + JSON), timeout=SHORT, attempts=2
    ),
    "the body is larger than `max_response_bytes`": Fault(strike=_endless, options={"max_response_bytes": 100_000}),
    # --- chunks ---
    "a chunk is truncated, and the connection is closed": chunked(GOOD_CHUNK[:40]),
    "the size of a chunk is not a number": chunked(b"zz\r\n", JSON),
    "the size of a chunk is negative": chunked(b"-5\r\n", JSON),
    "the size of a chunk has thirty digits": chunked(b"f" * 30 + b"\r\n", JSON),
    "a chunk is longer than its size": chunked(b"5\r\n", JSON),
    "a chunk has an extension": chunked(GOOD_CHUNK.replace(b"\r\n", b";name=value\r\n", 1), LAST_CHUNK),
    "trailers follow the last chunk": chunked(GOOD_CHUNK, b"0\r\nX-Checksum: 1\r\n\r\n"),
    "the transfer encoding is not `chunked`": answers("Transfer-Encoding: gzip\r\n"),
}
