"""Inputs that Hypothesis makes: what a server sends, what no server would send, and stored inputs that are damaged."""

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from fuzzing import format_body, stored

Bytes = st.SearchStrategy[bytes]

TOKENS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\\",
        b"\\u",
        b"\\ud83d",
        b"\\ude00",
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
    ),
    *(b"0", b"-1", b"1e400", b"9" * 5000, b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b" ", b"\x1f\x8b"),
)


def damaged(inputs: Bytes, tokens: Sequence[bytes] = TOKENS) -> Bytes:
    """Return inputs in which a few bytes are missing or replaced."""
    edit = st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(tokens) | st.binary(max_size=3))

    def apply(body: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for where, removed, added in edits:
            at = int(where * len(body))
            body = body[:at] + added + body[at + removed :]
        return body

    return st.builds(apply, inputs, st.lists(edit, max_size=4))


def any_of(target: str, made: Bytes) -> Bytes:
    """Return stored inputs and made ones, as they are and damaged."""
    known = st.sampled_from([path.read_bytes() for path in stored(target)])
    return st.one_of(made, damaged(made), damaged(known))


# --- JSON ----------------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["", "a", "b", "corp_1", "corp_2", "1", "2024-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "é\n"])
TEXTS = WORDS | st.text(max_size=8)
NUMBERS = st.integers(-3, 3) | st.integers() | st.sampled_from([10**11, 10**18, 10**400, "a long number"]) | st.floats()
LONG_NUMBER = b'"a long number"'
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
PARTS = dict.fromkeys(("line1", "address_line_1", "city", "total_certificates", "exempted_states", "x"), VALUES)
FIELDS = ("name", "email", "created_at", "external_id", "source_platform", "business_identification_number", "undocumented")
ROWS = st.one_of(
    st.fixed_dictionaries(
        {"id": TEXTS, "corporation_id": st.just("corp_1")},
        optional={
            **dict.fromkeys(FIELDS, VALUES),
            **dict.fromkeys(("shipping_address", "exemption_metadata"), st.fixed_dictionaries({}, optional=PARTS) | VALUES),
        },
    ),
    st.fixed_dictionaries({}, optional={"id": VALUES, "corporation_id": VALUES}),
    VALUES,
)
LISTINGS = st.fixed_dictionaries(
    {},
    optional={
        "customers": st.lists(ROWS, max_size=4) | st.lists(ROWS, max_size=4) | VALUES,
        "total_customers": VALUES | st.integers(0, 9),
        "cursor": TEXTS | VALUES,
        "message": VALUES,
    },
)


def as_json(value: Any, ascii_only: bool) -> bytes:
    """Write JSON. Python refuses to write a number of thousands of digits."""
    return json.dumps(value, ensure_ascii=ascii_only).encode().replace(LONG_NUMBER, b"9" * 5000)


def nested(before: bytes, depth: int, brackets: tuple[bytes, bytes]) -> bytes:
    """Return JSON that is nested as deeply."""
    opening, closing = brackets
    return before + opening * depth + b"1" + closing * depth + before.count(b"[") * b"]" + before.count(b"{") * b"}"


DEEP = st.builds(
    nested,
    st.sampled_from(
        [
            b"",
            b'{"x":',
            b'{"customers":',
            b'{"data":{"customers":[',
            b'{"customers":[{"id":"a","corporation_id":"corp_1","x":',
            b'{"customers":[{"id":"a","corporation_id":"corp_1","name":',
        ]
    ),
    st.integers(1, 1200) | st.just(100_000),
    st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]),
)
PAGES = st.one_of(
    st.builds(as_json, st.one_of(LISTINGS, st.fixed_dictionaries({"data": LISTINGS}), VALUES), st.booleans()),
    DEEP,
    st.binary(max_size=30),
)

