"""The option `transport`, and the connections that the SDK makes for itself."""

import asyncio
import ssl
import sys
import threading
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from commenda_customers import AsyncCustomersAPI
from commenda_customers._http import senders
from commenda_customers._http.connections import ConnectionStack
from commenda_customers._http.trace import ConnectionTrace
from commenda_customers._threads import import_for_good, in_daemon_thread

TOKEN = "token-of-a-test"
URL = httpx.URL("http://127.0.0.1:1/customers")
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class TestOption:
    """`transport` of a client."""

    def test_an_unknown_one_is_refused(self) -> None:
        """The error names those that there are."""
        with pytest.raises(ValueError, match=r'transport: must be "httpx" or "pyreqwest", got \'aiohttp\''):
            AsyncCustomersAPI(TOKEN, transport="aiohttp")  # type: ignore[arg-type]  # as without a type checker

    def test_a_client_has_its_own(self) -> None:
        """`transport` cannot be combined with `http_client`."""
        with pytest.raises(ValueError, match="transport: cannot be combined with http_client"):
            AsyncCustomersAPI(TOKEN, transport="pyreqwest", http_client=httpx.AsyncClient())

    @pytest.mark.parametrize("missing", ["pyreqwest", "pyreqwest.client"])
    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        """The error says what to install, before any request, also if only a part of the package is there."""
        monkeypatch.delitem(sys.modules, "pyreqwest.client", raising=False)
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(ModuleNotFoundError, match=r"transport: .* needs the extra 'pyreqwest': pip install"):
            AsyncCustomersAPI(TOKEN, transport="pyreqwest")


def test_an_import_in_a_thread_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is there afterwards. A second call does nothing."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    before = threading.active_count()
    for _ in range(2):
        import_for_good("colorsys")
    assert "colorsys" in sys.modules
    assert threading.active_count() == before + 1


def test_a_thread_ends_although_the_event_loop_ends_first() -> None:
    """A call that was cancelled returns when its event loop no longer runs, and is about to be closed."""
    threads: list[threading.Thread] = []
    may_return = threading.Event()

    def call() -> None:
        threads.append(threading.current_thread())
        may_return.wait(60)

    async def give_up() -> None:
        with anyio.move_on_after(0.01):
            await in_daemon_thread(call)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(give_up())
    may_return.set()
    threads[0].join(60)
    is_left = threads[0].is_alive()
    loop.close()
    assert not is_left


def test_a_version_of_httpx_without_the_private_name_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the connections of a transport cannot be replaced, a client of httpx with its own pool is used."""
    monkeypatch.setattr(senders, "POOL_NAME", "_not_there")
    assert isinstance(senders.own_sender(URL, "httpx"), senders.ClientSender)


class Opener:
    """Opens connections to a server in memory."""

    def __init__(self, *responses: list[bytes]) -> None:
        self.responses = [*responses]
        self.opened: list[httpcore.AsyncHTTPConnection] = []

    def __call__(self, origin: httpcore.Origin, _tls: ssl.SSLContext, **options: Any) -> httpcore.AsyncHTTPConnection:
        backend = httpcore.AsyncMockBackend(self.responses.pop(0))
        self.opened.append(AsyncHTTPConnection(origin, network_backend=backend, **options))
        return self.opened[-1]


AsyncHTTPConnection = httpcore.AsyncHTTPConnection


@pytest.mark.anyio
class TestConnections:
    """The stack of connections."""

    def _stack(self, monkeypatch: pytest.MonkeyPatch, opener: Opener, seconds_idle: float = 60) -> ConnectionStack:
        monkeypatch.setattr(httpcore, "AsyncHTTPConnection", opener)
        return ConnectionStack(URL, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), seconds_idle=seconds_idle)

    async def _open(self, stack: ConnectionStack) -> httpcore.Response:
        request = httpcore.Request("GET", str(URL), headers={"Host": "api.test"}, extensions={"trace": ConnectionTrace()})
        return await stack.handle_async_request(request)

    async def test_the_one_used_last_is_used_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So connections that are no longer needed expire."""
        opener = Opener([GOOD, GOOD], [GOOD, GOOD])
        stack = self._stack(monkeypatch, opener)
        first, second = await self._open(stack), await self._open(stack)
        for response in (first, second):
            await response.aread()
            await response.aclose()
        third = await self._open(stack)
        assert len(stack.connections) == 2
        assert [connection.is_idle() for connection in opener.opened] == [True, False]
        await third.aread()
        await third.aclose()
        await stack.aclose()

    async def test_idle_connections_expire(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next request closes each connection that was idle for too long, wherever it is in the stack."""
        opener = Opener([GOOD], [GOOD], [GOOD])
        stack = self._stack(monkeypatch, opener, seconds_idle=-1)
        responses = [await self._open(stack), await self._open(stack)]
        for response in responses:
            await response.aread()
            await response.aclose()
        await self._open(stack)
        assert stack.connections == [opener.opened[2]]
        assert [connection.is_closed() for connection in opener.opened] == [True, True, False]
        await stack.aclose()

    async def test_the_server_may_close_an_idle_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next request then takes another one, and the closed one is forgotten."""
        opener = Opener([GOOD, GOOD], [GOOD])
        stack = self._stack(monkeypatch, opener)
        for response in [await self._open(stack), await self._open(stack)]:
            await response.aread()
            await response.aclose()
        first, last = stack.connections
        monkeypatch.setattr(last, "has_expired", lambda: True)
        await self._open(stack)
        assert stack.connections == [first]
        assert opener.opened[1].is_closed()
        await stack.aclose()

    async def test_a_response_that_is_closed_twice_releases_its_connection_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise two requests would use the connection at once."""
        stack = self._stack(monkeypatch, Opener([GOOD]))
        response = await self._open(stack)
        await response.aread()
        for _ in range(2):
            await response.aclose()
        assert len(stack.connections) == 1
        await stack.aclose()

    async def test_a_response_that_is_left_closes_its_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise, the next request would get the rest of the response."""
        opener = Opener([GOOD[:-1], b"i"])
        stack = self._stack(monkeypatch, opener)
        response = await self._open(stack)
        await response.aclose()
        assert stack.connections == []
        assert opener.opened[0].is_closed()

    async def test_closing_closes_those_in_use_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection does not return to the stack when its response is closed later."""
        opener = Opener([GOOD], [GOOD])
        stack = self._stack(monkeypatch, opener)
        idle, busy = await self._open(stack), await self._open(stack)
        await idle.aread()
        await idle.aclose()
        await stack.aclose()
        await busy.aclose()
        assert stack.connections == []
        assert all(connection.is_closed() for connection in opener.opened)
