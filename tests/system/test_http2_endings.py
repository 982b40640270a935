"""HTTP/2 connections that end, and streams that the server refuses."""

from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from commenda_customers import (
    APIConnectionError,
    AsyncCustomersAPI,
    RetryPolicy,
)
from http2_clients import ONCE, QUICK, Failures, MakeH2, ids_of, read_many
from leaks import see
from raw_h2_server import (
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    REFUSED_STREAM,
    H2Behaviour,
    H2Connection,
    Request,
    answers,
    answers_pages,
    page,
    speaks_h2,
)
from raw_server import TOKEN, RawServer

pytestmark = pytest.mark.anyio


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
        assert len(await ids_of(api)) == 20
    assert all(wait == 0 for wait in failures.waits)
    assert all(isinstance(error, APIConnectionError) for error in failures.errors)


async def test_many_in_flight_when_the_server_ends_the_connection(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures
) -> None:
    """All requests that were in flight are sent again at once, and every customer comes once."""
    raw_server.behave(speaks_h2(_goes_away_after(40)))
    async with make_h2() as api:
        assert await read_many(api, 16) == 16 * 20
    assert sum(failures.waits) < 1


async def test_a_connection_that_dies_with_many_in_flight(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures
) -> None:
    """If a worker is killed, all that was in flight is sent again."""

    def dies(connection: H2Connection) -> None:
        connection.read_until(lambda: len(connection.requests) == 17)
        connection.raw.reset()

    def works_first(connection: H2Connection) -> None:
        request = connection.read_request()
        assert request is not None
        connection.respond(request.stream, page(request))
        dies(connection)

    raw_server.behave(speaks_h2(works_first), speaks_h2(answers_pages))
    async with make_h2(rate_limit=None) as api:
        await ids_of(api)
        assert await read_many(api, 40) == 80
    assert len(failures.errors) == 16
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
        assert len(await ids_of(api)) == 6
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
            await ids_of(api)
    assert failures.waits[:3] == [0, 0, 0]
    assert all(wait > 0 for wait in failures.waits[3:])


@pytest.mark.parametrize("how", ["stream", "connection"])
async def test_calm_is_not_answered_at_once(raw_server: RawServer, make_h2: MakeH2, failures: Failures, how: str) -> None:
    """ENHANCE_YOUR_CALM may be a limit: the next attempt waits."""

    def answer(connection: H2Connection, request: Request) -> None:
        if len(connection.requests) == 2 and raw_server.connections == 1:
            if how == "stream":
                connection.reset(request.stream, ENHANCE_YOUR_CALM)
            else:
                connection.go_away(request.stream, ENHANCE_YOUR_CALM)
        else:
            connection.respond(request.stream, page(request, pages=2))

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2(rate_limit=None) as api:
        assert len(await ids_of(api)) == 4
    (error,) = failures.errors
    assert isinstance(error, APIConnectionError)
    assert error.is_rejection
    assert failures.waits[0] > 0


@pytest.mark.parametrize("how", ["stream", "connection"])
@pytest.mark.parametrize("code", [0xC, 0xD])
async def test_a_server_that_wants_no_http2_is_final(raw_server: RawServer, make_h2: MakeH2, how: str, code: int) -> None:
    """INADEQUATE_SECURITY and HTTP_1_1_REQUIRED are final: a retry would get them again."""

    def answer(connection: H2Connection, request: Request) -> None:
        if how == "stream":
            connection.reset(request.stream, code)
        else:
            connection.go_away(request.stream, code)

    raw_server.behave(speaks_h2(answers(answer)))
    async with make_h2() as api:
        with pytest.raises(APIConnectionError, match="after 1 attempt") as caught:
            await ids_of(api)
    assert not caught.value.transient


async def test_an_error_holds_no_token(raw_server: RawServer, make_h2: MakeH2) -> None:
    """No object that an error refers to holds the headers with the token: its cause, the request, the stream."""
    raw_server.behave(speaks_h2(answers(lambda connection, request: connection.reset(request.stream))))
    async with make_h2(retry=ONCE) as api:
        with pytest.raises(APIConnectionError) as caught:
            await ids_of(api)
    assert isinstance(caught.value.__cause__, httpx.RequestError | httpx2.RequestError)
    assert TOKEN not in see(caught.value.__cause__.request.extensions, depth=12)


class _OpensLate:
    """A network backend of httpcore whose first connection fails while other requests wait for it."""

    def __init__(self, backend: Any) -> None:
        self.streams: list[Any] = []
        self._backend = backend
        self._has_failed = False

    async def connect_tcp(self, **options: Any) -> Any:
        if not self._has_failed:
            self._has_failed = True
            await anyio.wait_all_tasks_blocked()
            raise OSError("it broke")
        self.streams.append(await self._backend.connect_tcp(**options))
        return self.streams[-1]


async def test_a_connection_that_could_not_be_opened_is_not_left_open(
    library: ModuleType, raw_server: RawServer, failures: Failures
) -> None:
    """Requests that wait for a connection that another could not open use the next one. No socket stays open."""
    raw_server.behave(speaks_h2(answers_pages))
    async with library.AsyncClient(http1=False, http2=True) as client:
        pool = client._transport._pool
        backend = pool._network_backend = _OpensLate(pool._network_backend)
        async with AsyncCustomersAPI(
            TOKEN, base_url=raw_server.url, http_client=client, rate_limit=None, retry=QUICK, hooks=[failures]
        ) as api:
            assert await read_many(api, 8) == 16
    assert [stream.get_extra_info("socket").fileno() for stream in backend.streams] == [-1]
    assert len(failures.errors) == 8
    assert sum(wait > 0 for wait in failures.waits) == 1
