"""HTTP/2: streams that are cut, connections that end, and servers that break the protocol."""

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest
import trustme
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, PingFrame, PushPromiseFrame

from behaviours import BODY, GOOD
from commenda_customers import (
    APIConnectionError,
    APITimeoutError,
    AsyncCustomersAPI,
    BadRequestError,
    CustomersError,
    Event,
    InvalidResponseError,
    RequestFailed,
    RetryPolicy,
    RetryScheduled,
)
from raw_h2_server import (
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    REFUSED_STREAM,
    H2Behaviour,
    H2Connection,
    Request,
    answers,
    answers_pages,
    data_frames,
    h2_context,
    page,
    speaks_h2,
)
from raw_server import TOKEN, RawServer
from waiting import until

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(max_attempts=4, initial_wait=0.01)
ONCE = RetryPolicy(max_attempts=1)


class Failures:
    """Keeps the failed attempts, and the waits after them."""

    def __init__(self) -> None:
        self.errors: list[CustomersError] = []
        self.waits: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestFailed):
            self.errors.append(event.error)
        if isinstance(event, RetryScheduled):
            self.waits.append(event.wait)


MakeH2 = Callable[..., AbstractAsyncContextManager[AsyncCustomersAPI]]


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def make_h2(library: ModuleType, raw_server: RawServer, failures: Failures) -> MakeH2:
    """Return a function that opens a client that speaks HTTP/2 without TLS."""

    @asynccontextmanager
    async def make(*, client: dict[str, Any] | None = None, **options: Any) -> AsyncGenerator[AsyncCustomersAPI]:
        options = {"base_url": raw_server.url, "retry": QUICK, "hooks": [failures], **options}
        async with library.AsyncClient(http1=False, http2=True, **(client or {})) as http_client:
            async with AsyncCustomersAPI(TOKEN, http_client=http_client, **options) as api:
                yield api

    return make


async def _ids(api: AsyncCustomersAPI, corporation_id: str = "corp_1") -> list[str]:
    return [customer.id async for customer in api.list(corporation_id)]


async def _many(api: AsyncCustomersAPI, corporations: int) -> int:
    """Read many corporations at once, and return how many different customers came."""
    async with api.stream([f"corp_{number}" for number in range(corporations)], concurrency=16) as stream:
        return len({customer.id async for customer in stream})


def _keep(kept: list[H2Connection], behaviour: H2Behaviour) -> H2Behaviour:
    def keeping(connection: H2Connection) -> None:
        kept.append(connection)
        behaviour(connection)

    return keeping


# --- the ordinary ---


async def test_all_requests_share_one_connection(raw_server: RawServer, make_h2: MakeH2, failures: Failures) -> None:
    """A stream of many corporations uses one connection, and no attempt fails."""
    raw_server.behave(speaks_h2(partial(answers_pages, pages=3)))
    async with make_h2() as api:
        assert await _many(api, 16) == 16 * 6
    assert raw_server.connections == 1
    assert failures.errors == []


@pytest.mark.parametrize("protocols", [["h2"], ["http/1.1"]])
async def test_tls_negotiates_the_protocol(library: ModuleType, raw_server: RawServer, protocols: list[str]) -> None:
    """With TLS the server chooses the protocol."""
    authority = trustme.CA()
    raw_server.use_tls(h2_context(authority, *protocols))
    is_h2 = protocols == ["h2"]
    raw_server.behave(speaks_h2(answers_pages) if is_h2 else raw_server.answers(GOOD))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    url = raw_server.url.replace("http://127.0.0.1", "https://localhost")
    async with (
        library.AsyncClient(http2=True, verify=context) as client,
        AsyncCustomersAPI(TOKEN, base_url=url, http_client=client) as api,
    ):
        assert await _ids(api) == (["corp_1-0", "corp_1-1"] if is_h2 else ["a", "b"])


@pytest.mark.parametrize("most", [1, 3])
async def test_the_server_allows_few_streams(raw_server: RawServer, make_h2: MakeH2, failures: Failures, most: int) -> None:
    """Requests wait for a free stream, also if the server allows fewer than are wanted. No attempt fails."""
    kept: list[H2Connection] = []
    raw_server.behave(speaks_h2(_keep(kept, partial(answers_pages, pages=2)), MAX_CONCURRENT_STREAMS=most))
    async with make_h2() as api:
        assert await _many(api, 16) == 16 * 4
    assert failures.errors == []
    assert len(kept[0].requests) == 32


