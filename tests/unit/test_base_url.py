"""The base URL: the client uses an accepted one exactly, and refuses all others."""

from typing import Any

import anyio
import httpx
import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from commenda_customers import AsyncCustomersAPI
from commenda_customers.client import DEFAULT_BASE_URL
from raw_server import TOKEN, listing

CORPORATION = "corp 1/?#"
TRICKS = ["?", "#", "/", "//", "\\", "@", ":", "%2f", "%2F", "%5c", "%2e", "%25", "%3f", "%23", "%zz", "%", "..", ".", " "]
ODD = [
    *TRICKS,
    "\t",
    "\n",
    "\r\n",
    "\x00",
    "\x7f",
    "\u00a0",
    "\u2028",
    "\u3000",
    "\ufeff",
    "é",
    "。",
    "①",
    "[",
    "]",
    ";",
    "'",
]
PARTS = st.one_of(
    st.sampled_from(ODD), st.text(max_size=6), st.sampled_from(["v1", "api", "customers", "a b", "..", "%2e%2e", "%20"])
)
HOSTS = st.one_of(
    st.sampled_from(["api.example", "API.Example", "127.0.0.1", "localhost", "[::1]", "bücher.example", "a_b.example"]),
    st.lists(PARTS, max_size=3).map("".join),
)
NEARLY_GOOD = st.tuples(
    st.sampled_from(["https://api.example", "HTTPS://API.example:443", "http://[::1]:8000", "https://bücher.example:8443"]),
    st.lists(st.one_of(st.sampled_from(["v1", "api", "a%20b", ""]), PARTS), max_size=3).map(
        lambda parts: "/".join(["", *parts])
    ),
).map("".join)
URLS = NEARLY_GOOD | st.tuples(
    st.sampled_from(["", " ", "\n", "\ufeff"]),
    st.sampled_from(["https://", "http://", "HTTPS://", "https:/", "https:", "//", "", "ftp://"]),
    HOSTS,
    st.sampled_from(["", ":8443", ":443", ":", ":0", ":99999", ":x", ":-1"]),
    st.sampled_from(["", "/"]),
    st.lists(PARTS, max_size=5).map("".join),
    st.lists(PARTS, max_size=3).map("/".join),
    st.sampled_from(["", "/", "//", "?", "#", "?a=b", " "]),
).map("".join)


def base_url_of(**options: Any) -> str:
    """Return the base URL that a client ends up with."""
    return AsyncCustomersAPI(TOKEN, **options).base_url


def request_of(base_url: str, library: Any) -> httpx.Request:
    """Return the request for a page that a client of a library sends."""
    requests: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        response: httpx.Response = library.Response(200, json=listing("a", corporation_id=CORPORATION))
        return response

    async def main() -> None:
        async with library.AsyncClient(transport=library.MockTransport(answer), trust_env=False) as client:
            api = AsyncCustomersAPI(TOKEN, base_url=base_url, http_client=client, rate_limit=None)
            await api.list(CORPORATION, limit=7, search_term="a&b")

    anyio.run(main)
    return requests[0]


