"""The client over its life: opened, closed, cancelled, moved elsewhere."""

import asyncio
import gc
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import threading
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from behaviours import connections_of
from commenda_customers import APIConnectionError, AsyncCustomersAPI, RetryPolicy
from raw_server import TOKEN, RawServer, listing, ok
from waiting import until

GOOD = ok(listing("a"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the transports that the SDK opens in this test, and whether each is closed."""
    transports: list[Any] = []

    class Transport(httpx.AsyncHTTPTransport):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.is_closed = False
            transports.append(self)

        async def aclose(self) -> None:
            await super().aclose()
            self.is_closed = True

    monkeypatch.setattr(httpx, "AsyncHTTPTransport", Transport)
    return transports


@pytest.mark.anyio
class TestLife:
    """Opening, closing, and what belongs to whom."""

    async def test_it_works_without_a_block(self, raw_server: RawServer) -> None:
        """A client may be used without `async with`, and closed by `aclose`, more than once."""
        raw_server.behave(raw_server.answers(GOOD))
        api = AsyncCustomersAPI(TOKEN, base_url=raw_server.url)
        assert len(await api.list("corp_1")) == 1
        await api.aclose()
        await api.aclose()

    async def test_it_keeps_no_cookies(self, raw_server: RawServer) -> None:
        """A server that sets a cookie with each answer does not make the requests grow."""
        raw_server.behave(raw_server.answers(*[ok(listing("a"), headers=[f"Set-Cookie: c{n}=1"]) for n in range(3)]))
        async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
            for _ in range(3):
                await api.list("corp_1")
        assert raw_server.requests[0] == raw_server.requests[2]

    async def test_use_after_close_is_one_clear_error(self, raw_server: RawServer) -> None:
        """A closed client raises one clear error, whether it was used or not, and opens nothing."""
        raw_server.behave(raw_server.answers(GOOD))
        for uses in (0, 1):
            async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
                for _ in range(uses):
                    await api.list("corp_1")
            with pytest.raises(RuntimeError, match="closed; make a new one"):
                await api.list("corp_1")
            with pytest.raises(RuntimeError, match="closed; make a new one"):
                async with api:
                    pass

        async def fail() -> str:
            raise AssertionError("a closed client asks for no token")

        unused = AsyncCustomersAPI(fail)
        await unused.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await unused.list("corp_1")

    async def test_first_uses_at_once_open_one_client(self, opened: list[Any]) -> None:
        """Requests that start while the client opens wait for it and share it."""
        api = AsyncCustomersAPI(TOKEN, base_url="https://127.0.0.1:1", retry=RetryPolicy(max_attempts=1))

        async def fetch() -> None:
            with pytest.raises(APIConnectionError):
                await api.list("corp_1")

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(fetch)
        await api.aclose()
        assert [transport.is_closed for transport in opened] == [True]

    async def test_closing_while_it_opens_leaves_nothing(self, opened: list[Any]) -> None:
        """A client that is closed while it opens raises an error in its first requests, and leaves nothing open."""
        api = AsyncCustomersAPI(TOKEN, base_url="https://127.0.0.1:1")

        async def fetch() -> None:
            with pytest.raises(RuntimeError, match="closed"):
                await api.list("corp_1")

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(fetch)
            await anyio.wait_all_tasks_blocked()
            await api.aclose()
        assert [transport.is_closed for transport in opened] == [True]

    async def test_closing_while_it_opens_sends_nothing(
        self, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A request waits until the client is open. If the client is closed meanwhile, the request is not sent."""
        may_open, create = threading.Event(), httpx.AsyncHTTPTransport

        def create_late(**options: Any) -> httpx.AsyncHTTPTransport:
            may_open.wait(30)
            return create(**options)

        monkeypatch.setattr(httpx, "AsyncHTTPTransport", create_late)
        raw_server.behave(raw_server.answers(GOOD))
        api = AsyncCustomersAPI(TOKEN, base_url=raw_server.url)

        async def fetch() -> None:
            with pytest.raises(RuntimeError, match="closed"):
                await api.list("corp_1")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(api.aclose)
            await anyio.wait_all_tasks_blocked()
            may_open.set()
        gc.collect()  # an open socket would be a warning, and so an error
        assert not raw_server.connections

    async def test_cancellation_closes_the_connections(self, raw_server: RawServer) -> None:
        """A block that is left by cancellation leaves no open connection behind."""
        raw_server.behave(raw_server.answers(GOOD))
        with anyio.CancelScope() as scope:
            async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
                await api.list("corp_1")
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        gc.collect()  # an open socket would be a warning, and so an error
        assert connections_of(api) == []

    @pytest.mark.parametrize("library", [httpx, httpx2])
    async def test_the_users_client_stays_open(self, raw_server: RawServer, library: Any) -> None:
        """The SDK does not close the HTTP client of the user."""
        raw_server.behave(raw_server.answers(GOOD))
        async with library.AsyncClient() as client:
            async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api:
                await api.list("corp_1")
            assert not client.is_closed

    async def test_proxies_of_the_environment_do_not_see_loopback(
        self, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy that the environment names is not used for plain HTTP on this machine."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        raw_server.behave(raw_server.answers(GOOD))
        async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=RetryPolicy(max_attempts=1)) as api:
            assert len(await api.list("corp_1")) == 1


class TestElsewhere:
    """Event loops and processes other than the one where the client was first used."""

    def test_another_event_loop_is_refused(self, raw_server: RawServer) -> None:
        """A second event loop gets a clear error instead of one about a loop that is closed."""
        raw_server.behave(raw_server.answers(GOOD))
        api = AsyncCustomersAPI(TOKEN, base_url=raw_server.url)

        async def use_and_close() -> None:
            await api.list("corp_1")
            await api._fetcher.http._sender.aclose()  # type: ignore[union-attr]  # it is open; only the connections are to be closed

        asyncio.run(use_and_close())
        with pytest.raises(RuntimeError, match="in use in another event loop or process; make one for each"):
            asyncio.run(_fetch(api))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_fork_is_refused(self, raw_server: RawServer) -> None:
        """A client that was used before a fork does not share its connections with the child."""
        code = (
            "import anyio, os\n"
            "from commenda_customers import AsyncCustomersAPI\n"
            "async def main():\n"
            f"    async with AsyncCustomersAPI('token', base_url='{raw_server.url}') as api:\n"
            "        await api.list('corp_1')\n"
            "        is_child = os.fork() == 0\n"
            "        try:\n"
            "            outcome = len(await api.list('corp_1'))\n"
            "        except RuntimeError as exc:\n"
            "            outcome = exc\n"
            "        os.write(1, f'{outcome}\\n'.encode())\n"
            "        os._exit(0) if is_child else os.wait()\n"
            "anyio.run(main, backend='trio')\n"
        )
        raw_server.behave(raw_server.answers(GOOD, GOOD))
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert sorted(done.stdout.splitlines()) == [
            "1",
            "this AsyncCustomersAPI is in use in another event loop or process; make one for each",
        ]


def _connections() -> int:
    """Return how many ends of TCP connections this process has open."""
    return sum(map(_is_connected, range(1024)))


def _is_connected(number: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        with socket.socket(fileno=os.dup(number)) as duplicate:
            return duplicate.family in {socket.AF_INET, socket.AF_INET6} and bool(duplicate.getpeername())
    except OSError:
        return False


BACKENDS = ["asyncio", "trio"]


def test_a_process_cannot_be_given_a_client() -> None:
    """A process that is given a client as an argument does not start: one clear error."""
    process = multiprocessing.get_context("spawn").Process(target=_fetch, args=(AsyncCustomersAPI(TOKEN),))
    with pytest.raises(TypeError, match="AsyncCustomersAPI cannot be pickled or copied; make a client where it is used"):
        process.start()


class TestClosingElsewhere:
    """A client that is closed where it was not used."""

    @pytest.mark.parametrize("elsewhere", BACKENDS)
    @pytest.mark.parametrize("home", BACKENDS)
    def test_after_its_event_loop_has_ended(self, raw_server: RawServer, home: str, elsewhere: str) -> None:
        """A client whose event loop has ended is closed in any other: quietly, and no socket stays open."""
        raw_server.behave(raw_server.answers(GOOD, GOOD))
        api = AsyncCustomersAPI(TOKEN, base_url=raw_server.url)
        anyio.run(_fetch, api, backend=home)

        async def close_twice() -> None:
            await api.aclose()
            await api.aclose()
            with pytest.raises(RuntimeError, match="closed; make a new one"):
                await _fetch(api)
            await until(lambda: _connections() == 0)

        assert _connections() == 2  # the server is in this process, too
        anyio.run(close_twice, backend=elsewhere)

    @pytest.mark.parametrize("elsewhere", BACKENDS)
    @pytest.mark.parametrize("home", BACKENDS)
    def test_while_its_event_loop_lives(self, raw_server: RawServer, home: str, elsewhere: str) -> None:
        """A client that is in use in another event loop is not closed, says so, and can still be used and closed there."""
        raw_server.behave(raw_server.answers(GOOD, GOOD))

        async def main() -> None:
            async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
                await api.list("corp_1")
                with pytest.raises(RuntimeError, match="in use in another event loop, which is not closed; close it there"):
                    await anyio.to_thread.run_sync(lambda: anyio.run(api.aclose, backend=elsewhere))
                assert len(await api.list("corp_1")) == 1

        anyio.run(main, backend=home)
        assert raw_server.connections == 1

    @pytest.mark.parametrize("library", [httpx, httpx2])
    def test_the_users_client_is_left_alone(self, raw_server: RawServer, library: Any) -> None:
        """The HTTP client of the user stays open in another event loop, too."""
        raw_server.behave(raw_server.answers(GOOD))

        async def use() -> tuple[AsyncCustomersAPI, Any]:
            async with library.AsyncClient() as client:
                api = AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client)
                await api.list("corp_1")
            return api, client

        api, client = anyio.run(use)
        anyio.run(api.aclose)
        assert api._fetcher.http._sender._client is client  # type: ignore[union-attr]  # it is a `ClientSender`

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_in_a_child_process(self, raw_server: RawServer, backend: str) -> None:
        """A child that closes the client of its parent does so quietly, and the parent's connection stays open."""
        raw_server.behave(raw_server.answers(GOOD, GOOD))
        code = (
            "import anyio, os\n"
            "from commenda_customers import AsyncCustomersAPI\n"
            "async def main():\n"
            f"    async with AsyncCustomersAPI('token', base_url='{raw_server.url}') as api:\n"
            "        await api.list('corp_1')\n"
            "        child = os.fork()\n"
            "        if child:\n"
            "            assert os.waitpid(child, 0)[1] == 0\n"
            "            print(len(await api.list('corp_1')))\n"
            "    if not child:\n"
            "        os._exit(0)\n"
            f"anyio.run(main, backend='{backend}')\n"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
        assert raw_server.connections == 1


async def _fetch(api: AsyncCustomersAPI) -> int:
    return len(await api.list("corp_1"))


def test_importing_the_library_imports_no_extra() -> None:
    """The library alone loads its four dependencies and nothing of the extras, of httpx2 or of pytest."""
    # httpx itself loads click and rich where they are installed.
    code = (
        "import sys, anyio, httpx, pydantic, tenacity; before = set(sys.modules);"
        "import commenda_customers, commenda_customers.testing;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    extras = {"click", "httpx2", "hypothesis", "pyarrow", "pyreqwest", "pytest", "redis", "rich", "trio", "uvicorn"}
    assert "commenda_customers" in done.stdout
    assert not extras & set(done.stdout.split())


@pytest.mark.anyio
class TestOpening:
    """Opening without a request."""

    async def test_opening_does_not_block_the_event_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread reads the certificates."""
        threads: list[str] = []
        create = httpx.create_ssl_context

        def spy() -> Any:
            threads.append(threading.current_thread().name)
            return create()

        monkeypatch.setattr(httpx, "create_ssl_context", spy)
        async with AsyncCustomersAPI(TOKEN):
            pass
        assert threads
        assert threading.main_thread().name not in threads

    @pytest.mark.parametrize(
        "settings",
        [
            {"SSL_CERT_FILE": "/nowhere.pem"},
            {"ALL_PROXY": "gopher://x"},
            {"ALL_PROXY": "http://u:hunt/er2@x"},
            {"ALL_PROXY": "http://x", "NO_PROXY": "[::1"},
        ],
    )
    async def test_wrong_settings_of_the_environment_are_errors(
        self, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Wrong certificates or proxies in the environment are one clear error that is not retried."""
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        api = AsyncCustomersAPI(TOKEN)
        with pytest.raises(APIConnectionError, match="environment variables for proxies") as caught:
            await api.list("corp_1")
        assert not caught.value.transient
        assert "hunt" not in f"{caught.value}{caught.value.__cause__}"
