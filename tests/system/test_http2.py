"""HTTP/2: valid behaviour of servers, and requests that are cancelled."""

import gc
import ssl
from collections.abc import Callable
from functools import partial
from types import ModuleType

import anyio
import anyio.lowlevel
import pytest
import trustme
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, PingFrame

from behaviours import BODY, GOOD
from commenda_customers import (
    APIConnectionError,
    APITimeoutError,
    AsyncCustomersAPI,
    BadRequestError,
    InvalidResponseError,
)
from http2_clients import ONCE, Failures, MakeH2, head_of, ids_of, keep, read_many
from raw_h2_server import (
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


async def test_all_requests_share_one_connection(raw_server: RawServer, make_h2: MakeH2, failures: Failures) -> None:
    """A stream of many corporations uses one connection, and no attempt fails."""
    raw_server.behave(speaks_h2(partial(answers_pages, pages=3)))
    async with make_h2() as api:
        assert await read_many(api, 16) == 16 * 6
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
        assert await ids_of(api) == (["corp_1-0", "corp_1-1"] if is_h2 else ["a", "b"])


@pytest.mark.parametrize("most", [1, 3])
async def test_the_server_allows_few_streams(raw_server: RawServer, make_h2: MakeH2, failures: Failures, most: int) -> None:
    """Requests wait for a free stream, also if the server allows fewer than are wanted. No attempt fails."""
    kept: list[H2Connection] = []
    raw_server.behave(speaks_h2(keep(kept, partial(answers_pages, pages=2)), MAX_CONCURRENT_STREAMS=most))
    async with make_h2() as api:
        assert await read_many(api, 16) == 16 * 4
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
        assert len(await ids_of(api)) == 20
    assert failures.errors == []


def _with_trailers(connection: H2Connection, request: Request) -> list[Frame]:
    body = data_frames(request.stream, b"".join(_parts(request)), ends=False)
    return [head_of(connection, request), *body, connection.head(request.stream, [("x-checksum", "1")], ends=True)]


def _parts(request: Request) -> list[bytes]:
    body = DataFrame(request.stream, BODY)
    return [body.data[:10], body.data[10:]]


def _padded(connection: H2Connection, request: Request) -> list[Frame]:
    body = DataFrame(request.stream, BODY, flags=["PADDED", "END_STREAM"], pad_length=200)
    head = head_of(connection, request)
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
    return [*hints, head_of(connection, request), *data_frames(request.stream, BODY)]


def _empty_data(connection: H2Connection, request: Request) -> list[Frame]:
    return [
        head_of(connection, request),
        *[DataFrame(request.stream, b"")] * 100,
        *data_frames(request.stream, BODY, size=1),
    ]


def _pings(connection: H2Connection, request: Request) -> list[Frame]:
    return [*[PingFrame(opaque_data=b"12345678")] * 1000, head_of(connection, request), *data_frames(request.stream, BODY)]


@pytest.mark.parametrize("answer", [_with_trailers, _padded, _continued, _informational, _empty_data, _pings])
async def test_unusual_but_legal(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures, answer: Callable[..., list[Frame]]
) -> None:
    """Frames that few servers send, but may."""
    raw_server.behave(speaks_h2(answers(lambda connection, request: connection.send_frames(*answer(connection, request)))))
    async with make_h2() as api:
        assert await ids_of(api) == ["a", "b"]
    assert failures.errors == []


# --- streams that are cut ---


async def test_a_cut_request_resets_its_stream(raw_server: RawServer, make_h2: MakeH2) -> None:
    """After more cancelled requests than the server allows streams, the next request still uses the same connection."""
    kept: list[H2Connection] = []

    def answer(connection: H2Connection, request: Request) -> None:
        if len(connection.requests) in (1, 22):
            connection.respond(request.stream, page(request))

    raw_server.behave(speaks_h2(keep(kept, answers(answer)), MAX_CONCURRENT_STREAMS=5))
    async with make_h2() as api:
        await ids_of(api)
        for number in range(2, 22):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ids_of, api)
                await until(lambda number=number: len(kept[0].requests) == number)
                tasks.cancel_scope.cancel()
        assert await ids_of(api) == ["corp_1-0", "corp_1-1"]
    assert set(kept[0].resets.values()) == {0x8}
    assert len(kept[0].resets) == 20
    assert raw_server.connections == 1


async def test_a_timeout_resets_its_stream(raw_server: RawServer, make_h2: MakeH2) -> None:
    """An attempt that exceeds its timeout, before its response or within, leaves no stream open."""
    kept: list[H2Connection] = []

    def answer(connection: H2Connection, request: Request) -> None:
        if len(connection.requests) == 2:
            connection.send_frames(head_of(connection, request), *data_frames(request.stream, b"{", ends=False))
        if len(connection.requests) > 2:
            connection.respond(request.stream, page(request))

    raw_server.behave(speaks_h2(keep(kept, answers(answer))))
    async with make_h2(timeout=0.2) as api:
        assert await ids_of(api) == ["corp_1-0", "corp_1-1"]
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
        for _ in range(2):
            with pytest.raises(InvalidResponseError if status == "200" else BadRequestError):
                await ids_of(api, "endless")
            assert await ids_of(api) == ["corp_1-0", "corp_1-1"]
    assert raw_server.connections == 1
    assert min(sent) > 1024 * 1024


async def test_an_encoding_that_was_not_asked_for_leaves_no_stream(raw_server: RawServer, make_h2: MakeH2) -> None:
    """If the client reads nothing of a body, the stream is reset."""
    kept: list[H2Connection] = []

    def answer(connection: H2Connection, request: Request) -> None:
        head = connection.head(request.stream, [(":status", "200"), ("content-encoding", "br")])
        connection.send_frames(head, *data_frames(request.stream, b"x" * 1000, ends=False))

    raw_server.behave(speaks_h2(keep(kept, answers(answer))))
    async with make_h2(retry=ONCE) as api:
        with pytest.raises(InvalidResponseError):
            await ids_of(api)
        await until(lambda: list(kept[0].resets) == [1])


# --- what is the user's fault ---


async def test_a_header_that_cannot_be_sent_is_final(raw_server: RawServer, make_h2: MakeH2) -> None:
    """A header of the user's client that HTTP/2 does not allow is an error at once."""
    raw_server.behave(speaks_h2(answers_pages))
    async with make_h2(client={"headers": {"TE": "gzip"}}) as api:
        with pytest.raises(APIConnectionError, match="the request could not be sent") as caught:
            await ids_of(api)
    assert not caught.value.transient
    assert caught.value.attempts == 1


async def test_a_timeout_without_response_is_a_timeout(raw_server: RawServer, make_h2: MakeH2) -> None:
    """A server that takes requests and never answers fails them by their timeout."""
    raw_server.behave(speaks_h2(answers(lambda _connection, _request: None)))
    async with make_h2(timeout=0.1, retry=ONCE) as api:
        with pytest.raises(APITimeoutError):
            await ids_of(api)


async def test_a_connection_whose_opening_another_request_has_left_is_closed(raw_server: RawServer, make_h2: MakeH2) -> None:
    """A request is cancelled at each step, while it waits for a connection that another one opens. Nothing stays open."""
    raw_server.behave(speaks_h2(answers_pages))

    async def leave(api: AsyncCustomersAPI, steps: int) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ids_of, api, "corp_2")
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    for steps in range(4, 40, 2):
        async with make_h2(rate_limit=None) as api, anyio.create_task_group() as tasks:
            tasks.start_soon(ids_of, api)
            await leave(api, steps)
    del api, tasks
    gc.collect()  # an open socket would be a warning, and so an error
