"""The client as a whole: its arguments, its life, the HTTP clients that users bring."""

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from commenda_customers import APIConnectionError, AsyncCustomersAPI, BadRequestError, RetryPolicy
from commenda_customers.client import DEFAULT_BASE_URL
from conftest import TOKEN
from raw_server import RawServer, listing, ok

GOOD = ok(listing("a"))


def base_url_of(**options: Any) -> str:
    """Return the base URL that a client ends up with."""
    return AsyncCustomersAPI(TOKEN, **options).base_url


class TestArguments:
    """What the constructor takes and refuses."""

    def test_the_base_url_has_a_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The argument wins over the environment, the environment over the vendor's address."""
        assert base_url_of() == DEFAULT_BASE_URL
        monkeypatch.setenv("COMMENDA_BASE_URL", "https://staging.example/v1")
        assert base_url_of() == "https://staging.example/v1"
        assert base_url_of(base_url="https://other.example") == "https://other.example"

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
    def test_plain_http_is_for_loopback(self, host: str) -> None:
        """On this machine a token may go over plain HTTP."""
        assert base_url_of(base_url=f"http://{host}:8000/v1") == f"http://{host}:8000/v1"

    @pytest.mark.parametrize(
        ("base_url", "words"),
        [
            ("http://api.example/v1", "plain http would show the token"),
            ("http://localhost.evil.example/", "plain http would show the token"),
            ("http://10.0.0.1/", "plain http would show the token"),
            ("http://0.0.0.0/", "plain http would show the token"),
            ("http://127.0.0.1@evil.example/", "must not hold a user name"),
            ("https://user:hunter2@api.example/", "must not hold a user name"),
            ("ftp://api.example/", "must begin with https"),
            ("api.example/v1", "must begin with https"),
            ("https://", "must begin with https"),
            ("https://api.example/?a=b", "query or a fragment"),
            ("https://api.example/#top", "query or a fragment"),
            ("https://api.example:port/", "not a URL"),
            ("https://api.example:99999/", "no such host or port"),
            ("https://a..example/", "no such host or port"),
            (f"https://{'a' * 64}.example/", "no such host or port"),
            ("https://api.example/\x00", "not a URL"),
        ],
    )
    def test_bad_base_urls_are_refused(self, base_url: str, words: str) -> None:
        """What no token should be sent to is refused by name; a password in it is not repeated."""
        with pytest.raises(ValueError, match=f"base_url: .*{words}") as caught:
            AsyncCustomersAPI(TOKEN, base_url=base_url)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"timeout": 0}, ValueError),
            ({"timeout": -1}, ValueError),
            ({"timeout": "30"}, TypeError),
            ({"timeout": 10**400}, ValueError),
            ({"max_response_bytes": 0}, ValueError),
            ({"max_response_bytes": 1e6}, TypeError),
            ({"retry": 3}, TypeError),
            ({"hooks": print}, TypeError),
            ({"hooks": [print, 5]}, TypeError),
            ({"hooks": [anyio.sleep]}, TypeError),
            ({"http_client": object()}, TypeError),
        ],
    )
    def test_bad_options_are_refused_by_name(self, options: dict[str, Any], error: type[Exception]) -> None:
        """An option that breaks its rule is refused with its name."""
        with pytest.raises(error, match=next(iter(options))):
            AsyncCustomersAPI(TOKEN, **options)

    @pytest.mark.parametrize("library", [httpx, httpx2])
    def test_a_client_that_would_change_the_question_is_refused(self, library: Any) -> None:
        """A client whose own parameters would narrow every list is refused with their name; others are its affair."""
        with pytest.raises(ValueError, match="http_client: its params hold 'search_term'"):
            AsyncCustomersAPI(TOKEN, http_client=library.AsyncClient(params={"search_term": "labs"}))
        AsyncCustomersAPI(TOKEN, http_client=library.AsyncClient(params={"tenant": "7"}))

    @pytest.mark.parametrize("library", [httpx, httpx2])
    def test_a_synchronous_client_is_refused(self, library: Any) -> None:
        """A client that cannot be awaited is refused at construction, with the class that is wanted."""
        with library.Client() as client, pytest.raises(TypeError, match=r"expected an httpx\.AsyncClient .* got Client"):
            AsyncCustomersAPI(TOKEN, http_client=client)

    def test_hooks_may_come_from_any_iterable(self) -> None:
        """Hooks that are given as a generator are all there."""
        api = AsyncCustomersAPI(TOKEN, hooks=(hook for hook in (print, repr)))  # type: ignore[arg-type]  # not a Sequence
        assert api._fetcher.hooks == (print, repr)

    def test_wrong_parameters_never_reach_the_server(self) -> None:
        """`list` refuses a bad argument when it is called, before anything is awaited."""
        api = AsyncCustomersAPI(TOKEN)
        with pytest.raises(ValueError, match="limit"):
            api.list("corp_1", limit=101)
        with pytest.raises(ValueError, match="cursor"):
            api.list("corp_1", cursor="")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[httpx.AsyncClient]:
    """Return the list of the HTTP clients that the SDK opens in this test."""
    clients: list[httpx.AsyncClient] = []
    init = httpx.AsyncClient.__init__

    def record(self: httpx.AsyncClient, **options: Any) -> None:
        init(self, **options)
        clients.append(self)

    monkeypatch.setattr(httpx.AsyncClient, "__init__", record)
    return clients


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
        """A closed client says so, whether it was ever used or not, and opens nothing."""
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

    async def test_first_uses_at_once_open_one_client(self, opened: list[httpx.AsyncClient]) -> None:
        """Requests that come while the client is being opened wait for it, and share it."""
        api = AsyncCustomersAPI(TOKEN, base_url="https://127.0.0.1:1", retry=RetryPolicy(max_attempts=1))

        async def fetch() -> None:
            with pytest.raises(APIConnectionError):
                await api.list("corp_1")

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(fetch)
        await api.aclose()
        assert [client.is_closed for client in opened] == [True]

    async def test_closed_while_it_opens(self, opened: list[httpx.AsyncClient]) -> None:
        """A client that is closed while its first requests open it tells them, and leaves nothing open."""
        api = AsyncCustomersAPI(TOKEN, base_url="https://127.0.0.1:1")

        async def fetch() -> None:
            with pytest.raises(RuntimeError, match="closed"):
                await api.list("corp_1")

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(fetch)
            await anyio.wait_all_tasks_blocked()
            await api.aclose()
        assert [client.is_closed for client in opened] == [True]

    async def test_cancellation_closes_the_connections(self, raw_server: RawServer) -> None:
        """A block that is left by cancellation leaves no open connection behind."""
        raw_server.behave(raw_server.answers(GOOD))
        with anyio.move_on_after(0.2) as scope:
            async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
                await api.list("corp_1")
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        gc.collect()  # an open socket would be a warning, and so an error
        client = api._fetcher.http._client
        assert client is not None
        assert client.is_closed

    @pytest.mark.parametrize("library", [httpx, httpx2])
    async def test_the_users_client_stays_open(self, raw_server: RawServer, library: Any) -> None:
        """What the user opened the user closes."""
        raw_server.behave(raw_server.answers(GOOD))
        async with library.AsyncClient() as client:
            async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api:
                await api.list("corp_1")
            assert not client.is_closed

    async def test_opening_does_not_block_the_event_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The certificates are read in a thread."""
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
        ("name", "value"), [("SSL_CERT_FILE", "/nowhere.pem"), ("ALL_PROXY", "gopher://x"), ("NO_PROXY", "[::1")]
    )
    async def test_settings_of_the_environment_may_be_wrong(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Certificates or proxies that the environment names wrongly are one clear error, and nothing to try again."""
        monkeypatch.setenv(name, value)
        api = AsyncCustomersAPI(TOKEN)
        with pytest.raises(APIConnectionError, match="settings of the environment") as caught:
            await api.list("corp_1")
        assert not caught.value.transient

    async def test_proxies_of_the_environment_do_not_see_loopback(
        self, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy that the environment names is not used for plain HTTP on this machine."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        raw_server.behave(raw_server.answers(GOOD))
        async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=RetryPolicy(max_attempts=1)) as api:
            assert len(await api.list("corp_1")) == 1


