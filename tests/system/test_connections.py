"""Connections: kept, stale, new, and what comes through them."""

import gzip
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from anyio.abc import SocketStream

from behaviours import BODY, GOOD, HEAD, QUICK, MakeAPI, sends
from commenda_customers import (
    APIConnectionError,
    AsyncCustomersAPI,
    CustomersError,
    RetryPolicy,
)
from raw_server import TOKEN, Connection, RawServer, listing, ok
from waiting import until

pytestmark = pytest.mark.anyio


async def test_a_compressed_answer_is_read(raw_server: RawServer, make_api: MakeAPI) -> None:
    """Gzip is asked for, and read."""
    raw_server.behave(raw_server.answers(ok(None, body=gzip.compress(BODY), headers=["Content-Encoding: gzip"])))
    async with make_api() as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a", "b"]
    assert b"accept-encoding: gzip\r\n" in raw_server.requests[0].lower()


async def test_an_unrequested_response_is_dropped(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A second response on a connection is not taken for the response to the next request."""
    mine, other = listing("mine"), listing("other", corporation_id="corp_2")
    raw_server.behave(
        raw_server.answers(ok(mine) + ok(other), ok(mine), ok(mine)), raw_server.answers(ok(mine), ok(mine), ok(mine))
    )
    async with make_api() as api:
        for _ in range(4):
            assert [customer.id async for customer in api.list("corp_1")] == ["mine"]
    assert raw_server.connections == 2


async def test_an_unrequested_response_is_dropped_although_a_hook_has_read_the_first(raw_server: RawServer) -> None:
    """Also if a hook of the user's client reads and so closes each response, as a hook that logs does."""
    mine, other = listing("mine"), listing("other")
    raw_server.behave(raw_server.answers(ok(mine) + ok(other), ok(other)), raw_server.answers(ok(mine)))

    async def reads(response: httpx.Response) -> None:
        await response.aread()

    async with (
        httpx.AsyncClient(event_hooks={"response": [reads]}) as client,
        AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
    ):
        for _ in range(2):
            assert [customer.id async for customer in api.list("corp_1")] == ["mine"]
    assert raw_server.connections == 2


async def test_a_connection_with_a_foreign_response_is_not_used_again(raw_server: RawServer, make_api: MakeAPI) -> None:
    """The retry after a response with customers of another corporation uses another connection."""
    foreign = ok(listing("other", corporation_id="corp_2"))
    raw_server.behave(raw_server.answers(foreign, foreign), raw_server.answers(GOOD))
    async with make_api() as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a", "b"]
    assert raw_server.connections == 2


@pytest.mark.parametrize("connections", [1, 100])
async def test_no_other_list_gets_a_late_response(raw_server: RawServer, connections: int) -> None:
    """
    A connection that is one response behind is dropped before another request can use it.

    Otherwise another list of the same corporation would take the late response for its own, and lose customers.
    """

    def one_behind_once(connection: Connection) -> None:
        unrequested = ok(listing("foreign", corporation_id="corp_2")) if raw_server.connections == 1 else b""
        while head := connection.read_request():
            mine = "searched" if b"search_term=x" in head else "all"
            connection.send(unrequested + ok(listing(mine)))
            unrequested = b""

    async def ids(api: AsyncCustomersAPI, got: list[list[str]], delay: int, **filters: Any) -> None:
        for _ in range(delay):
            await anyio.lowlevel.checkpoint()
        got.append([customer.id async for customer in api.list("corp_1", **filters)])

    for delay in range(40):
        raw_server.behave(one_behind_once)
        raw_server.connections = 0
        everything: list[list[str]] = []
        searched: list[list[str]] = []
        async with (
            httpx.AsyncClient(limits=httpx.Limits(max_connections=connections)) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client, retry=QUICK, rate_limit=None) as api,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ids, api, everything, 0)
            tasks.start_soon(partial(ids, api, searched, delay, search_term="x"))
        assert (everything, searched) == ([["all"]], [["searched"]]), delay