async def test_the_server_changes_its_settings(raw_server: RawServer, make_h2: MakeH2, failures: Failures) -> None:
    """A server may allow more streams, and fewer, and other sizes of headers, at any time."""

    def answer(connection: H2Connection, request: Request) -> None:
        number = len(connection.requests)
        connection.start(MAX_CONCURRENT_STREAMS=100 - number, HEADER_TABLE_SIZE=4096 * (number % 2))
        connection.respond(request.stream, page(request, pages=10))

    raw_server.behave(speaks_h2(answers(answer), MAX_CONCURRENT_STREAMS=100))
    async with make_h2() as api:
        assert len(await _ids(api)) == 20
    assert failures.errors == []


def _with_trailers(connection: H2Connection, request: Request) -> list[Frame]:
    body = data_frames(request.stream, b"".join(_parts(request)), ends=False)
    return [_head(connection, request), *body, connection.head(request.stream, [("x-checksum", "1")], ends=True)]


def _parts(request: Request) -> list[bytes]:
    body = DataFrame(request.stream, BODY)
    return [body.data[:10], body.data[10:]]


def _head(connection: H2Connection, request: Request, **frame: Any) -> Frame:
    return connection.head(request.stream, [(":status", "200")], **frame)


def _padded(connection: H2Connection, request: Request) -> list[Frame]:
    body = DataFrame(request.stream, BODY, flags=["PADDED", "END_STREAM"], pad_length=200)
    head = _head(connection, request)
    head.flags.add("PADDED")
    head.pad_length = 100
    return [head, body]


def _continued(connection: H2Connection, request: Request) -> list[Frame]:
    head = connection.head(request.stream, [(":status", "200"), *[(f"x-{n}", "v" * 100) for n in range(50)]])
    block, head.data = head.data, head.data[:100]
    head.flags.discard("END_HEADERS")
    middle = ContinuationFrame(request.stream, block[100:200])
    end = ContinuationFrame(request.stream, block[200:], flags=["END_HEADERS"])
    return [head, middle, end, *data_frames(request.stream, BODY)]


def _informational(connection: H2Connection, request: Request) -> list[Frame]:
    hints = [connection.head(request.stream, [(":status", status)]) for status in ("103", "103")]
    return [*hints, _head(connection, request), *data_frames(request.stream, BODY)]


def _empty_data(connection: H2Connection, request: Request) -> list[Frame]:
    return [_head(connection, request), *[DataFrame(request.stream, b"")] * 100, *data_frames(request.stream, BODY, size=1)]


def _pings(connection: H2Connection, request: Request) -> list[Frame]:
    return [*[PingFrame(opaque_data=b"12345678")] * 1000, _head(connection, request), *data_frames(request.stream, BODY)]


@pytest.mark.parametrize("answer", [_with_trailers, _padded, _continued, _informational, _empty_data, _pings])
async def test_unusual_but_legal(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures, answer: Callable[..., list[Frame]]
) -> None:
    """Frames that few servers send, but may."""
    raw_server.behave(speaks_h2(answers(lambda connection, request: connection.send_frames(*answer(connection, request)))))
    async with make_h2() as api:
        assert await _ids(api) == ["a", "b"]
    assert failures.errors == []


# --- streams that are cut ---


async def test_a_cut_request_resets_its_stream(raw_server: RawServer, make_h2: MakeH2) -> None:
    """Whoever cancels more requests than the server allows streams can still send the next one, on the same connection."""
    kept: list[H2Connection] = []

    def behaviour(connection: H2Connection) -> None:
        connection.read_until(lambda: len(connection.resets) == 20)
        answers(lambda _, request: connection.respond(request.stream, page(request)))(connection)

    def hang_then_answer(connection: H2Connection) -> None:
        kept.append(connection)
        while connection.read_frame():
            for request in connection.requests[20:]:
                connection.respond(request.stream, page(request))
            del connection.requests[20:]

    raw_server.behave(speaks_h2(hang_then_answer, MAX_CONCURRENT_STREAMS=5))
    async with make_h2() as api:
        for number in range(1, 21):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_ids, api)
                await until(lambda number=number: bool(kept) and len(kept[0].requests) >= number)
                tasks.cancel_scope.cancel()
        await until(lambda: len(kept[0].resets) == 20)
        assert await _ids(api) == ["corp_1-0", "corp_1-1"]
    assert set(kept[0].resets.values()) == {0x8}
    assert raw_server.connections == 1


