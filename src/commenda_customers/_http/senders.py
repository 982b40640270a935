"""
How a request is sent: through the user's client of the HTTP library, or through what the SDK makes for itself.

The SDK makes an httpx transport, and no client around it. A client adds auth, cookies, redirects and hooks, and the SDK uses
none of these. Without a client, a page takes 10 % less time. The SDK makes a client only if the environment names a proxy,
or if the pool of the transport cannot be replaced.
"""

import ssl
import urllib.request
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal, Protocol, cast, get_args

import httpx

from .._threads import import_for_good
from .._version import __version__
from .body import ACCEPT_ENCODING
from .internals import POOL_NAME
from .library import Library

MAX_CONNECTIONS = 100
"""The most connections, and so the most requests in flight. It is the size of httpx's default pool."""

HEADERS = {"Accept": "application/json", "Accept-Encoding": ACCEPT_ENCODING}
USER_AGENT = f"commenda-customers/{__version__}"

SECONDS_IDLE = 5.0
"""A connection that was idle for longer is closed. It is the default of httpx."""

Transport = Literal["httpx", "pyreqwest"]
"""The library whose transport for httpx opens the connections. pyreqwest is faster, and an extra."""

_SCHEMES_OF_PROXIES = frozenset({"https", "all"})


class Sender(Protocol):
    """
    Sends requests.

    Attributes:
        library: The library whose exceptions it raises.
        needs_child_task: Whether a cancellation could harm a connection without a child task, see `in_child_task`.
    """

    library: Library
    needs_child_task: bool

    def request(self, url: str, extensions: dict[str, Any]) -> httpx.Request:
        """Make a GET request with `HEADERS`."""
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

    def request(self, url: str, extensions: dict[str, Any]) -> httpx.Request:
        """Make a GET request with `HEADERS`, and with what the client adds to all of its requests."""
        return self._client.build_request(
            "GET",
            url,
            # httpx adds the parameters of a client only to parameters that are passed here. To parse them again takes 3 %.
            params=self.library.module.URL(url).params if self._client.params else None,
            headers=HEADERS,
            # The caller limits the whole attempt. The library limits each read only: a slow server stays below that.
            timeout=None,
            extensions=extensions,
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
    """Sends through a transport of httpx whose connections a cancellation does not harm."""

    library = Library(httpx)
    needs_child_task = False

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._headers = httpx.Headers({**HEADERS, "Connection": "keep-alive", "User-Agent": USER_AGENT})

    def request(self, url: str, extensions: dict[str, Any]) -> httpx.Request:
        """Make a GET request with `HEADERS`."""
        return httpx.Request("GET", url, headers=self._headers, extensions=extensions)

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send it, and receive the headers of its response."""
        try:
            return await self._transport.handle_async_request(request)
        except httpx.RequestError as exc:
            exc.request = request  # as a client of httpx does
            raise

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


def check_transport(transport: Transport, client: object) -> Transport:
    """
    Refuse a transport that cannot be used.

    Raises:
        ValueError: It is unknown, or *client* has one of its own.
        ModuleNotFoundError: Its package is not installed.
    """
    if transport not in get_args(Transport):
        raise ValueError(f'transport: must be "httpx" or "pyreqwest", got {transport!r}')
    if transport == "httpx":
        return transport
    if client is not None:
        raise ValueError("transport: cannot be combined with http_client, which has a transport of its own")
    try:
        import_for_good(f"{transport}.client")  # 2 ms, once
    except ImportError as exc:
        raise ModuleNotFoundError(
            f"transport: {transport!r} needs the extra {transport!r}: pip install '/path/to/clone[{transport}]'"
        ) from exc

    return transport


def own_sender(url: httpx.URL, transport: Transport) -> Sender:
    """
    Return the SDK's own sender for *url*. Blocks for tens of milliseconds: imports httpcore, reads certificates.

    Raises:
        httpx.InvalidURL: The environment contains a proxy that is not a URL.
        OSError: The environment names certificates that do not exist, or there are no file descriptors left.
        ImportError: The environment contains a proxy that needs another package.
        ValueError: The environment contains a proxy of another kind.
    """
    # Plain http is for loopback: no proxy of the environment may see the token.
    may_need_proxy = url.scheme == "https" and not _SCHEMES_OF_PROXIES.isdisjoint(urllib.request.getproxies())
    if transport == "pyreqwest":
        from .pyreqwest_transport import PyreqwestTransport  # noqa: PLC0415 - an extra

        return TransportSender(PyreqwestTransport(may_need_proxy=may_need_proxy, seconds_idle=SECONDS_IDLE))

    return _httpx_sender(url, may_need_proxy=may_need_proxy)


def _httpx_sender(url: httpx.URL, *, may_need_proxy: bool) -> Sender:
    from .connections import ConnectionStack  # noqa: PLC0415 - imports httpcore

    # The context for plain http trusts no certificate, and is not used.
    context = httpx.create_ssl_context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.AsyncHTTPTransport(verify=context)
    if may_need_proxy or not hasattr(transport, POOL_NAME):
        return ClientSender(_own_client(context, trust_env=may_need_proxy))

    setattr(transport, POOL_NAME, ConnectionStack(url, context, seconds_idle=SECONDS_IDLE))
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
