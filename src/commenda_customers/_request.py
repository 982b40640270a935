"""
One page: permit, token, send, decode, retry.

`PageFetcher` is what all requests of a client share; `_PageRequest` is the request for one page, over all its attempts.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

import anyio

from ._attempt import Attempt
from ._cancellation import check_stack
from ._http import HTTPClient, RawResponse
from ._reports import PageReporter, report
from ._secret import Secret, drop_tracebacks
from ._steps import in_steps
from ._wire import (
    Throttling,
    decode_in_steps,
    foreign_corporation,
    parse_throttling,
    request_id,
    response_fields,
    status_error,
)
from .auth import TokenAuth
from .errors import (
    APIConnectionError,
    AuthenticationError,
    CustomersError,
    InvalidResponseError,
)
from .events import Event, Hook
from .limits import Feedback, LimiterSnapshot, RateLimiter
from .models import CustomerPage
from .query import CustomersQuery
from .retry import RetryPolicy, call_with_retries

_A_DAY = 24 * 3600.0


@dataclass(frozen=True, eq=False, repr=False)
class PageFetcher:
    """What all requests of a client share. A copy with other options shares the connections, the token and the limiter."""

    http: HTTPClient
    auth: TokenAuth
    limiter: RateLimiter | None
    retry: RetryPolicy
    timeout: float | None
    hooks: tuple[Hook, ...]

    def emit(self, event: Event) -> None:
        """Report an event that belongs to no request."""
        report(event, self.hooks)

    async def fetch(self, query: CustomersQuery, cursor: str | None, *, max_wait: float | None = None) -> CustomerPage:
        """
        Return the page of *query* at *cursor*.

        Args:
            query: What to ask for.
            cursor: Where.
            max_wait: Seconds for which the page may wait for the limiter, over all attempts; `None` means no limit.

        Raises:
            CustomersError: No usable page came, in all the attempts that the retry policy allows.
        """
        check_stack()
        return await _PageRequest(self, query, cursor, max_wait).fetch()


class _Received(NamedTuple):
    """A complete response, decoded. It does not hold the body."""

    status: int
    size: int
    at: float
    request_id: str | None
    throttling: Throttling
    result: CustomerPage | CustomersError

    def page(self) -> CustomerPage:
        """Return the page, or raise the error that the response stands for."""
        if isinstance(self.result, CustomersError):
            raise self.result

        return self.result


class _PageRequest:
    """The request for one page, over all its attempts."""

    def __init__(self, fetcher: PageFetcher, query: CustomersQuery, cursor: str | None, max_wait: float | None) -> None:
        self._fetcher = fetcher
        self._max_wait = max_wait
        self._corporation_id = query.corporation_id
        self._collect_invalid = query.selection.collect_invalid
        self._cursor = cursor
        self._query = query.at(cursor)
        self._report = PageReporter(query.corporation_id, cursor, fetcher.hooks)
        self._new_token_was_refused = False
        self._foreign_customers_came = False
        self._unusable_page_came = False

    async def fetch(self) -> CustomerPage:
        self._fetcher.http.check_usable()
        try:
            attempt, received = await call_with_retries(
                self._try_once,
                self._fetcher.retry,
                max_wait=self._max_wait,
                on_retry=self._report.retry,
                on_deadline=self._report_deadline,
            )
        except CustomersError as error:
            self._report.page_failed(error)
            raise

        page = received.page()
        self._report.page_fetched(attempt.number, received.request_id, len(page))
        return page

    async def _try_once(self, attempt: Attempt) -> tuple[Attempt, _Received]:
        try:
            return attempt, await self._fetcher.auth.call(attempt, partial(self._send_and_accept, attempt))
        except CustomersError as error:
            if error.corporation_id is None:  # of a token provider
                self._report.locate(error, attempt.number)
            raise

    async def _send_and_accept(self, attempt: Attempt) -> _Received:
        handled = sys.exception()
        try:
            received = await self._with_permit(attempt)
            received.page()
        except CustomersError as error:
            drop_tracebacks(error, until=handled)
            if attempt.secret is not None:
                attempt.secret.redact_error(error)
            if attempt.is_token_renewed and isinstance(error, AuthenticationError):
                # The server may not know the new token yet. A second time, that is no reason.
                error.transient, self._new_token_was_refused = not self._new_token_was_refused, True
            self._unusable_page_came |= HTTPStatus.OK <= (error.status_code or 0) < HTTPStatus.MULTIPLE_CHOICES
            self._report.locate(error, attempt.attempts_sent)
            self._report.attempt_failed(attempt, error)
            raise

        return received

    async def _with_permit(self, attempt: Attempt) -> _Received:
        """Send when the limiter allows it. Waiting for the first permit is not a failure: see `Deadline`."""
        limiter = self._fetcher.limiter
        if limiter is None:
            return await self._with_connection(attempt)

        again, deadline = attempt.had_permit, attempt.deadline
        try:
            with deadline.at_limiter(again=again):
                permit = await limiter.acquire(again=again, max_wait=deadline.left_to_wait)
        finally:
            self._report.waited = deadline.waited

        attempt.had_permit, feedback = True, Feedback()
        try:
            received = await self._with_connection(attempt)
            feedback = self._feedback_of(received, attempt)
        except APIConnectionError as error:
            feedback = _feedback_without_response(error, attempt)
            raise
        finally:
            limiter.release(permit, feedback)
            if feedback.is_throttled or feedback.is_rejected or feedback.is_failed:
                self._note_failure(limiter.snapshot(), feedback, attempt)
        return received

    def _note_failure(self, now: LimiterSnapshot, feedback: Feedback, attempt: Attempt) -> None:
        """Tell the retry policy how the limiter has reacted to an attempt that failed."""
        # If others have succeeded since the last attempt, it is not an outage that fails this one.
        is_outage = now.is_half_open and now.succeeded_at <= attempt.failed_at
        attempt.failed_at, attempt.paused_for = anyio.current_time(), now.paused_for
        attempt.failing_since = min(attempt.failing_since, attempt.failed_at)
        attempt.is_exempt = feedback.is_throttled or is_outage
        if feedback.is_throttled:
            self._report.throttled(attempt, pause=now.paused_for, rate=now.rate)

    async def _with_connection(self, attempt: Attempt) -> _Received:
        """Send when a connection is free. Waiting for one is not a failure: it is no part of the timeout. See `Deadline`."""
        connections = self._fetcher.http.connections
        try:
            connections.acquire_nowait()
        except anyio.WouldBlock:
            with attempt.deadline.suspended():
                await connections.acquire()
        try:
            return await self._send(attempt)
        finally:
            connections.release()

    async def _send(self, attempt: Attempt) -> _Received:
        """Send, and report it."""
        # Another request may have renewed the token while this one waited.
        attempt.secret = secret = self._fetcher.auth.newest()
        attempt.was_sent, attempt.in_flight_since = True, anyio.current_time()
        self._report.sent(attempt)
        received = await self._fetcher.http.get(
            self._query,
            secret,
            partial(self._receive, secret),
            time_limit=self._fetcher.timeout,
            # A cache may have stored the unusable page, and would serve it again.
            no_cache=self._unusable_page_came,
        )
        self._report.received(attempt, received.status, received.size, elapsed=received.at - attempt.in_flight_since)
        return received

    async def _receive(self, secret: Secret, response: RawResponse) -> _Received:
        """Decode a response. The connection is held until the response is known to be ours: see `Exchange.get`."""
        at, throttling = anyio.current_time(), parse_throttling(response.status, response.headers, now=time.time())
        name = request_id(response.headers)
        try:
            result: CustomerPage | CustomersError = await self._accept(response, throttling, secret)
        except CustomersError as error:
            result = error
        return _Received(response.status, len(response.body), at, name, throttling, result)

    def _feedback_of(self, received: _Received, attempt: Attempt) -> Feedback:
        """Return what a limiter can learn. A wait that is too long fails this request; no other request waits for it."""
        throttling = received.throttling
        is_too_long = (throttling.retry_after or 0.0) > (self._fetcher.retry.max_retry_after or _A_DAY)
        # A server that is down for a day is no limit. A 503 then counts as if it had no wait.
        is_outage = is_too_long and received.status == HTTPStatus.SERVICE_UNAVAILABLE
        is_throttled = throttling.is_throttled and not is_outage
        is_failed = isinstance(received.result, CustomersError) and received.result.transient and not is_throttled
        is_rejected = is_failed and received.status == HTTPStatus.SERVICE_UNAVAILABLE
        return Feedback(
            is_answered=True,
            is_throttled=is_throttled,
            is_rejected=is_rejected,
            is_failed=is_failed and not is_rejected,
            wait=throttling.retry_after if is_throttled and not is_too_long else None,
            failing_since=attempt.failing_since,
            remaining=throttling.remaining,
        )

    async def _accept(self, response: RawResponse, throttling: Throttling, secret: Secret) -> CustomerPage:
        status, headers = response.status, response.headers
        if not response.is_success:
            raise status_error(status, headers, response.body, throttling=throttling, cursor=self._cursor)

        decoding = decode_in_steps(
            status,
            headers,
            response.body,
            corporation_id=self._corporation_id,
            redact=secret.redact_bytes,
            collect_invalid=self._collect_invalid,
        )
        page = await in_steps(decoding)
        if response.repeats_token:
            raise InvalidResponseError(
                "the response contains the token, in a customer or in the cursor; it is refused to keep the token secret",
                **response_fields(status, headers),
            )

        foreign = foreign_corporation(page)
        if foreign is None:
            return page

        # Most likely the server has sent one response too many on this connection. One more attempt on another connection
        # makes sense. A second time, that is not the reason.
        response.drop_connection()
        came_before, self._foreign_customers_came = self._foreign_customers_came, True
        raise InvalidResponseError(
            f"the response contains a customer of another corporation, {foreign!r}",
            transient=not came_before,
            **response_fields(status, headers),
        )

    def _report_deadline(self, attempt: Attempt, error: CustomersError) -> None:
        limiter = self._fetcher.limiter
        if limiter is not None and attempt.deadline.came_at_limiter:
            error.retry_after = limiter.estimate_wait()
        self._report.locate(error, error.attempts)
        self._report.attempt_failed(attempt, error)


def _feedback_without_response(error: APIConnectionError, attempt: Attempt) -> Feedback:
    """
    Return what a limiter can learn if no response came.

    A stale connection or an unprocessed request says nothing about a limit: a server that restarts ends all connections at
    the same moment. The client sends the request again immediately. If that fails too, the limiter learns from it.
    """
    if (error.is_stale_connection or error.is_unprocessed) and attempt.number == 1:
        return Feedback()

    # A connection that the server closes without an error says nothing about a limit, nor about an outage.
    is_failed = error.transient and not (error.is_rejection or error.is_stale_connection)
    return Feedback(is_rejected=error.is_rejection, is_failed=is_failed, failing_since=attempt.failing_since)
