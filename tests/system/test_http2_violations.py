"""HTTP/2 servers that violate the protocol."""

from collections.abc import Callable
from types import ModuleType

import httpx
import httpx2
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, PushPromiseFrame

from behaviours import BODY, GOOD
from commenda_customers import (
    APIConnectionError,
    RetryPolicy,
)
from http2_clients import Failures, MakeH2, head_of, ids_of
from raw_h2_server import (
    INTERNAL_ERROR,
    H2Connection,
    Request,
    answers,
    data_frames,
    page,
    speaks_h2,
)
from raw_server import RawServer
from waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def library(anyio_backend_name: str) -> ModuleType:
    """Return one library for each event loop: h2 notices violations, and both use it in the same way."""
    return httpx2 if anyio_backend_name == "trio" else httpx


@pytest.mark.parametrize("when", ["before", "within", "after"])
async def test_a_stream_that_is_reset(raw_server: RawServer, make_h2: MakeH2, when: str) -> None:
    """A stream may be reset with any code, at any time. After its end, that changes nothing."""
    codes = [*range(0xC), 0xFF]
    resets: list[int] = []

    def answer(connection: H2Connection, request: Request) -> None:
        is_good = len(connection.requests) % 2 == 0 and when != "after"
        if is_good or when != "before":
            frames = [head_of(connection, request), *data_frames(request.stream, BODY, size=10)]
            connection.send_frames(*(frames if is_good or when == "after" else frames[:2]))
        if is_good:
            return
        connection.reset(request.stream, codes[len(resets)])
        resets.append(request.stream)

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2(rate_limit=None) as api:
        for _ in codes:
            assert await ids_of(api) == ["a", "b"]
    await until(lambda: len(resets) == len(codes))
    assert raw_server.connections == 1


def _too_short(connection: H2Connection, request: Request) -> None:
    head = connection.head(request.stream, [(":status", "200"), ("content-length", "1000")])
    connection.send_frames(head, *data_frames(request.stream, BODY))


def _too_long(connection: H2Connection, request: Request) -> None:
    head = connection.head(request.stream, [(":status", "200"), ("content-length", "10")])
    connection.send_frames(head, *data_frames(request.stream, BODY, size=20))


def _data_first(connection: H2Connection, request: Request) -> None:
    connection.send_frames(*data_frames(request.stream, BODY))


def _broken_block(connection: H2Connection, request: Request) -> None:
    head = head_of(connection, request)
    head.data = b"\xff\xff\xff\xff"
    connection.send_frames(head)


def _pushes(connection: H2Connection, request: Request) -> None:
    block = connection.head(2, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]).data
    connection.send_frames(PushPromiseFrame(request.stream, 2, block, flags=["END_HEADERS"]))


def _huge_headers(connection: H2Connection, request: Request) -> None:
    head = connection.head(request.stream, [(":status", "200"), *[(f"x-{n}", "v" * 1000) for n in range(100)]])
    parts = [head.data[at : at + 16_000] for at in range(0, len(head.data), 16_000)]
    head.data = parts[0]
    head.flags.discard("END_HEADERS")
    rest = [ContinuationFrame(request.stream, part) for part in parts[1:]]
    rest[-1].flags.add("END_HEADERS")
    connection.send_frames(head, *rest)


def _data_on_an_unknown_stream(connection: H2Connection, _request: Request) -> None:
    connection.send_frames(DataFrame(99, b"x"))


def _http1(connection: H2Connection, _request: Request) -> None:
    connection.raw.send(GOOD)
    connection.raw.end_writing()


def _half_closed(connection: H2Connection, _request: Request) -> None:
    connection.raw.end_writing()


def _half_closed_in_body(connection: H2Connection, request: Request) -> None:
    connection.send_frames(head_of(connection, request), *data_frames(request.stream, BODY[:10], ends=False))
    connection.raw.end_writing()


def _internal_error(connection: H2Connection, request: Request) -> None:
    connection.go_away(request.stream, INTERNAL_ERROR)


def _frame_too_large(connection: H2Connection, request: Request) -> None:
    connection.send_frames(head_of(connection, request), DataFrame(request.stream, b"x" * 20_000))


def _bad_window(connection: H2Connection, _request: Request) -> None:
    connection.raw.send(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")


VIOLATIONS = [
    _too_short,
    _too_long,
    _data_first,
    _broken_block,
    _pushes,
    _huge_headers,
    _data_on_an_unknown_stream,
    _http1,
    _half_closed,
    _half_closed_in_body,
    _internal_error,
    _frame_too_large,
    _bad_window,
]


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_violation_is_retried(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures, violation: Callable[[H2Connection, Request], None]
) -> None:
    """A server that breaks the protocol costs an attempt, whatever h2 raises then; and the next one succeeds."""

    def answer(connection: H2Connection, request: Request) -> None:
        seen.append(request)
        if len(seen) == 1:
            violation(connection, request)
        else:
            connection.send_frames(head_of(connection, request), *data_frames(request.stream, BODY))

    seen: list[Request] = []
    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2(timeout=10) as api:
        assert await ids_of(api) == ["a", "b"]
    assert len(failures.errors) == 1
    assert isinstance(failures.errors[0], APIConnectionError)


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_violation_fails_one_corporation_of_many(
    raw_server: RawServer, make_h2: MakeH2, violation: Callable[[H2Connection, Request], None]
) -> None:
    """One corporation whose responses break the connection fails with our error, and all others are complete."""

    def answer(connection: H2Connection, request: Request) -> None:
        if request.params["corporation_id"] == "broken":
            violation(connection, request)
        else:
            connection.respond(request.stream, page(request))

    raw_server.behave(speaks_h2(answers(answer)))
    names = ["broken", *[f"corp_{number}" for number in range(8)]]
    retry = RetryPolicy(max_attempts=3, initial_wait=0.3)
    async with (
        make_h2(timeout=10, retry=retry) as api,
        api.stream(names, errors="collect", concurrency=2) as stream,
    ):
        ids = [customer.id async for customer in stream]
    assert list(stream.failures) == ["broken"]
    assert len(ids) == len(set(ids)) == 16
