"""The sender of requests, the user's client or the SDK's own: when it opens and closes, and whether it may be used."""

import errno
import gc
import math
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import anyio
import httpx

from .._cancellation import check_stack, in_child_task
from .._event_loops import EventLoop, current_event_loop
from .._secret import Secret
from .._threads import in_daemon_thread
from ..errors import APIConnectionError, APITimeoutError
from ..query import PARAMETERS
from .base_url import PATH, customers_url
from .exchange import Exchange, RawResponse
from .library import Library
from .logs import filter_logs, redacted_logs
from .senders import MAX_CONNECTIONS, ClientSender, Sender, Transport, check_transport, own_sender

T = TypeVar("T")

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
    Sends requests through the user's client, or through a sender of its own, which it opens when it is first needed.

    Attributes:
        base_url: The address of the API.
        connections: Counts the free connections. A task that has acquired one never waits in the pool of the HTTP library,
            where the wait would count as part of an attempt.
    """

    def __init__(
        self, base_url: str, client: AnyAsyncClient | None, *, max_response_bytes: int, transport: Transport = "httpx"
    ) -> None:
        """
        Check the arguments; open nothing yet.

        Raises:
            ValueError: A token must not be sent to *base_url*, or *client* has parameters of the API.
            TypeError: *client* is not an `AsyncClient` of httpx or httpx2.
        """
        self._url = customers_url(base_url)
        self.base_url = str(self._url).removesuffix(PATH)
        self.connections = anyio.Semaphore(MAX_CONNECTIONS, fast_acquire=True)
        self._exchange = Exchange(
            url=str(self._url), netloc=self._url.netloc.decode("ascii"), max_response_bytes=max_response_bytes
        )
        # httpx2 has the interface of httpx, so httpx's types stand for both from here on.
        self._sender: Sender | None = None if client is None else ClientSender(_checked(cast("httpx.AsyncClient", client)))
        self._transport: Transport = check_transport(transport, client)
        filter_logs()
        self._is_own = client is None
        self._is_closed = False
        self._opening = anyio.Lock()
        self._event_loop: EventLoop | None = None
        self._in_flight = set[anyio.CancelScope]()

    async def open(self) -> Sender:
        """
        Return the sender of requests. Make it if there is none yet.

        Raises:
            RuntimeError: It was closed, or it is in use in another event loop or process.
        """
        self.check_usable()
        return self._sender or await self._open_own()

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

    async def _open_own(self) -> Sender:
        async with self._opening:
            self.check_usable()
            if self._sender is None:
                self._sender = await self._new_sender()
                self.check_usable()  # if it was closed meanwhile: `aclose` waits for the lock, and closes the sender
            return self._sender

    async def _new_sender(self) -> Sender:
        if self._transport == "pyreqwest" and not current_event_loop().is_asyncio:
            raise RuntimeError("transport: pyreqwest works on asyncio only; on trio, leave it out")

        try:
            return await in_daemon_thread(partial(own_sender, self._url, self._transport))
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
        Close the SDK's own sender; a client of the user stays open. May be called more than once.

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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                self._sender = None
                gc.collect()

    async def _close_own(self) -> None:
        async with self._opening:
            if self._is_own and self._sender is not None:
                await self._sender.aclose()

    async def get(
        self,
        query: str,
        secret: Secret,
        use: Callable[[RawResponse], Awaitable[T]],
        *,
        time_limit: float | None,
        no_cache: bool = False,
    ) -> T:
        """
        Send one request, receive its response, and return what *use* returns: see `Exchange.get`.

        Raises:
            APITimeoutError: The response was not complete after *time_limit* seconds.
            RuntimeError: The client was closed, before the request or while it was in flight.
        """

        async def use_complete(response: RawResponse) -> T:
            # The response came in time. While a large one is decoded, other tasks run, perhaps for longer than the limit.
            scope.deadline = math.inf
            return await use(response)

        sender = self._sender
        if sender is None or self._is_closed:
            sender = await self.open()
        exchange = partial(self._exchange.get, sender, query, secret, use_complete, no_cache=no_cache)
        with anyio.move_on_after(time_limit) as scope, redacted_logs(secret):
            self._in_flight.add(scope)
            try:
                return await (in_child_task(exchange) if sender.needs_child_task else exchange())
            finally:
                self._in_flight.discard(scope)

        # Reached only when the scope was cancelled.
        self.check_usable()
        raise APITimeoutError(f"no complete response within the timeout of {time_limit:g} s", transient=True)


def _checked(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Refuse a user's client that is of another library, or that would add parameters of the API to every request."""
    Library.of(type(client))
    for name in PARAMETERS:
        if name in client.params:
            raise ValueError(f"http_client: its params contain {name!r}; pass it to list() or stream() instead")
    return client
