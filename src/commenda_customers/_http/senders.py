"""
How a request is sent: through the user's client of the HTTP library, or through what the SDK makes for itself.

The SDK makes a transport of httpx, and no client around it: a client adds auth, cookies, redirects and hooks, none of which
the SDK uses. Without it, a page takes 10 % less time. Only if the environment names a proxy, the SDK makes a client.
"""

import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol, cast
from urllib.parse import urlencode

import httpx

from .._version import __version__
from .internals import POOL_NAME
from .library import Library

MAX_CONNECTIONS = 100
"""The most connections, and so the most requests in flight. It is the size of httpx's default pool."""

USER_AGENT = f"commenda-customers/{__version__}"

_SCHEMES_OF_PROXIES = frozenset({"https", "all"})


class Sender(Protocol):
    """
    Sends requests.

    Attributes:
        library: The library whose exceptions it raises.
        needs_child_task: Whether a cancellation may do harm, see `in_child_task`.
    """

    library: Library
    needs_child_task: bool

    def request(
        self, url: str, params: Sequence[tuple[str, str]], headers: Mapping[str, str], extensions: dict[str, Any]
    ) -> httpx.Request:
        """Make a GET request."""
        ...

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send it, and receive the headers of its response."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class ClientSender:
    """Sends through a client of httpx or httpx2."""

    needs_child_task = True

    def __init__(self, client: httpx.AsyncClient) -> None:
        """httpx2 has the interface of httpx, so httpx's types stand for both."""
        self.library = Library.of(type(client))
        self._client = client

    def request(
        self, url: str, params: Sequence[tuple[str, str]], headers: Mapping[str, str], extensions: dict[str, Any]
    ) -> httpx.Request:
        """Make a GET request with what the client adds to all of its requests."""
        # The caller limits the whole attempt. The library limits each read only: a slow server stays below that.
        return self._client.build_request(
            "GET", url, params=list(params), headers=headers, timeout=None, extensions=extensions
        )

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send it, and receive the headers of its response."""
        try:
            # The auth of the user's client would replace the token. A redirect would send the token elsewhere.
            return await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        except self.library.module.HTTPStatusError as exc:
            # A hook of the user's client raised it, for this response or for another request.
            if exc.response.request is not request:
                raise
            return cast("httpx.Response", exc.response)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class TransportSender:
    """Sends through a transport of httpx, on connections that a cancellation does not harm."""

    library = Library(httpx)
    needs_child_task = False

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self._transport = transport
        self._headers = httpx.Headers({"Connection": "keep-alive", "User-Agent": USER_AGENT})

    def request(
        self, url: str, params: Sequence[tuple[str, str]], headers: Mapping[str, str], extensions: dict[str, Any]
    ) -> httpx.Request:
        """Make a GET request."""
        # httpx would parse the URL twice if it got the parameters separately.
        request = httpx.Request("GET", f"{url}?{urlencode(params)}", headers=self._headers, extensions=extensions)
        request.headers.update(headers)
        return request

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send it, and receive the headers of its response."""
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


def own_sender(url: httpx.URL) -> Sender:
    """
    Return the SDK's own sender for *url*. It blocks for tens of milliseconds: it imports httpcore, and reads certificates.

    Raises:
        httpx.InvalidURL: The environment contains a proxy that is not a URL.
        OSError: The environment names certificates that do not exist, or there are no file descriptors left.
        ImportError: The environment contains a proxy that needs another package.
        ValueError: The environment contains a proxy of another kind.
    """
    from .connections import ConnectionStack  # noqa: PLC0415 - imports httpcore

    is_encrypted = url.scheme == "https"
    # A context for plain http is not used; it trusts no certificate.
    context = httpx.create_ssl_context() if is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Plain http is for loopback: no proxy of the environment may see the token.
    may_need_proxy = is_encrypted and not _SCHEMES_OF_PROXIES.isdisjoint(urllib.request.getproxies())
    transport = httpx.AsyncHTTPTransport(verify=context)
    if may_need_proxy or not hasattr(transport, POOL_NAME):
        return ClientSender(_own_client(context, trust_env=is_encrypted))

    setattr(transport, POOL_NAME, ConnectionStack(url, context))
    return TransportSender(transport)


def _own_client(context: ssl.SSLContext, *, trust_env: bool) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=context,
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        headers={"User-Agent": USER_AGENT},
        # No cookies are kept: a server that sets a new one with each response would make requests grow for ever.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=trust_env,
    )