async def test_redirects_are_not_followed(raw_server: RawServer) -> None:
    """A redirect is not followed, even if the user's client would follow it, so no other host gets the token."""
    with RawServer() as elsewhere:
        elsewhere.behave(elsewhere.answers(GOOD))
        raw_server.behave(sends(f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n".encode()))
        async with (
            httpx.AsyncClient(follow_redirects=True) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            with pytest.raises(CustomersError, match="302"):
                await api.list("corp_1")
        assert elsewhere.connections == 0


async def test_the_connection_is_kept(raw_server: RawServer, make_api: MakeAPI) -> None:
    """All pages of an iteration use one connection."""
    raw_server.behave(raw_server.answers(ok(listing("a", cursor="1")), ok(listing("b", cursor="2")), ok(listing("c"))))
    async with make_api() as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a", "b", "c"]
    assert raw_server.connections == 1


async def test_a_stale_connection_costs_no_attempt(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A request is sent again, without using an attempt, when the server has closed the kept connection."""

    def closes_when_asked_again(connection: Connection) -> None:
        connection.read_request()
        connection.send(GOOD)
        connection.read_request()

    raw_server.behave(*[closes_when_asked_again] * 3, raw_server.answers(GOOD, GOOD))
    pages: list[int] = []
    async with make_api(retry=RetryPolicy(max_attempts=1)) as api:

        async def fetch() -> None:
            pages.append(len(await api.list("corp_1")))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(fetch)
        await fetch()
    assert pages == [2] * 4
    assert raw_server.connections == 4


async def test_a_fault_on_kept_connections_is_counted(raw_server: RawServer, make_api: MakeAPI) -> None:
    """Broken responses on kept connections use up the attempts, and not all the connections."""
    kept = 20
    everyone_is_here = threading.Barrier(kept)

    def good_then_garbage(connection: Connection) -> None:
        connection.read_request()
        everyone_is_here.wait(60)
        connection.send(GOOD)
        while request := connection.read_request():
            raw_server.requests.append(request)
            connection.send(HEAD + b"X: a\x00b\r\n\r\n")

    raw_server.behave(*[good_then_garbage] * kept, sends())
    async with make_api(retry=RetryPolicy(max_attempts=2, initial_wait=0.01), rate_limit=None) as api:
        async with anyio.create_task_group() as tasks:
            for _ in range(kept):
                tasks.start_soon(_first_page, api)
        raw_server.requests.clear()
        with pytest.raises(APIConnectionError, match="after 5 attempts"):
            await api.list("corp_1")
    assert len(raw_server.requests) == 3 + 2


async def _first_page(api: AsyncCustomersAPI) -> None:
    await api.list("corp_1")


async def test_a_new_connection_that_fails_uses_an_attempt(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A new connection that is closed without a response uses one attempt."""
    raw_server.behave(sends())
    async with make_api(retry=RetryPolicy(max_attempts=1)) as api:
        with pytest.raises(APIConnectionError, match="after 1 attempt"):
            await api.list("corp_1")
    assert raw_server.connections == 1


async def test_a_unix_socket_that_fails_uses_an_attempt(tmp_path: Path) -> None:
    """A new connection through a Unix socket that is closed without a response uses one attempt."""
    connections = 0
    path = tmp_path / "socket"
    listener = await anyio.create_unix_listener(path)

    async def close(stream: SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            await stream.receive()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, close)
        async with (
            httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client,
            AsyncCustomersAPI(
                TOKEN, base_url="http://localhost", http_client=client, retry=RetryPolicy(max_attempts=1)
            ) as api,
        ):
            with pytest.raises(APIConnectionError, match="disconnected"):
                await api.list("corp_1")
        tasks.cancel_scope.cancel()
    assert connections == 1


async def test_a_cancelled_request_leaves_the_client_usable(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A request that is cancelled while it waits for its answer does not harm the next one."""
    was_sent = threading.Event()

    def hang(connection: Connection) -> None:
        connection.read_request()
        was_sent.set()
        connection.wait_for_end()

    raw_server.behave(hang, raw_server.answers(GOOD))
    async with make_api(timeout=None) as api:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_first_page, api)
            await until(was_sent.is_set)
            tasks.cancel_scope.cancel()
        assert len(await api.list("corp_1")) == 2