class TestWhatIsUsed:
    """The URL of the requests."""

    @given(URLS, st.sampled_from([httpx, httpx2]))
    @example("https://api.example/v1?", httpx)
    @example("https://api.example/v1#", httpx)
    @example(" https://api.example:443/v1// ", httpx)
    @example("https://api.example/my%20api/{v1}", httpx2)
    def test_what_is_accepted_is_used(self, base_url: str, library: Any) -> None:
        """The URL of every request is an accepted base URL and `/customers`, with our parameters: same scheme, same host."""
        try:
            accepted = base_url_of(base_url=base_url)
        except ValueError as error:
            assert "base_url: " in str(error)  # noqa: PT017 - what is refused depends on the example
            return

        given_url, url = httpx.URL(base_url.strip()), request_of(base_url, library).url
        address, _, query = str(url).partition("?")
        assert address == accepted + "/customers"
        assert httpx.QueryParams(query).multi_items() == [
            ("corporation_id", CORPORATION),
            ("limit", "7"),
            ("search_term", "a&b"),
        ]
        assert (url.scheme, url.host) == (given_url.scheme, given_url.host)
        assert (url.port or 443) == (given_url.port or 443)
        assert url.path == given_url.path.rstrip("/") + "/customers"
        assert (url.fragment, url.userinfo) == ("", b"")
        assert base_url_of(base_url=accepted) == accepted

    @pytest.mark.parametrize(
        ("base_url", "used"),
        [
            ("https://api.example", "https://api.example"),
            ("https://api.example/", "https://api.example"),
            ("https://api.example/v1//", "https://api.example/v1"),
            ("  https://api.example/v1\n", "https://api.example/v1"),
            ("HTTPS://API.example:443/V1", "https://api.example/V1"),
            ("https://api.example:/v1", "https://api.example/v1"),
            ("https://api.example:8443/v1", "https://api.example:8443/v1"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://api.example/my%20api", "https://api.example/my%20api"),
            ("https://api.example/v1.2/..x", "https://api.example/v1.2/..x"),
        ],
    )
    def test_it_may_be_written_in_many_ways(self, base_url: str, used: str) -> None:
        """Blanks around it and slashes after it do not matter; scheme and host are in lower case."""
        assert base_url_of(base_url=base_url) == used

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
    def test_plain_http_is_for_loopback(self, host: str) -> None:
        """On this machine a token may go over plain HTTP."""
        assert base_url_of(base_url=f"http://{host}:8000/v1") == f"http://{host}:8000/v1"


class TestWhatIsRefused:
    """Base URLs that no token is sent to."""

    @pytest.mark.parametrize(
        ("base_url", "words"),
        [
            ("", "must not be empty"),
            (" \n", "must not be empty"),
            ("http://api.example/v1", "plain http shows the token"),
            ("http://localhost.evil.example/", "plain http shows the token"),
            ("http://10.0.0.1/", "plain http shows the token"),
            ("http://0.0.0.0/", "plain http shows the token"),
            ("http://127.0.0.1@evil.example/", "must not contain a user name"),
            ("https://user:hunter2@api.example/", "must not contain a user name"),
            ("https://user:hunter2/x@api.example/", "must not contain a user name"),
            ("https://api.example\\@evil.example/", "a backslash"),
            ("https://evil.example\\.api.example/", "a backslash"),
            ("https://api.example/v1\\..", "a backslash"),
            ("ftp://api.example/", "must begin with https"),
            ("api.example/v1", "must begin with https"),
            ("https://", "must begin with https"),
            ("https:///v1", "must begin with https"),
            ("https:////evil.example", "must begin with https"),
            ("https:api.example", "must begin with https"),
            ("https://api.example/v1?", "query or a fragment"),
            ("https://api.example/v1#", "query or a fragment"),
            ("https://api.example/?a=hunter2", "query or a fragment"),
            ("https://api.example/#top", "query or a fragment"),
            ("https://api.example:port/", "not a URL"),
            ("https://api.example:99999/", "must have a valid host name"),
            ("https://api.example:0/", "must have a valid host name"),
            ("https://a..example/", "must have a valid host name"),
            ("https://api.example../", "must have a valid host name"),
            ("https://api.exa%6dple/", "must have a valid host name"),
            ("https://xn--a.example/", "must have a valid host name"),
            (f"https://{'a' * 64}.example/", "must have a valid host name"),
            ("https://api.example/a b", "a blank"),
            ("https://api.example/v1\u00a0/x", "a blank"),
            ("https://api.example/\x00", "a control character"),
            ("https://api.example/v1\r\nX: y", "a control character"),
            ("https://api.example/v1/..", "no part '.' or '..'"),
            ("https://api.example/./v1", "no part '.' or '..'"),
            ("https://api.example/v1/%2e%2E", "no encoded dots or slashes"),
            ("https://api.example/v1%2f..", "no encoded dots or slashes"),
            ("https://api.example/v1%5C", "no encoded dots or slashes"),
            ("https://api.example/v1%0d%0aX", "no encoded dots or slashes"),
            ("https://api.example/%252e%252e", "no encoded dots or slashes"),
        ],
    )
    def test_it_is_refused_by_name(self, base_url: str, words: str) -> None:
        """What no token should be sent to is refused with the reason; a password in it is not repeated."""
        with pytest.raises(ValueError, match=f"base_url: .*{words}") as caught:
            AsyncCustomersAPI(TOKEN, base_url=base_url)
        assert "hunter2" not in str(caught.value)

    def test_a_token_in_the_wrong_place_is_not_shown(self) -> None:
        """A token that was passed as the base URL is not in the error."""
        with pytest.raises(ValueError, match="must begin with https") as caught:
            AsyncCustomersAPI(TOKEN, base_url=TOKEN)
        assert TOKEN not in str(caught.value)

    @pytest.mark.parametrize("base_url", [b"https://api.example", httpx.URL("https://api.example"), 5])
    def test_it_is_a_string(self, base_url: Any) -> None:
        """Only a string is accepted as a URL."""
        with pytest.raises(TypeError, match="base_url"):
            AsyncCustomersAPI(TOKEN, base_url=base_url)


class TestTheEnvironment:
    """`COMMENDA_BASE_URL`."""

    def test_it_has_a_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The argument wins over the environment, the environment over the vendor's address."""
        assert base_url_of() == DEFAULT_BASE_URL
        monkeypatch.setenv("COMMENDA_BASE_URL", " https://staging.example/v1\n")
        assert base_url_of() == "https://staging.example/v1"
        assert base_url_of(base_url="https://other.example") == "https://other.example"

    @pytest.mark.parametrize("value", ["", "  ", "\n"])
    def test_an_empty_variable_is_not_set(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable without a value counts as not set; an argument without one is refused all the same."""
        monkeypatch.setenv("COMMENDA_BASE_URL", value)
        assert base_url_of() == DEFAULT_BASE_URL
        with pytest.raises(ValueError, match="base_url: must not be empty"):
            base_url_of(base_url=value)

    def test_it_is_checked_like_the_argument(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No token is sent to an address of the environment that would be refused as an argument."""
        monkeypatch.setenv("COMMENDA_BASE_URL", "https://api.example/v1?")
        with pytest.raises(ValueError, match="query or a fragment"):
            base_url_of()