async def test_a_timeout_resets_its_stream(raw_server: RawServer, make_h2: MakeH2) -> None:
    """An attempt that exceeds its timeout, before its response or within, leaves no stream open."""
    kept: list[H2Connection] = []

    def answer(connection: H2Connection, request: Request) -> None:
        if len(connection.requests) == 2:
            connection.send_frames(_head(connection, request), *data_frames(request.stream, b"{", ends=False))
        if len(connection.requests) > 2:
            connection.respond(request.stream, page(request))

    raw_server.behave(speaks_h2(_keep(kept, answers(answer))))
    async with make_h2(timeout=0.2) as api:
        assert await _ids(api) == ["corp_1-0", "corp_1-1"]
        await until(lambda: sorted(kept[0].resets) == [1, 3])
    assert raw_server.connections == 1


@pytest.mark.parametrize("status", ["200", "400"])
async def test_unread_bodies_do_not_fill_the_window(raw_server: RawServer, make_h2: MakeH2, status: str) -> None:
    """
    A body that is too large, or that of an error, is left unread, and takes no window from the others.

    The window of a connection is 16 MiB. Each of these bodies is as large as the server can send before it is reset.
    """
    sent: list[int] = []
    endless = b" " * 20 * 1024 * 1024

    def answer(connection: H2Connection, request: Request) -> None:
        if request.params["corporation_id"] == "corp_1":
            connection.respond(request.stream, page(request))
            return
        connection.send_frames(connection.head(request.stream, [(":status", status)]))
        sent.append(connection.window)
        connection.send_data(request.stream, endless)

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2(max_response_bytes=100_000, retry=ONCE, timeout=20) as api:
        for _ in range(5):
            with pytest.raises(InvalidResponseError if status == "200" else BadRequestError):
                await _ids(api, "endless")
            assert await _ids(api) == ["corp_1-0", "corp_1-1"]
    assert raw_server.connections == 1
    assert min(sent) > 1024 * 1024


async def test_an_encoding_that_was_not_asked_for_leaves_no_stream(raw_server: RawServer, make_h2: MakeH2) -> None:
    """A body that is not even begun is reset."""
    kept: list[H2Connection] = []

    def answer(connection: H2Connection, request: Request) -> None:
        head = connection.head(request.stream, [(":status", "200"), ("content-encoding", "br")])
        connection.send_frames(head, *data_frames(request.stream, b"x" * 1000, ends=False))

    raw_server.behave(speaks_h2(_keep(kept, answers(answer))))
    async with make_h2(retry=ONCE) as api:
        with pytest.raises(InvalidResponseError):
            await _ids(api)
        await until(lambda: list(kept[0].resets) == [1])


# --- connections that end ---


def _goes_away_after(requests: int, code: int = NO_ERROR, *, processed: bool = True) -> H2Behaviour:
    def behaviour(connection: H2Connection) -> None:
        while request := connection.read_request():
            if len(connection.requests) == requests:
                connection.go_away(request.stream if processed else request.stream - 2, code)
            if processed or len(connection.requests) < requests:
                connection.respond(request.stream, page(request, pages=10))
            if len(connection.requests) == requests:
                return

    return behaviour


@pytest.mark.parametrize("processed", [True, False])
async def test_a_connection_that_the_server_ends_costs_no_attempt(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures, processed: bool
) -> None:
    """A server may end each connection after some requests. What was in flight is sent again at once."""
    raw_server.behave(speaks_h2(_goes_away_after(5, processed=processed)))
    async with make_h2(retry=ONCE) as api:
        assert len(await _ids(api)) == 20
    assert all(wait == 0 for wait in failures.waits)
    assert all(isinstance(error, APIConnectionError) for error in failures.errors)


