"""The client of the HTTP library, the user's or the SDK's own: when it opens and closes, and whether it may be used."""

import errno
import gc
import ssl
import urllib.request
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread
import httpcore
import httpx

from .._cancellation import in_child_task
from .._checks import check_stack
from .._event_loops import EventLoop, current_event_loop
from .._secret import Secret
from .._version import __version__
from ..errors import APIConnectionError
from ..query import PARAMETERS
from .base_url import PATH, customers_url
from .connections import ConnectionStack
from .exchange import Exchange, RawResponse
from .library import Library
from .logs import filter_logs, redacted_logs

MAX_CONNECTIONS = 100
"""The most connections, and so the most requests in flight. It is the size of httpx's default pool."""

_SECONDS_TO_CLOSE = 5.0
_EXHAUSTED = {errno.EMFILE, errno.ENFILE}


class AnyAsyncClient(Protocol):
    """
    An `httpx.AsyncClient` or an `httpx2.AsyncClient`, for type checkers. No other client is accepted.

    A union of the two would accept everything where httpx2 is not installed.
    """

    @property
    def build_request(self) -> Callable[..., Any]:
        """Make a request."""
        ...

    @property
    def send(self) -> Callable[..., Awaitable[Any]]:
        """Send it."""
        ...


class HTTPClient:
    """
    Sends requests through the user's client, or through its own, which it opens when it is first needed.

    Attributes:
        base_url: The address of the API.
        connections: Counts the free connections. A task that has acquired one never waits in the pool of the HTTP library,
            where the wait would count as part of an attempt.
    """

    def __init__(self, base_url: str, client: AnyAsyncClient | None, *, max_response_bytes: int) -> None:
        """
        Check the arguments; open nothing yet.

        Raises:
            ValueError: A token must not be sent to *base_url*, or *client* has parameters of the API.
            TypeError: *client* is not an `AsyncClient` of httpx or httpx2.
        """
        url = customers_url(base_url)
        self.base_url = str(url).removesuffix(PATH)
        self._is_encrypted = url.scheme == "https"
        self._origin = httpcore.Origin(url.raw_scheme, url.raw_host, url.port or (443 if self._is_encrypted else 80))
        self.connections = anyio.Semaphore(MAX_CONNECTIONS, fast_acquire=True)
        self._exchange = Exchange(
            Library.of(httpx.AsyncClient if client is None else type(client)),
            url=str(url),
            netloc=url.netloc.decode("ascii"),
            max_response_bytes=max_response_bytes,
        )
        # httpx2 has the interface of httpx, so httpx's types stand for both from here on.
        self._client = cast("httpx.AsyncClient | None", client)
        self._check_params()
        filter_logs()
        self._is_own = client is None
        self.needs_child_task = True
        self._is_closed = False
        self._opening = anyio.Lock()
        self._event_loop: EventLoop | None = None
        self._in_flight = set[anyio.CancelScope]()

    def _check_params(self) -> None:
        """Refuse a user's client that would add parameters of the API to every request."""
        for name in PARAMETERS:
            if self._client is not None and name in self._client.params:
                raise ValueError(f"http_client: its params contain {name!r}; pass it to list() or stream() instead")

    async def open(self) -> httpx.AsyncClient:
        """
        Return the HTTP client; open it if that was not done yet.

        Raises:
            RuntimeError: It was closed, or it is in use in another event loop or process.
        """
        self.check_usable()
        return self._client or await self._open_own()

    def check_usable(self) -> None:
        """
        Refuse a use that cannot work.

        Raises:
            RuntimeError: It was closed, or it is in use in another event loop or process.
        """
        if self._is_closed:
            raise RuntimeError("this AsyncCustomersAPI is closed; make a new one")
        self._event_loop = self._event_loop or current_event_loop()
        if not self._event_loop.is_current:
            raise RuntimeError("this AsyncCustomersAPI is in use in another event loop or process; make one for each")

    async def _open_own(self) -> httpx.AsyncClient:
        async with self._opening:
            self.check_usable()
            if self._client is None:
                self._client = await self._new_client()
            return self._client

    async def _new_client(self) -> httpx.AsyncClient:
        try:
            if self._is_encrypted:
                # Reading the certificates takes tens of milliseconds, and must not block the event loop.
                context = await anyio.to_thread.run_sync(httpx.create_ssl_context)
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used; trusts no certificate

            transport = None
            if not (self._is_encrypted and {"https", "all"} & urllib.request.getproxies().keys()):
                transport = httpx.AsyncHTTPTransport(verify=context)
                transport._pool = ConnectionStack(self._origin, context)
                self.needs_child_task = False
            return httpx.AsyncClient(
                verify=context,
                transport=transport,
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
                headers={"User-Agent": f"commenda-customers/{__version__}"},
                # No cookies are kept: a server that sets a new one with each response would make requests grow for ever.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                # Plain http is for loopback: no proxy of the environment may see the token.
                trust_env=self._is_encrypted,
            )
        except httpx.InvalidURL:
            # Do not show this exception, not even as the cause: it may contain a part of the proxy's password.
            raise APIConnectionError("the environment variables for proxies contain an address that is not a URL") from None
        except (OSError, ImportError, ValueError) as exc:
            # The environment names certificates or proxies that do not exist, or there are no file descriptors left.
            raise APIConnectionError(
                f"the HTTP client could not be made from the environment variables for proxies and certificates: {exc}",
                transient=getattr(exc, "errno", None) in _EXHAUSTED,
            ) from exc

    async def aclose(self) -> None:
        """
        Close the SDK's HTTP client; a client of the user stays open. May be called more than once.

        Raises:
            RuntimeError: It is in use in another event loop, which is not closed.
        """
        check_stack()
        if self._event_loop is not None and not self._event_loop.is_current:
            self._close_elsewhere(self._event_loop)
            return

        self._is_closed = True
        # The library closes open connections, but not those that it is still opening.
        for scope in tuple(self._in_flight):
            scope.cancel()
        # A cancelled task comes through here too, and must not leave connections behind.
        with anyio.move_on_after(_SECONDS_TO_CLOSE, shield=True):
            await in_child_task(self._close_own)

    def _close_elsewhere(self, event_loop: EventLoop) -> None:
        """Close it after its event loop has ended, or after a fork."""
        if self._is_closed:
            return
        if not event_loop.has_ended:
            raise RuntimeError("this AsyncCustomersAPI is in use in another event loop, which is not closed; close it there")

        self._is_closed = True
        if self._is_own:
            # Nothing may be sent: the event loop has ended, or another process uses the connections. A socket closes when no
            # reference is left. It then warns, because it was not closed explicitly.
            self._client = None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()

    async def _close_own(self) -> None:
        async with self._opening:
            if self._is_own and self._client is not None:
                await self._client.aclose()

    @asynccontextmanager
    async def get(
        self, params: Sequence[tuple[str, str]], secret: Secret, *, no_cache: bool = False
    ) -> AsyncGenerator[RawResponse]:
        """
        Send one request and receive its response, for the length of a block: see `Exchange.get`.

        Raises:
            RuntimeError: The client was closed, before the request or while it was in flight.
        """
        client = await self.open()
        with anyio.CancelScope() as scope, redacted_logs(secret):
            self._in_flight.add(scope)
            try:
                async with self._exchange.get(client, params, secret, no_cache=no_cache) as response:
                    yield response
            finally:
                self._in_flight.discard(scope)
        if scope.cancelled_caught:
            self.check_usable()
