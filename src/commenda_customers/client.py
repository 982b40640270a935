"""`AsyncCustomersAPI`: composition and documentation. All logic is in the files that it puts together."""

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from pydantic import SecretStr

from ._http import AnyAsyncClient, HTTPClient
from ._paging import CustomerList
from ._transport import Transport
from .auth import TokenProvider, conceal, token_auth
from .events import Hook
from .query import CustomerFilters, CustomersQuery, check_cursor
from .retry import RetryPolicy, check_positive

__all__ = ["AsyncCustomersAPI"]

T = TypeVar("T")

DEFAULT_BASE_URL = "https://transaction-tax.api.in.commenda.io/api/v1"
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_RESPONSE_BYTES = 32 * 1024 * 1024


class AsyncCustomersAPI:
    """
    A client of `GET /customers`, for asyncio and trio.

        async with AsyncCustomersAPI(token="...") as api:
            async for customer in api.list("corp_123"):
                print(customer.id, customer.name)

    Make one and keep it: it holds the connections. Make it where it is used: it belongs to one event loop.
    """

    def __init__(
        self,
        token: str | SecretStr | TokenProvider | None = None,
        *,
        base_url: str | None = None,
        http_client: AnyAsyncClient | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        hooks: Sequence[Hook] = (),
    ) -> None:
        """
        Check the arguments. Nothing is opened or sent before the first request.

        Args:
            token: The Bearer token (section *Authorizations* of the API page), or an async callable that returns one: it
                is called for the first request and again after a 401, one call in flight at a time. `None`: the
                environment variable `COMMENDA_API_TOKEN`.
            base_url: Where the API is. `None`: the environment variable `COMMENDA_BASE_URL`, else the address of the
                vendor's indirect-tax API. Plain `http` is for loopback only.
            http_client: A client of your own, with its transport, proxies, certificates and hooks; it stays yours to
                close. An `httpx2.AsyncClient` works as well. Its timeouts, auth and redirect settings are not used. Give
                its pool 100 connections, or as many as you run requests at once: waiting for one inside of it counts as
                part of an attempt.
            retry: When to try again. `None`: `RetryPolicy()`.
            timeout: Seconds for one attempt by the wall clock, from connecting to the last byte. `None`: no limit. The
                calls of a token provider count against the deadline of `retry` only.
            max_response_bytes: Bytes that one answer may have after decompression. A page that is read takes up to thirty
                times as many in memory, if all its customers are as short as can be.
            hooks: Callables that receive the records of `commenda_customers.events`.

        Raises:
            ValueError: There is no token, or an argument is out of range.
            TypeError: An argument has a wrong type.
        """
        # First of all: the traceback of an error further down must not show it.
        secret = conceal(token)
        del token
        if timeout is not None:
            check_positive("timeout", timeout)
        check_positive("max_response_bytes", max_response_bytes)
        _check_type("max_response_bytes", max_response_bytes, int)
        if retry is not None:
            _check_type("retry", retry, RetryPolicy)
        hooks = tuple(_check_type("hooks", hooks, Iterable))
        for index, hook in enumerate(hooks):
            _check_type(f"hooks[{index}]", hook, Callable)
            if inspect.iscoroutinefunction(hook):
                raise TypeError(f"hooks[{index}]: must be an ordinary function; what it returns is not awaited")
        base_url = base_url or os.environ.get("COMMENDA_BASE_URL") or DEFAULT_BASE_URL
        self._transport = Transport(
            HTTPClient(base_url, http_client, max_response_bytes=max_response_bytes),
            token_auth(secret),
            retry=retry or RetryPolicy(),
            timeout=timeout,
            hooks=hooks,
        )

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return self._transport.http.base_url

    async def __aenter__(self) -> Self:
        await self._transport.http.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. May be called again; any other use is a `RuntimeError` from now on."""
        await self._transport.http.aclose()

    def list(
        self,
        corporation_id: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        **filters: Unpack[CustomerFilters],
    ) -> CustomerList:
        """
        Return the customers of a corporation, as something to iterate over or to await.

        Args:
            corporation_id: The corporation.
            limit: Customers per page, 1 to 100. The API's own default is 10; 100 means the fewest requests.
            cursor: Where to begin: the `cursor` of a `CustomerPage` or of an error. It belongs to the same corporation
                and filters. `None`: at the beginning.
            **filters: What narrows or extends the list. `None` leaves a filter out. How the server combines several, and
                most of the values that it knows, are not documented; those in parentheses come from other endpoints.
                name: Only customers of exactly this name.
                search_term: Only customers with this in their name.
                source_platforms: Only customers imported from one of these platforms (such as SHOPIFY).
                source_platform_ids: Only customers with one of these ids at their platform.
                extend: Parts to add to each customer: shipping_address, exemption_metadata.
                certificate_types: Only customers with one of these certificates (SINGLE_STATE, MULTI_STATE, BLANKET).
                exemption_jurisdiction: Only customers with an exemption in this jurisdiction (such as US_CA).
                expiration_status: Only customers with a certificate in this state of expiry (ACTIVE, EXPIRED).
                exemption_status: Only customers with an exemption in this status (ACTIVE, INACTIVE).
                has_exemption: Only customers that have exemptions, or only those that have none.

        Raises:
            ValueError: An argument breaks a rule of the API page (section *Query parameters*).
            TypeError: An argument has a wrong type.

        What can go wrong later, while the list is read, is a `CustomersError`.
        """
        query = CustomersQuery.build(corporation_id, limit=limit, **filters)
        return CustomerList(self._transport.fetch, query, check_cursor(cursor))


def _check_type(name: str, value: T, expected: Any) -> T:
    if not isinstance(value, expected):
        raise TypeError(f"{name}: expected {expected.__name__}, got {type(value).__name__}")

    return value
