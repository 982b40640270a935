"""What the client takes and refuses when it is made."""

import pickle
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from commenda_customers import AsyncCustomersAPI
from commenda_customers.client import DEFAULT_BASE_URL
from raw_server import TOKEN


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
            ("http://api.example/v1", "plain http shows the token"),
            ("http://localhost.evil.example/", "plain http shows the token"),
            ("http://10.0.0.1/", "plain http shows the token"),
            ("http://0.0.0.0/", "plain http shows the token"),
            ("http://127.0.0.1@evil.example/", "must not contain a user name"),
            ("https://user:hunter2@api.example/", "must not contain a user name"),
            ("ftp://api.example/", "must begin with https"),
            ("api.example/v1", "must begin with https"),
            ("https://", "must begin with https"),
            ("https://api.example/?a=b", "query or a fragment"),
            ("https://api.example/#top", "query or a fragment"),
            ("https://api.example:port/", "not a URL"),
            ("https://api.example:99999/", "must have a valid host name"),
            ("https://a..example/", "must have a valid host name"),
            (f"https://{'a' * 64}.example/", "must have a valid host name"),
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
    def test_a_client_with_api_parameters_is_refused(self, library: Any) -> None:
        """A client whose own parameters would change the request is refused with their name; others are allowed."""
        with pytest.raises(ValueError, match="http_client: its params contain 'search_term'"):
            AsyncCustomersAPI(TOKEN, http_client=library.AsyncClient(params={"search_term": "labs"}))
        AsyncCustomersAPI(TOKEN, http_client=library.AsyncClient(params={"tenant": "7"}))

    @pytest.mark.parametrize("library", [httpx, httpx2])
    def test_a_synchronous_client_is_refused(self, library: Any) -> None:
        """A client that cannot be awaited is refused at construction, with the class that is wanted."""
        with library.Client() as client, pytest.raises(TypeError, match=r"expected an httpx\.AsyncClient .* got Client"):
            AsyncCustomersAPI(TOKEN, http_client=client)

    def test_hooks_may_come_from_any_iterable(self) -> None:
        """Hooks from a generator are all kept."""
        api = AsyncCustomersAPI(TOKEN, hooks=(hook for hook in (print, repr)))  # type: ignore[arg-type]  # not a Sequence
        assert api._fetcher.hooks == (print, repr)

    def test_wrong_parameters_never_reach_the_server(self) -> None:
        """`list` refuses a bad argument when it is called, before any await."""
        api = AsyncCustomersAPI(TOKEN)
        with pytest.raises(ValueError, match="limit"):
            api.list("corp_1", limit=101)
        with pytest.raises(ValueError, match="cursor"):
            api.list("corp_1", cursor="")


class TestProcesses:
    """Processes."""

    def test_it_cannot_be_pickled(self) -> None:
        """A client and its token stay in their process."""
        with pytest.raises(TypeError, match="a token cannot be pickled or copied"):
            pickle.dumps(AsyncCustomersAPI(TOKEN))
