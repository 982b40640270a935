"""The client of the HTTP library, the user's or our own: when it opens, when it closes, and whether it may be used."""

import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread
import httpx
from anyio.lowlevel import current_token

from .._cancellation import in_child_task
from .._secret import Secret
from .._version import __version__
from ..errors import APIConnectionError
from ..query import PARAMETERS
from .base_url import PATH, customers_url
from .exchange import Exchange, RawResponse
from .library import Library

MAX_CONNECTIONS = 100
"""The most connections, and so the most requests in flight. It is the size of httpx's default pool."""

_SECONDS_TO_CLOSE = 5.0


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
        self._is_own = client is None
        self._is_closed = False
        self._opening = anyio.Lock()
        self._home: tuple[int, object] | None = None

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
        here = (os.getpid(), current_token())
        self._home = self._home or here
        if self._home != here:
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
                # To read the certificates takes tens of milliseconds, and must not block the event loop.
                context = await anyio.to_thread.run_sync(httpx.create_ssl_context)
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used; trusts no certificate

            return httpx.AsyncClient(
                verify=context,
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
                headers={"User-Agent": f"commenda-customers/{__version__}"},
                # No cookies are kept: a server that sets a new one with each response would make requests grow for ever.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                # Plain http is for loopback: no proxy of the environment may see the token.
                trust_env=self._is_encrypted,
            )
        except httpx.InvalidURL:
            # Neither its text nor itself as the cause: it may hold a part of the proxy's password.
            raise APIConnectionError("the environment variables for proxies contain an address that is not a URL") from None
        except (OSError, ImportError, ValueError) as exc:
            # The environment names certificates or proxies that do not exist.
            raise APIConnectionError(
                f"the HTTP client could not be made from the environment variables for proxies and certificates: {exc}"
            ) from exc

    async def aclose(self) -> None:
        """Close the SDK's HTTP client; a client of the user stays open. May be called more than once."""
        self._is_closed = True
        # A cancelled task comes through here too, and must not leave connections behind.
        with anyio.move_on_after(_SECONDS_TO_CLOSE, shield=True):
            await in_child_task(self._close_own)

    async def _close_own(self) -> None:
        async with self._opening:
            if self._is_own and self._client is not None:
                await self._client.aclose()

    @asynccontextmanager
    async def get(
        self, params: Sequence[tuple[str, str]], secret: Secret, *, past_caches: bool = False
    ) -> AsyncGenerator[RawResponse]:
        """Send one request and receive its response, for the length of a block: see `Exchange.get`."""
        client = await self.open()
        async with self._exchange.get(client, params, secret, past_caches=past_caches) as response:
            yield response
