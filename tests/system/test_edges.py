"""What edges, proxies and caches in front of an API send, over real HTTP: what the tables of `docs/faults.md` do not say."""

import gzip
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx
import httpx2
import pytest

from behaviours import BODY, HEAD, QUICK, MakeAPI
from commenda_customers import (
    APIConnectionError,
    APIStatusError,
    AsyncCustomersAPI,
    CustomersError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    ServerError,
)
from raw_server import TOKEN, Connection, RawServer, listing, ok

pytestmark = pytest.mark.anyio

TWICE = RetryPolicy(max_attempts=2, initial_wait=0.001)


def response(status: int, *headers: str, body: bytes = b"") -> bytes:
    """Return the bytes of a response. Its connection is not used again."""
    length = [] if status in {204, 304} else [f"Content-Length: {len(body)}"]
    return "\r\n".join([f"HTTP/1.1 {status:03} Hm", *length, "Connection: close", *headers]).encode() + b"\r\n\r\n" + body


PAGE = response(200, body=BODY)


def serve_always(raw_server: RawServer, *responses: bytes) -> None:
    """Give these responses, one on each connection from now on; the last one again and again."""
    raw_server.requests.clear()

    def behaviour(connection: Connection) -> None:
        if head := connection.read_request():
            raw_server.requests.append(head)
            connection.send(responses[min(len(raw_server.requests), len(responses)) - 1])

    raw_server.behave(behaviour)


async def outcome(raw_server: RawServer, api: AsyncCustomersAPI, answer: bytes) -> tuple[CustomersError | None, int]:
    """Return the error that an answer leads to, and how many requests it costs."""
    serve_always(raw_server, answer)
    try:
        await api.list("corp_1")
    except CustomersError as error:
        return error, len(raw_server.requests)
    return None, len(raw_server.requests)


@pytest.fixture
async def api(make_api: MakeAPI) -> AsyncGenerator[AsyncCustomersAPI]:
    """Return a client that makes two attempts."""
    async with make_api(retry=TWICE, rate_limit=None) as client:
        yield client


@pytest.mark.parametrize("headers", [["Content-Encoding: gzip"], []])
async def test_a_success_without_a_body_is_final(headers: list[str], raw_server: RawServer, api: AsyncCustomersAPI) -> None:
    """A complete 2xx without a body costs one request, and says what came."""
    for status in (200, 202, 204, 205):
        error, requests = await outcome(raw_server, api, response(status, *headers))
        assert f"the server answered {status}" in str(error)
        assert "without a body: a page was expected" in str(error)
        assert requests == 1


async def test_a_forbidden_request_may_come_back(raw_server: RawServer, api: AsyncCustomersAPI) -> None:
    """A 403 that says how long to wait is retried. With too long a wait, or none, it is raised immediately."""
    serve_always(raw_server, response(403, "Retry-After: 0.05"), PAGE)
    assert len(await api.list("corp_1")) == 2
    error, requests = await outcome(raw_server, api, response(403, "Retry-After: 86400"))
    assert isinstance(error, RateLimitError)
    assert (error.retry_after, requests) == (86400, 1)
    error, requests = await outcome(raw_server, api, response(403))
    assert isinstance(error, PermissionDeniedError)
    assert requests == 1


async def test_two_headers_are_one_list(raw_server: RawServer, api: AsyncCustomersAPI) -> None:
    """`Content-Encoding` that was sent twice is one list: with gzip in both, it is refused at once."""
    body = gzip.compress(BODY)
    headers = ("Content-Encoding: identity", "Content-Encoding: gzip")
    assert await outcome(raw_server, api, response(200, *headers, body=body)) == (None, 1)
    error, requests = await outcome(raw_server, api, response(200, *[headers[1]] * 2, body=gzip.compress(body)))
    assert "only gzip was asked for" in str(error)
    assert requests == 1