POSITIONS = st.fixed_dictionaries(
    {"corporation_id": st.sampled_from(["a", "b", "c"]) | VALUES},
    optional={
        **{name: st.lists(TEXTS, max_size=3) | VALUES for name in ("yielded", "invalid")},
        **dict.fromkeys(("customers", "invalid_customers", "limit"), st.integers(0, 200) | VALUES),
        **dict.fromkeys(("cursor", "loop_cursor"), TEXTS | VALUES),
    },
)
KEYS = st.lists(st.sampled_from(["AbCdEfGhIjKl", "abcdefghijk-", "short", "abcdefghijk\n"]), max_size=3).map("".join)
CHECKPOINTS = st.builds(
    as_json,
    st.fixed_dictionaries(
        {"query": TEXTS},
        optional={
            "version": st.just(1) | VALUES,
            "positions": st.lists(POSITIONS, max_size=3) | VALUES,
            "finished": KEYS | VALUES,
            "customers": st.integers(-1, 5) | VALUES,
            "invalid_customers": st.integers(-1, 5) | VALUES,
            "x": VALUES,
        },
    ),
    st.booleans(),
)

# --- headers -------------------------------------------------------------------------------------------------------------

NAMES = (
    *("Retry-After", "Retry-After-Ms", "RateLimit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy", "Date"),
    *("X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset"),
    *("X-Request-Id", "Request-Id", "X-Correlation-Id", "Content-Encoding", "Content-Type", "Location"),
)
PIECES = (
    *(
        "0",
        "5",
        "-1",
        "1.5",
        ".",
        "9" * 16,
        "9" * 400,
        "1790000060",
        "inf",
        "nan",
        "1e5",
        "٣",
        ",",
        ", ",
        ";",
        "=",
        " ",
        "\t",
    ),
    *(
        "Wed, 21 Oct 2026 07:28:00 GMT",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Wed, 00 Foo 2026 25:61:61 +9999",
        "Sunday, 06-Nov-94",
    ),
    *(
        '"day"',
        "r=",
        "t=",
        "remaining=",
        "reset=",
        "limit=",
        "gzip",
        "br",
        "identity",
        "x-gzip",
        "\x7f",
        "\x00",
        "é",
        "abc-123",
    ),
)
HEADERS = st.builds(
    lambda status, lines: "\n".join([status, *lines]).encode("latin-1", errors="replace"),
    st.sampled_from(["200", "302", "404", "429", "429", "500", "503", "503", "999"]),
    st.lists(
        st.builds(
            "{}: {}".format,
            st.sampled_from(NAMES),
            st.lists(st.sampled_from(PIECES) | st.text(st.characters(max_codepoint=255), max_size=4), max_size=5).map(
                "".join
            ),
        ),
        max_size=5,
    ),
)

# --- bodies --------------------------------------------------------------------------------------------------------------


def cut(raw: bytes, cuts: list[float]) -> list[bytes]:
    """Cut bytes into chunks."""
    ends = sorted(int(part * len(raw)) for part in cuts)
    return [raw[begin:end] for begin, end in zip([0, *ends], [*ends, len(raw)], strict=True)]


MEMBERS = st.binary(max_size=40).map(lambda body: gzip.compress(body, mtime=0))
RAW = st.lists(st.one_of(MEMBERS, MEMBERS, st.just(bytes(7)), st.just(b"\x1f"), st.binary(max_size=9)), max_size=4).map(
    b"".join
)
BODIES = st.builds(
    lambda encoding, limit, raw, cuts: format_body(encoding, limit, cut(raw, cuts)),
    st.sampled_from(["gzip", "gzip", "gzip", "", "identity", "X-GZIP", "br", "gzip, gzip", "identity, gzip"]),
    st.integers(1, 100) | st.just(10**6),
    damaged(RAW),
    st.lists(st.floats(0, 1), max_size=4),
)

INPUTS: Mapping[str, Bytes] = {
    "page": any_of("page", PAGES),
    "headers": any_of("headers", HEADERS),
    "body": BODIES,
    "checkpoint": any_of("checkpoint", CHECKPOINTS),
}
"""By target."""