@pytest.mark.anyio
class TestUsersClient:
    """What a user's client may bring along."""

    async def test_its_auth_does_not_replace_the_token(self, raw_server: RawServer) -> None:
        """Auth of the user's client is for other servers; this one gets the token."""
        raw_server.behave(raw_server.answers(GOOD))
        async with (
            httpx.AsyncClient(auth=("user", "pass"), headers={"Authorization": "Bearer other", "X-Team": "tax"}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            await api.list("corp_1")
        head = raw_server.requests[0].decode()
        assert head.lower().count("authorization:") == 1
        assert f"Bearer {TOKEN}" in head
        assert "X-Team: tax" in head

    async def test_its_hooks_may_read_the_answer(self, raw_server: RawServer) -> None:
        """A hook that reads the body does not take it away."""
        raw_server.behave(raw_server.answers(GOOD))
        bodies: list[bytes] = []

        async def log(response: httpx.Response) -> None:
            bodies.append(await response.aread())

        async with (
            httpx.AsyncClient(event_hooks={"response": [log]}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            assert len(await api.list("corp_1")) == 1
        assert len(bodies) == 1

    @pytest.mark.parametrize("reads", [True, False])
    async def test_its_hooks_may_raise_for_the_status(self, raw_server: RawServer, reads: bool) -> None:
        """A hook that raises for an error status does not hide which error it was."""
        raw_server.behave(raw_server.answers(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nwhy"))

        async def check(response: httpx.Response) -> None:
            if reads:
                await response.aread()
            response.raise_for_status()

        async with (
            httpx.AsyncClient(event_hooks={"response": [check]}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            with pytest.raises(BadRequestError) as caught:
                await api.list("corp_1")
        assert caught.value.body_excerpt == ("why" if reads else None)

    async def test_its_hooks_have_affairs_of_their_own(self, raw_server: RawServer) -> None:
        """A status error that a hook raises about a request of its own is not taken for the API's answer."""
        elsewhere = httpx.Response(404, request=httpx.Request("GET", "https://vault.example/"))

        async def ask_the_vault(_request: httpx.Request) -> None:
            elsewhere.raise_for_status()

        async with (
            httpx.AsyncClient(event_hooks={"request": [ask_the_vault]}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            with pytest.raises(httpx.HTTPStatusError, match=r"vault\.example"):
                await api.list("corp_1")

    async def test_its_hooks_may_take_the_token_out(self, raw_server: RawServer) -> None:
        """A hook that changes the request, even its authorization, is obeyed."""
        raw_server.behave(raw_server.answers(GOOD))

        async def sign(request: httpx.Request) -> None:
            del request.headers["Authorization"]
            request.headers["X-Signed-By-Proxy"] = "yes"

        async with (
            httpx.AsyncClient(event_hooks={"request": [sign]}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            assert len(await api.list("corp_1")) == 1
        assert b"X-Signed-By-Proxy: yes" in raw_server.requests[0]

    async def test_its_subclasses_work(self, raw_server: RawServer) -> None:
        """A client of a class that the user derived is taken for what it is."""

        class Traced(httpx2.AsyncClient):
            pass

        raw_server.behave(raw_server.answers(GOOD))
        async with Traced() as client, AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api:
            assert len(await api.list("corp_1")) == 1


class TestElsewhere:
    """Event loops and processes other than the one where the client was first used."""

    def test_another_event_loop_is_refused(self, raw_server: RawServer) -> None:
        """A second event loop gets a clear error instead of one about a loop that is closed."""
        raw_server.behave(raw_server.answers(GOOD))
        api = AsyncCustomersAPI(TOKEN, base_url=raw_server.url)

        async def use_and_close() -> None:
            await api.list("corp_1")
            await api._fetcher.http._client.aclose()  # type: ignore[union-attr]  # it is open; only the connections are to be closed

        asyncio.run(use_and_close())
        with pytest.raises(RuntimeError, match="in use in another event loop or process; make one for each"):
            asyncio.run(_fetch(api))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_fork_is_refused(self, raw_server: RawServer) -> None:
        """A client that was used before a fork does not share its connections with the child."""
        code = (
            "import anyio, os, sys\n"
            "from commenda_customers import AsyncCustomersAPI\n"
            "async def main():\n"
            f"    async with AsyncCustomersAPI('token', base_url='{raw_server.url}') as api:\n"
            "        await api.list('corp_1')\n"
            "        is_child = os.fork() == 0\n"
            "        try:\n"
            "            print(len(await api.list('corp_1')))\n"
            "        except RuntimeError as exc:\n"
            "            print(exc)\n"
            "        sys.stdout.flush()\n"
            "        os._exit(0) if is_child else os.wait()\n"
            "anyio.run(main, backend='trio')\n"
        )
        raw_server.behave(raw_server.answers(GOOD, GOOD))
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert sorted(done.stdout.splitlines()) == [
            "1",
            "this AsyncCustomersAPI is in use in another event loop or process; make one for each",
        ]

    def test_it_cannot_be_pickled(self) -> None:
        """A client belongs to its process, and its token to nobody else."""
        with pytest.raises(TypeError, match="a token cannot be pickled or copied"):
            pickle.dumps(AsyncCustomersAPI(TOKEN))


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
    extras = {"click", "httpx2", "hypothesis", "pytest", "rich", "trio", "uvicorn"}
    assert "commenda_customers" in done.stdout
    assert not extras & set(done.stdout.split())
