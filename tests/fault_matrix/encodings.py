"""Faults of `Content-Encoding`, and of compressed bodies."""

import gzip
import json
import zlib
from typing import Any

from behaviours import sends
from fault_matrix.runs import SECOND, Fault
from raw_server import ok

JSON = json.dumps(SECOND).encode()
GZIP = gzip.compress(JSON)
EMPTY_MEMBER = gzip.compress(b"")
SMALL: dict[str, Any] = {"options": {"max_response_bytes": 100_000}}


def encoded(encoding: str, payload: bytes, **fault: Any) -> Fault:
    """Return the fault of a response with this `Content-Encoding`, and these bytes."""
    return Fault(strike=sends(ok(None, body=payload, headers=[f"Content-Encoding: {encoding}"])), **fault)


FAULTS: dict[str, Fault] = {
    # --- what is read ---
    **{f"`Content-Encoding: {name}`, and a gzip body": encoded(name, GZIP) for name in ("gzip", "GZIP", "x-gzip")},
    **{
        f"`Content-Encoding: {name}`, and a plain body": encoded(name, JSON)
        for name in ("identity", "none", "utf-8", "aws-chunked")
    },
    "`Content-Encoding` is empty": encoded("", JSON),
    "`Content-Encoding: identity, gzip`": encoded("identity, gzip", GZIP),
    "`Content-Encoding: gzip, aws-chunked`": encoded("gzip, aws-chunked", GZIP),
    "`Content-Encoding: gzip`, and a body that is plain JSON": encoded("gzip", JSON),
    "a gzip body has two members": encoded("gzip", gzip.compress(JSON[:50]) + gzip.compress(JSON[50:])),
    "a gzip body has empty members": encoded("gzip", EMPTY_MEMBER * 3 + GZIP + EMPTY_MEMBER * 3),
    "padding follows a gzip body": encoded("gzip", GZIP + bytes(100)),
    # --- what is not ---
    "a gzip body is truncated": encoded("gzip", GZIP[:-12]),
    "a gzip body is damaged": encoded("gzip", GZIP[:30] + bytes(20) + GZIP[50:]),
    "the checksum of a gzip body is wrong": encoded("gzip", GZIP[:-8] + bytes(8)),
    "the second member of a gzip body is damaged": encoded("gzip", GZIP + b"\x1f\x8bnonsense"),
    "`Content-Encoding: gzip`, and a body that is not gzip": encoded("gzip", b"\x1f\x8bnonsense"),
    "`Content-Encoding: gzip`, and a body in zlib format": encoded("gzip", zlib.compress(JSON)),
    "a gzip body comes without `Content-Encoding`": Fault(strike=sends(ok(None, body=GZIP))),
    "`Content-Encoding: gzip`, and a body that was compressed twice": encoded("gzip", gzip.compress(GZIP)),
    "`Content-Encoding: gzip`, and an empty body": encoded("gzip", b""),
    "a gzip body grows beyond `max_response_bytes`": encoded("gzip", gzip.compress(bytes(10_000_000)), **SMALL),
    "a gzip body has 100,000 empty members": encoded("gzip", EMPTY_MEMBER * 100_000),
    "`Content-Encoding: gzip, gzip`": encoded("gzip, gzip", gzip.compress(gzip.compress(bytes(1 << 20)))),
    **{
        f"`Content-Encoding: {name}`": encoded(name, b"\x0b\x02\x80{}\x03")
        for name in ("br", "zstd", "deflate", "compress", "gzip, br", "unknown")
    },
}
