"""HTTP/2 connections with a GOAWAY while requests are in flight (RFC 9113, section 6.8)."""

import threading

import pytest

from commenda_customers import APIConnectionError
from http2_clients import ONCE, Failures, MakeH2, ids_of, read_many
from raw_h2_server import H2Behaviour, H2Connection, Request, page, speaks_h2
from raw_server import RawServer

pytestmark = pytest.mark.anyio

ALL_STREAMS = 2**31 - 1


def _takes(most: int, *, announces: bool = False) -> H2Behaviour:
    """Answer a few requests of each connection, as nginx does: first comes the GOAWAY, and then the responses."""

    def behaviour(connection: H2Connection) -> None:
        if not connection.read_until(lambda: len(connection.requests) >= most):
            return
        if announces:
            connection.go_away(ALL_STREAMS)
        taken = connection.requests[:most]
        connection.go_away(taken[-1].stream)
        for request in taken:
            connection.respond(request.stream, page(request, pages=3))
        connection.read_until(lambda: False)

    return behaviour


def _ends_after(connection: H2Connection, request: Request) -> None:
    """Accept this request as the last one, and end the connection without its response."""
    connection.go_away(request.stream)
    # Closed at once, it would be reset, because not all has been read.
    connection.raw.end_writing()
    connection.read_until(lambda: False)


@pytest.mark.parametrize("announces", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("streams", [1, 100])
async def test_a_server_that_takes_one_request_of_each_connection(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures, streams: int, announces: bool
) -> None:
    """However few requests the server allows on a connection, each gets its response, and no attempt fails."""
    raw_server.behave(speaks_h2(_takes(1, announces=announces), MAX_CONCURRENT_STREAMS=streams))
    async with make_h2(rate_limit=None, retry=ONCE) as api:
        assert await read_many(api, 16) == 16 * 6
    assert failures.errors == []
    assert raw_server.connections >= 16 * 3


async def test_what_was_not_taken_does_not_wait(raw_server: RawServer, make_h2: MakeH2, failures: Failures) -> None:
    """The requests that the server did not accept go to the next connection before any other response comes."""
    came = threading.Event()

    def takes_three(connection: H2Connection) -> None:
        connection.read_until(lambda: len(connection.requests) >= 16)
        taken = connection.requests[:3]
        connection.go_away(taken[-1].stream)
        if came.wait(60):
            for request in taken:
                connection.respond(request.stream, page(request))
            connection.read_until(lambda: False)

    def takes_the_rest(connection: H2Connection) -> None:
        connection.read_until(lambda: len(connection.requests) >= 13)
        came.set()
        for request in connection.requests:
            connection.respond(request.stream, page(request))
        connection.read_until(lambda: False)

    raw_server.behave(speaks_h2(takes_three), speaks_h2(takes_the_rest))
    async with make_h2(rate_limit=None, retry=ONCE) as api:
        assert await read_many(api, 16) == 16 * 2
    assert came.is_set()
    assert failures.errors == []
    assert raw_server.connections == 2


async def test_a_server_that_ends_without_the_responses_it_has_announced(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures
) -> None:
    """If the connection ends before the responses come, their requests are sent again at once."""

    def breaks_its_word(connection: H2Connection) -> None:
        request = connection.read_request()
        assert request is not None
        _ends_after(connection, request)

    raw_server.behave(speaks_h2(breaks_its_word), speaks_h2(breaks_its_word), speaks_h2(_takes(1)))
    async with make_h2(retry=ONCE) as api:
        assert len(await ids_of(api)) == 6
    assert failures.waits == [0, 0]
    assert all(isinstance(error, APIConnectionError) and error.is_stale_connection for error in failures.errors)


async def test_a_stream_that_is_reset_after_the_announcement_costs_an_attempt(
    raw_server: RawServer, make_h2: MakeH2, failures: Failures
) -> None:
    """A reset of a request that the server has accepted is a failure, as it is without GOAWAY."""

    def resets(connection: H2Connection) -> None:
        request = connection.read_request()
        assert request is not None
        connection.go_away(request.stream)
        connection.reset(request.stream, 0x2)
        connection.read_until(lambda: False)

    raw_server.behave(speaks_h2(resets), speaks_h2(_takes(1)))
    async with make_h2() as api:
        assert len(await ids_of(api)) == 6
    (error,) = failures.errors
    assert isinstance(error, APIConnectionError)
    assert not (error.is_stale_connection)
    assert not (error.is_unprocessed)


async def test_a_server_that_takes_requests_and_answers_none_is_not_asked_for_ever(
    raw_server: RawServer, make_h2: MakeH2
) -> None:
    """If each connection accepts a request but never responds, the requests still end."""

    def takes_one(connection: H2Connection) -> None:
        if request := connection.read_request():
            _ends_after(connection, request)

    raw_server.behave(speaks_h2(takes_one))
    async with make_h2(rate_limit=None, retry=ONCE) as api:
        with pytest.raises(APIConnectionError):
            await read_many(api, 8)
    assert raw_server.connections <= 8 * 4