async def test_many_in_flight_when_the_server_ends_the_connection(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures
) -> None:
    """All requests that were in flight are sent again at once, and every customer comes once."""
    raw_server.behave(speaks_h2(_goes_away_after(40)))
    async with make_h2() as api:
        assert await _many(api, 16) == 16 * 20
    assert sum(failures.waits) < 1


async def test_a_connection_that_dies_with_many_in_flight(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures
) -> None:
    """If a worker is killed, all that was in flight is sent again."""

    def dies(connection: H2Connection) -> None:
        connection.read_until(lambda: len(connection.requests) == 16)
        connection.raw.reset()

    def works_first(connection: H2Connection) -> None:
        request = connection.read_request()
        assert request is not None
        connection.respond(request.stream, page(request))
        dies(connection)

    raw_server.behave(speaks_h2(works_first), speaks_h2(answers_pages))
    async with make_h2() as api:
        await _ids(api)
        assert await _many(api, 40) == 80
    assert len(failures.errors) == 15
    assert all(wait == 0 for wait in failures.waits)


async def test_a_server_that_refuses_a_stream_gets_it_again_at_once(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures
) -> None:
    """REFUSED_STREAM means that the request was not processed: it is sent again at once, on the same connection."""

    def answer(connection: H2Connection, request: Request) -> None:
        if len(connection.requests) % 2:
            connection.reset(request.stream, REFUSED_STREAM)
        else:
            connection.respond(request.stream, page(request, pages=3))

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2(retry=ONCE) as api:
        assert len(await _ids(api)) == 6
    assert raw_server.connections == 1
    assert failures.waits == [0, 0, 0]
    assert all(error.is_unprocessed for error in failures.errors if isinstance(error, APIConnectionError))


@pytest.mark.parametrize("how", ["stream", "connection"])
async def test_a_server_that_always_refuses_is_not_asked_in_a_loop(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures, how: str
) -> None:
    """After three immediate resends, refusals count as attempts, with a wait between them."""

    def answer(connection: H2Connection, request: Request) -> None:
        if how == "stream":
            connection.reset(request.stream, REFUSED_STREAM)
        else:
            connection.go_away(0)

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2(rate_limit=None, retry=RetryPolicy(max_attempts=3, initial_wait=0.05)) as api:
        with pytest.raises(APIConnectionError, match="after 6 attempts"):
            await _ids(api)
    assert failures.waits[:3] == [0, 0, 0]
    assert all(wait > 0 for wait in failures.waits[3:])


@pytest.mark.parametrize("how", ["stream", "connection"])
async def test_calm_is_not_answered_at_once(raw_server: RawServer, make_h2: MakeH2, failures: Failures, how: str) -> None:
    """ENHANCE_YOUR_CALM may be a limit: the next attempt waits, whether the server processed the request or not."""

    def answer(connection: H2Connection, request: Request) -> None:
        if len(connection.requests) == 2 and raw_server.connections == 1:
            if how == "stream":
                connection.reset(request.stream, ENHANCE_YOUR_CALM)
            else:
                connection.go_away(1, ENHANCE_YOUR_CALM)
        else:
            connection.respond(request.stream, page(request, pages=2))

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2(rate_limit=None) as api:
        assert len(await _ids(api)) == 4
    (error,) = failures.errors
    assert isinstance(error, APIConnectionError)
    assert error.is_rejection
    assert failures.waits[0] > 0


@pytest.mark.parametrize("how", ["stream", "connection"])
@pytest.mark.parametrize("code", [0xC, 0xD])
async def test_a_server_that_wants_no_http2_is_final(raw_server: RawServer, make_h2: MakeH2, how: str, code: int) -> None:
    """INADEQUATE_SECURITY and HTTP_1_1_REQUIRED would come the next time, too."""

    def answer(connection: H2Connection, request: Request) -> None:
        if how == "stream":
            connection.reset(request.stream, code)
        else:
            connection.go_away(request.stream, code)

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2() as api:
        with pytest.raises(APIConnectionError, match="after 1 attempt") as caught:
            await _ids(api)
    assert not caught.value.transient


