"""`AsyncCustomersAPI`: checks its arguments and puts the other parts together."""

import os
from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Literal, Self, Unpack

from pydantic import SecretStr

from ._checks import (
    UNCHANGED,
    Unchanged,
    check_callables,
    check_positive,
    check_seconds,
    check_type,
    is_collect,
)
from ._customer_list import CustomerList
from ._customer_stream import CustomerStream
from ._event_loops import NotCopyable
from ._http import AnyAsyncClient, HTTPClient, Transport, is_transient_io_error
from ._reports import show_log
from ._request import PageFetcher
from .auth import TokenProvider, token_auth, wrap_token
from .checkpoint import Checkpoint, check_resume
from .events import Hook
from .limits import AdaptiveLimiter, RateLimiter
from .limits.base import check_limiter
from .query import CustomerFilters, Selection
from .retry import RetryPolicy

__all__ = ["AsyncCustomersAPI"]

DEFAULT_BASE_URL = "https://transaction-tax.api.in.commenda.io/api/v1"
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_RESPONSE_BYTES = 32 * 1024 * 1024


class AsyncCustomersAPI(NotCopyable):
    """
    A client of `GET /customers`, for asyncio and trio.

        async with AsyncCustomersAPI(token="...") as api:
            async for customer in api.list("corp_123"):
                print(customer.id, customer.name)

    Create one client and keep it, because it holds the connections. It belongs to the event loop in which you first use it.
    If a request needs other options, `with_options` returns a client with these options. It shares everything else.

    Set the environment variable `COMMENDA_LOG` to write the log to stderr: `warning` (retries), `info` (also each page) or
    `debug` (all events). The SDK reads the variable when you create the first client. In a program, use the logger
    `commenda_customers`.
    """

    _is_derived = False  # made by `with_options`: the connections belong to another client

    def __init__(
        self,
        token: str | SecretStr | TokenProvider | None = None,
        *,
        base_url: str | None = None,
        http_client: AnyAsyncClient | None = None,
        transport: Transport = "httpx",
        retry: RetryPolicy | None = None,
        rate_limit: RateLimiter | Literal["adaptive"] | None = "adaptive",
        timeout: float | None = DEFAULT_TIMEOUT,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        hooks: Sequence[Hook] = (),
    ) -> None:
        """
        Create a client. It opens no connection before `async with` or the first request.

        Args:
            token: The Bearer token (section *Authorizations* of the API page), or an async callable that returns a token
                (`TokenProvider`). The client calls it for the first request, after a 401, and before a `Token` expires.
                Only one call runs at a time. `None`: the environment variable `COMMENDA_API_TOKEN`.
            base_url: The address of the API, without a query. `None`: the environment variable `COMMENDA_BASE_URL`, or
                else the vendor's indirect-tax API. Plain `http` is allowed for loopback only.
            http_client: Your own `httpx.AsyncClient` or `httpx2.AsyncClient`, with its transport, proxies, certificates and
                hooks. You must close it yourself. The SDK ignores its timeout, auth and redirect settings. Its pool needs as
                many connections as you have requests in flight: the wait for a connection is part of an attempt.
            transport: The library that opens the connections, if you pass no `http_client`. `"pyreqwest"` takes less CPU
                time. It is experimental, runs on asyncio only, and needs the extra `pyreqwest`.
            retry: Which failures the client retries, and when. `None`: `RetryPolicy()`.
            rate_limit: The limiter of all requests of the client. `"adaptive"`: a new `AdaptiveLimiter`, which learns the
                server's limit. `FixedRate(10)` keeps to a limit that you know. Clients that share a token should share one
                limiter. `None`: no limiter; each request that gets a 429 backs off by itself.
            timeout: Total seconds for one attempt, from connecting to the last byte; 30 by default. `None`: no limit. Calls
                of a token provider count only towards the deadline of `retry`.
            max_response_bytes: The largest response, in bytes after decompression; 32 MiB by default. If its customers are
                as short as possible, the page can need thirty times as much memory.
            hooks: Callables that receive the events of `commenda_customers.events`.

        Raises:
            ValueError: There is no token, or an argument is out of range.
            TypeError: An argument has a wrong type.
            ModuleNotFoundError: The extra that `transport` needs is not installed.
        """
        # Before anything else: the traceback of an error below must not show the token.
        secret = wrap_token(token)
        del token
        show_log()
        check_positive("max_response_bytes", max_response_bytes)
        check_type("max_response_bytes", max_response_bytes, int)
        limiter = AdaptiveLimiter() if rate_limit == "adaptive" else rate_limit
        if limiter is not None:
            check_limiter("rate_limit", limiter)
        if base_url is None:
            # An empty variable counts as not set, as in a shell. An empty argument is a mistake.
            base_url = os.environ.get("COMMENDA_BASE_URL", "").strip() or DEFAULT_BASE_URL
        self._fetcher = PageFetcher(
            HTTPClient(
                check_type("base_url", base_url, str),
                http_client,
                max_response_bytes=max_response_bytes,
                transport=transport,
            ),
            token_auth(secret, is_transient_io_error),
            limiter=limiter,
            retry=RetryPolicy() if retry is None else check_type("retry", retry, RetryPolicy),
            timeout=check_seconds("timeout", timeout),
            hooks=check_callables("hooks", hooks),
        )

    @property
    def base_url(self) -> str:
        """The address of the API."""
        return self._fetcher.http.base_url

    @property
    def rate_limit(self) -> RateLimiter | None:
        """The limiter, for its `snapshot()` and `estimate_wait()`; `None` if there is none."""
        return self._fetcher.limiter

    @property
    def hooks(self) -> Sequence[Hook]:
        """The hooks, in the order in which they are called."""
        return self._fetcher.hooks

    def with_options(
        self,
        *,
        timeout: float | Unchanged | None = UNCHANGED,
        retry: RetryPolicy | Unchanged = UNCHANGED,
        hooks: Sequence[Hook] | Unchanged = UNCHANGED,
    ) -> Self:
        """
        Return a client with other options. It shares the connections, the token and the limiter of this client.

            page = await api.with_options(timeout=5).list("corp_123")

        This costs nothing: create a client for a single call, or keep it. Do not close the new client: `async with` and
        `aclose` raise `RuntimeError`, because this client owns the connections. When you close this client, you also close
        the new one.

        Args:
            timeout: Seconds for one attempt. `None`: no limit. By default unchanged.
            retry: Which failures the client retries, and when. By default unchanged.
            hooks: The hooks, in place of those of this client; `()`: none. By default unchanged.

        Raises:
            ValueError: An argument is out of range.
            TypeError: An argument has a wrong type.
        """
        fetcher = self._fetcher
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._is_derived = True
        other._fetcher = replace(
            fetcher,
            timeout=fetcher.timeout if timeout is UNCHANGED else check_seconds("timeout", timeout),
            retry=fetcher.retry if retry is UNCHANGED else check_type("retry", retry, RetryPolicy),
            hooks=fetcher.hooks if hooks is UNCHANGED else check_callables("hooks", hooks),
        )
        return other

    async def __aenter__(self) -> Self:
        self._check_owner()
        await self._fetcher.http.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """
        Close the connections. You may call it again. Requests in flight and later calls then raise `RuntimeError`. This
        method raises it if the client is in use in another event loop that is not closed.
        """
        self._check_owner()
        await self._fetcher.http.aclose()

    def _check_owner(self) -> None:
        if self._is_derived:
            raise RuntimeError(
                "a client made by with_options is neither entered nor closed: it shares the connections of another client"
            )

    def list(
        self,
        corporation_id: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        resume: Checkpoint | None = None,
        max_wait: float | None = None,
        invalid_customers: Literal["raise", "collect"] = "raise",
        **filters: Unpack[CustomerFilters],
    ) -> CustomerList:
        """
        Return the customers of a corporation, to iterate over or to await.

        Args:
            corporation_id: The corporation.
            limit: Customers per page, 1 to 100. The API's own default is 10; 100 needs the fewest requests. With a
                checkpoint, the limit may differ from that of the earlier run.
            cursor: Where to start: the `cursor` of a `CustomerPage` or of an error, with the same corporation and filters.
                `None`: the beginning of the list.
            resume: A checkpoint of an earlier run. The list skips the customers that the earlier run yielded. If the
                checkpoint does not contain the corporation, the list starts from the beginning. `None`: no earlier run.
            max_wait: Seconds for which a page may wait for the rate limiter, over all attempts. If it would wait longer,
                the client raises `RateLimitError` immediately, with the expected wait in `retry_after`. Use it for web
                requests, where somebody waits for the page. With `max_wait`, the deadline of the retry policy includes the
                wait for the limiter. 0: do not wait. `None`: no limit, and the deadline does not include the wait for the
                first permit.
            invalid_customers: What happens if rows of a page are not valid customers. `"raise"`: the client refuses the
                page with `InvalidResponseError`. `"collect"`: the page has all valid customers, and the invalid rows as
                `CustomerPage.invalid_customers`. For each invalid row there is also an event, `InvalidCustomerReceived`.
            **filters: Filters of the list, and parts to add to it. `None` leaves a filter out. The API page does not say
                how the server combines several filters, and it documents few values. The values in parentheses come from
                other endpoints.

                - `name`: Only customers with exactly this name.
                - `search_term`: Only customers with this text in their name.
                - `source_platforms`: Only customers imported from one of these platforms (such as SHOPIFY).
                - `source_platform_ids`: Only customers with one of these ids at their platform.
                - `extend`: Parts to add to each customer: shipping_address, exemption_metadata.
                - `certificate_types`: Only customers with one of these certificates (SINGLE_STATE, MULTI_STATE, BLANKET).
                - `exemption_jurisdiction`: Only customers with an exemption in this jurisdiction (such as US_CA).
                - `expiration_status`: Only customers with a certificate in this state of expiry (ACTIVE, EXPIRED).
                - `exemption_status`: Only customers with an exemption in this status (ACTIVE, INACTIVE).
                - `has_exemption`: Only customers that have exemptions, or only those that have none.

        Raises:
            ValueError: An argument breaks a rule of the API page (section *Query parameters*), or the checkpoint has other
                filters.
            TypeError: An argument has a wrong type.

        Later, while the client fetches the list, it raises only subclasses of `CustomersError`.
        """
        collect_invalid = is_collect("invalid_customers", invalid_customers)
        query = Selection.build(limit=limit, collect_invalid=collect_invalid, **filters).of(corporation_id)
        fetch = partial(self._fetcher.fetch, max_wait=check_seconds("max_wait", max_wait, or_zero=True))
        return CustomerList(fetch, query, self._fetcher.emit, cursor=cursor, resume=resume)

    def stream(
        self,
        corporation_ids: Iterable[str] | AsyncIterable[str],
        *,
        concurrency: int = 16,
        errors: Literal["raise", "collect"] = "raise",
        max_failures: int | None = None,
        limit: int = 100,
        resume: Checkpoint | None = None,
        invalid_customers: Literal["raise", "collect"] = "raise",
        **filters: Unpack[CustomerFilters],
    ) -> CustomerStream:
        """
        Return the customers of many corporations as one stream, in bounded memory; enter it with `async with`.

        Args:
            corporation_ids: The corporations, each once. The stream takes the next id only when a corporation can start. At
                its end, the stream closes an async generator of ids, within five seconds.
            concurrency: Corporations that the stream fetches at the same time. Each has at most one page in flight or ready
                while the program works. If the program does not ask for more, the requests stop (back-pressure).
            errors: `"raise"`: the first corporation that fails ends the stream with its error. `"collect"`: the other
                corporations continue. But an `AuthenticationError` or a `TokenError` ends the stream, because all
                corporations use the same token. In both cases `stream.failures` has the errors.
            max_failures: With `errors="collect"`, the number of corporations that may fail. If one more fails, its error
                ends the stream. `None`: no limit.
            limit: Customers per page, 1 to 100. With a checkpoint, the limit may differ from that of the earlier run.
            resume: A checkpoint of an earlier stream or list. The stream skips the customers that the earlier run yielded,
                and finished corporations. The ids may differ from those of the earlier run, and may come in another order.
            invalid_customers: As for `list`. `"collect"` also counts the rows in `progress.invalid`.
            **filters: As for `list`.

        Raises:
            ValueError: An argument breaks a rule of the API page, or the checkpoint has other filters.
            TypeError: An argument has a wrong type.
        """
        collect_invalid = is_collect("invalid_customers", invalid_customers)
        selection = Selection.build(limit=limit, collect_invalid=collect_invalid, **filters)
        if isinstance(corporation_ids, str | bytes):
            raise TypeError(f"corporation_ids: expected an iterable of ids, got {type(corporation_ids).__name__}")
        check_type("corporation_ids", corporation_ids, Iterable | AsyncIterable)
        check_type("concurrency", concurrency, int)
        check_positive("concurrency", concurrency)
        is_collect("errors", errors)
        if max_failures is not None:
            check_positive("max_failures", max_failures, or_zero=True)
            check_type("max_failures", max_failures, int)
            if errors != "collect":
                raise ValueError('max_failures: needs errors="collect"; otherwise the first failure ends the stream')
        if resume is not None:
            check_resume(resume, selection.fingerprint)
        return CustomerStream(
            self._fetcher.fetch,
            selection,
            corporation_ids,
            self._fetcher.emit,
            concurrency=concurrency,
            errors=errors,
            max_failures=max_failures,
            resume=resume,
        )
