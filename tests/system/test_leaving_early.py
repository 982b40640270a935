"""Left while its first connections are being opened, whatever reads ends quietly. On real sockets."""

import gc
import re
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import anyio
import pytest

from commenda_customers import AsyncCustomersAPI
from commenda_customers.testing import Emulator
from raw_server import TOKEN, listing, ok

pytestmark = pytest.mark.anyio

CORPORATIONS = {f"corp_{number}": 300 for number in range(20)}
ROUNDS = 15


class OwnError(Exception):
    """What the program itself raises."""


@pytest.fixture
def crowded(request: pytest.FixtureRequest) -> Iterator[str]:
    """
    Return the URL of a server that serves as many connections as the parameter says, each with one page.

    The queue of its socket is full after one more. From then on each new connection is being opened, for ever.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as served, socket.socket() as waiting:

        def serve() -> None:
            for _ in range(request.param):
                accepted = served.enter_context(listening.accept()[0])
                asked = re.search(rb"corporation_id=(\w+)", accepted.recv(65536))
                if asked is not None:
                    accepted.sendall(ok(listing("a", corporation_id=asked[1].decode(), cursor="1")))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        if request.param == 0:
            waiting.connect(listening.getsockname())
        yield f"http://localhost:{listening.getsockname()[1]}"
        thread.join(60)


@contextmanager
def cancelled_as_itself() -> Iterator[None]:
    """Check that a program which looks at its own cancellation sees it as it is, and not in a group."""
    try:
        yield
    except BaseException as exc:
        assert isinstance(exc, anyio.get_cancelled_exc_class()), repr(exc)  # noqa: PT017 - it may be none at all
        raise


async def leave_by_break(api: AsyncCustomersAPI) -> None:
    async with api.stream(CORPORATIONS, concurrency=20) as stream:
        async for _customer in stream:
            break


async def leave_by_exception(api: AsyncCustomersAPI) -> None:
    with pytest.raises(OwnError):
        async with api.stream(CORPORATIONS, concurrency=20) as stream:
            async for _customer in stream:
                raise OwnError


async def leave_by_timeout(api: AsyncCustomersAPI) -> None:
    with anyio.move_on_after(0.1) as scope, cancelled_as_itself():
        async with api.stream(CORPORATIONS, concurrency=20) as stream:
            async for _customer in stream:
                pass
    assert scope.cancelled_caught


async def leave_list_by_timeout(api: AsyncCustomersAPI) -> None:
    with anyio.move_on_after(0.1) as scope, cancelled_as_itself():
        async for _customer in api.list("corp_1", limit=1):
            pass
    assert scope.cancelled_caught


async def leave_page_by_timeout(api: AsyncCustomersAPI) -> None:
    with anyio.move_on_after(0.1) as scope, cancelled_as_itself():
        while True:
            await api.list("corp_1", limit=1)
    assert scope.cancelled_caught


Leave = Callable[[AsyncCustomersAPI], Awaitable[None]]


@pytest.mark.parametrize(
    ("leave", "crowded"),
    [
        (leave_by_break, 1),
        (leave_by_exception, 1),
        (leave_by_timeout, 1),
        (leave_by_timeout, 0),
        (leave_list_by_timeout, 0),
        (leave_page_by_timeout, 0),
    ],
    indirect=["crowded"],
)
async def test_connections_that_never_open_are_left_quietly(leave: Leave, crowded: str) -> None:
    """Left while connections are being opened, a stream or a list raises nothing but the program's own exception."""
    async with AsyncCustomersAPI(TOKEN, base_url=crowded) as api:
        await leave(api)
        assert api.rate_limit is not None
        assert api.rate_limit.snapshot().in_flight == 0
    gc.collect()  # an open socket would be a warning, and so an error


@asynccontextmanager
async def new_client(server: Emulator) -> AsyncGenerator[AsyncCustomersAPI]:
    """Open a client that has no connections yet. Its host has several addresses, which are tried at the same time."""
    url = server.base_url.replace("127.0.0.1", "localhost")
    async with AsyncCustomersAPI(server.token, base_url=url) as api:
        yield api


async def leave_at_any_time(api: AsyncCustomersAPI, seconds: float) -> None:
    with anyio.move_on_after(seconds) as scope:
        async with api.stream(CORPORATIONS, concurrency=20) as stream:
            async for _customer in stream:
                pass
    assert scope.cancelled_caught


async def test_a_stream_may_be_left_at_any_time() -> None:
    """A new client is left by `break`, by an exception or by a timeout at any point of its first connections: quietly."""
    async with Emulator(CORPORATIONS, latency=0.005) as server:
        for number in range(ROUNDS):
            for leave in (leave_by_break, leave_by_exception):
                async with new_client(server) as api:
                    await leave(api)
            async with new_client(server) as api:
                await leave_at_any_time(api, 0.0005 * (number % 20))
        async with new_client(server) as api:
            assert len(await api.list("corp_1")) == 100
    gc.collect()  # an open socket would be a warning, and so an error