# --- servers that break the protocol ---


@pytest.mark.parametrize("code", [code for code in range(0xC)] + [0xFF])
@pytest.mark.parametrize("when", ["before", "within", "after"])
async def test_a_stream_that_is_reset(raw_server: RawServer, make_h2: MakeH2, when: str, code: int) -> None:
    """A stream may be reset with any code, at any time. After its end, that changes nothing."""

    def answer(connection: H2Connection, request: Request) -> None:
        frames = [_head(connection, request), *data_frames(request.stream, BODY, size=10)]
        if len(connection.requests) == 1:
            frames = {"before": [], "within": frames[:2], "after": frames}[when]
        connection.send_frames(*frames)
        if len(connection.requests) == 1:
            connection.reset(request.stream, code)

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2() as api:
        assert await _ids(api) == ["a", "b"]
        assert await _ids(api) == ["a", "b"]


def _too_short(connection: H2Connection, request: Request) -> None:
    head = connection.head(request.stream, [(":status", "200"), ("content-length", "1000")])
    connection.send_frames(head, *data_frames(request.stream, BODY))


def _too_long(connection: H2Connection, request: Request) -> None:
    head = connection.head(request.stream, [(":status", "200"), ("content-length", "10")])
    connection.send_frames(head, *data_frames(request.stream, BODY, size=20))


def _data_first(connection: H2Connection, request: Request) -> None:
    connection.send_frames(*data_frames(request.stream, BODY))


def _no_status(connection: H2Connection, request: Request) -> None:
    connection.send_frames(connection.head(request.stream, [("x-a", "b")]), *data_frames(request.stream, BODY))


def _broken_block(connection: H2Connection, request: Request) -> None:
    head = _head(connection, request)
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


def _half_closed(connection: H2Connection, _request: Request) -> None:
    connection.raw.end_writing()


def _half_closed_in_body(connection: H2Connection, request: Request) -> None:
    connection.send_frames(_head(connection, request), *data_frames(request.stream, BODY[:10], ends=False))
    connection.raw.end_writing()


def _internal_error(connection: H2Connection, request: Request) -> None:
    connection.go_away(request.stream, INTERNAL_ERROR)


def _frame_too_large(connection: H2Connection, request: Request) -> None:
    connection.send_frames(_head(connection, request), DataFrame(request.stream, b"x" * 20_000))


def _bad_window(connection: H2Connection, _request: Request) -> None:
    connection.raw.send(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")


VIOLATIONS = [
    _too_short,
    _too_long,
    _data_first,
    _no_status,
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
            connection.send_frames(_head(connection, request), *data_frames(request.stream, BODY))

    seen: list[Request] = []
    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2(timeout=10) as api:
        assert await _ids(api) == ["a", "b"]
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
    async with make_h2(timeout=10, retry=RetryPolicy(max_attempts=3, initial_wait=0.3)) as api:
        async with api.stream(names, errors="collect", concurrency=2) as stream:
            ids = [customer.id async for customer in stream]
        failed = [failure.corporation_id for failure in stream.failures]
    assert failed == ["broken"]
    assert len(ids) == len(set(ids)) == 16


# --- what is the user's fault ---


async def test_a_header_that_cannot_be_sent_is_final(raw_server: RawServer, make_h2: MakeH2) -> None:
    """A header of the user's client that HTTP/2 does not allow is an error at once."""
    raw_server.behave(speaks_h2(answers_pages))
    async with make_h2(client={"headers": {"x-a": " leading space"}}) as api:
        with pytest.raises(APIConnectionError, match="the request could not be sent") as caught:
            await _ids(api)
    assert not caught.value.transient
    assert caught.value.attempts == 1


async def test_a_timeout_without_response_is_a_timeout(raw_server: RawServer, make_h2: MakeH2) -> None:
    """A server that takes requests and never answers fails them by their timeout."""
    raw_server.behave(speaks_h2(answers(lambda _connection, _request: None)))
    async with make_h2(timeout=0.1, retry=ONCE) as api:
        with pytest.raises(APITimeoutError):
            await _ids(api)