class TestProxies:
    """A proxy that refuses the connection."""

    @staticmethod
    async def error_through(proxy: RawServer, client: Any) -> CustomersError:
        """Return the error of a request through a proxy, and check that it shows no password."""
        api = AsyncCustomersAPI(TOKEN, base_url="https://api.example/v1", http_client=client, retry=TWICE, rate_limit=None)
        async with api:
            with pytest.raises(CustomersError) as caught:
                await api.list("corp_1")
        shown = f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"
        assert "hunter2" not in shown
        assert all(TOKEN.encode() not in head for head in proxy.requests)
        return caught.value

    @pytest.mark.parametrize(
        ("client", "status", "is_transient"),
        [(None, 407, False), (None, 502, True), (httpx, 403, False), (httpx2, 407, False), (httpx2, 520, True)],
    )
    async def test_its_refusal_is_its_own(
        self, client: Any, status: int, is_transient: bool, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names the proxy and what it answered; a refusal for good costs one attempt."""
        serve_always(raw_server, response(status, "Proxy-Authenticate: Basic"))
        address = raw_server.url.replace("http://", "http://user:hunter2@")
        if client is None:
            monkeypatch.setenv("HTTPS_PROXY", address)
            error = await self.error_through(raw_server, None)
        else:
            async with client.AsyncClient(proxy=address) as http_client:
                error = await self.error_through(raw_server, http_client)
        assert type(error) is APIConnectionError
        name = raw_server.url.removeprefix("http://")
        assert f"the proxy {name} refused the connection to api.example: {status} Hm" in str(error)
        assert ("check the proxy and its password" in str(error)) is not is_transient
        assert (error.transient, len(raw_server.requests)) == (is_transient, 1 + is_transient)
        assert raw_server.requests[0].startswith(b"CONNECT api.example:443 ")

    async def test_a_407_of_a_forwarding_proxy_is_final(self, raw_server: RawServer) -> None:
        """A proxy that forwards plain HTTP gives a response of its own, which says that it wants a password."""
        serve_always(raw_server, response(407, "Proxy-Authenticate: Basic"))
        async with (
            httpx.AsyncClient(proxy=raw_server.url) as client,
            AsyncCustomersAPI(TOKEN, base_url="http://localhost:1/v1", http_client=client, retry=TWICE) as api,
        ):
            with pytest.raises(APIStatusError, match="407 Proxy Authentication Required; a proxy asks") as caught:
                await api.list("corp_1")
        assert (caught.value.attempts, caught.value.transient) == (1, False)


class CachingTransport(httpx.AsyncBaseTransport):
    """A private cache that stores every complete 200, and serves it until a request says `no-cache`."""

    def __init__(self) -> None:
        self._origin = httpx.AsyncHTTPTransport()
        self._store: dict[str, httpx.Response] = {}
        self.served = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        if url not in self._store or request.headers.get("Cache-Control") == "no-cache":
            response = await self._origin.handle_async_request(request)
            stream = cast("httpx.AsyncByteStream", response.stream)
            body = httpx.ByteStream(b"".join([part async for part in stream]))
            await response.aclose()
            stored = httpx.Response(response.status_code, headers=response.headers, stream=body)
            if stored.status_code != 200:
                return stored
            self._store[url] = stored
        else:
            self.served += 1
        kept = self._store[url]
        return httpx.Response(kept.status_code, headers=kept.headers, stream=kept.stream)

    async def aclose(self) -> None:
        await self._origin.aclose()


UNUSABLE = {
    "cut": ok(None, body=BODY[:-9]),
    "no JSON": ok(None, body=b"<html>"),
    "gzip cut": ok(None, body=gzip.compress(BODY)[:-9], headers=["Content-Encoding: gzip"]),
    "gzip damaged": ok(None, body=b"\x1f\x8bnonsense", headers=["Content-Encoding: gzip"]),
    "foreign": ok(listing("x", corporation_id="corp_2")),
}


class TestCaches:
    """Caches between client and server: an unusable page in a cache does not come back for ever."""

    @pytest.mark.parametrize("fault", UNUSABLE)
    async def test_an_unusable_page_is_asked_for_past_the_cache(self, fault: str, raw_server: RawServer) -> None:
        """The retry after an unusable 200 reaches the server, through a cache that would serve the page again."""
        serve_always(raw_server, UNUSABLE[fault], response(502), PAGE)
        cache = CachingTransport()
        async with (
            httpx.AsyncClient(transport=cache) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client, retry=QUICK) as api,
        ):
            assert len(await api.list("corp_1")) == 2
            assert len(await api.list("corp_1")) == 2
        assert (len(raw_server.requests), cache.served) == (3, 1)

    async def test_only_the_retry_passes_the_cache(self, raw_server: RawServer, make_api: MakeAPI) -> None:
        """No request says `no-cache` but those that follow an unusable 2xx of the same page."""
        serve_always(
            raw_server,
            response(502),
            response(429),
            HEAD + b"Content-Length: 99\r\n\r\n{",
            response(503),
            ok(None, body=b"{"),
            ok(listing("a", cursor="1")),
            ok(listing("b")),
        )
        async with make_api(retry=RetryPolicy(max_attempts=9, initial_wait=0.01)) as api:
            assert [customer.id async for customer in api.list("corp_1")] == ["a", "b"]
        said = [b"cache-control: no-cache\r\n" in head.lower() for head in raw_server.requests]
        assert said == [False, False, False, True, True, True, False]


async def test_a_stored_error_page_of_an_edge_is_shown(raw_server: RawServer, api: AsyncCustomersAPI) -> None:
    """The error of an edge has the beginning of its page, also if it is plain and calls itself gzip."""
    body = json.dumps({"message": "origin down"}).encode()
    error, requests = await outcome(raw_server, api, response(521, "Content-Encoding: gzip", body=body))
    assert isinstance(error, ServerError)
    assert error.body_excerpt == '{"message": "origin down"}'
    assert "521 (the server behind the edge refuses connections)" in str(error)
    assert requests == 2
