"""One logical request: as many attempts as the retry policy allows, each with a token, a time limit and a checked answer."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from http import HTTPStatus
from typing import TypedDict

import anyio

from . import _wire
from ._child_task import in_child_task
from ._http import Answer, HTTPClient
from ._quota import parse_quota
from .auth import Secret, TokenAuth
from .errors import APITimeoutError, AuthenticationError, CustomersError, InvalidResponseError, RateLimitError
from .events import Event, Hook, RequestSent, ResponseReceived, RetryScheduled, Throttled
from .limits import Feedback, RateLimiter
from .models import CustomerPage
from .query import CustomersQuery
from .retry import Deadline, RetryBudget, RetryPolicy, call_with_retries

_A_DAY = 24 * 3600.0
_THROTTLING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

_logger = logging.getLogger("commenda_customers")


class Transport:
    """What all requests of a client share. What belongs to one of them is in `_PageRequest`."""

    def __init__(
        self,
        http: HTTPClient,
        auth: TokenAuth,
        *,
        limiter: RateLimiter | None,
        retry: RetryPolicy,
        timeout: float | None,
        hooks: Sequence[Hook],
    ) -> None:
        self.http = http
        self.auth = auth
        self.limiter = limiter
        self.retry = retry
        self.timeout = timeout
        self.hooks = hooks
        self.budget = RetryBudget()

    async def fetch(self, query: CustomersQuery, cursor: str | None, *, max_wait: float | None = None) -> CustomerPage:
        """
        Return the page of *query* at *cursor*.

        Args:
            query: What to ask for.
            cursor: Where.
            max_wait: Seconds that it may wait for the limiter, each time; `None` is no limit.

        Raises:
            CustomersError: No usable page came, in all the attempts that the retry policy allows.
        """
        return await _PageRequest(self, query, cursor, max_wait).fetch()


class _Place(TypedDict):
    """Which request an event is about."""

    corporation_id: str
    cursor: str | None
    attempt: int


class _PageRequest:
    """The request for one page, over all its attempts."""

    def __init__(self, transport: Transport, query: CustomersQuery, cursor: str | None, max_wait: float | None) -> None:
        self._transport = transport
        self._max_wait = max_wait
        self._feedback = Feedback()
        self._last_sent = 0  # the number of the last attempt that was sent
        self._corporation_id = query.corporation_id
        self._cursor = cursor
        self._params = query.to_params(cursor)
        self._attempt = 0
        self._token_was_renewed = False
        self._foreign_customers_came = False

    async def fetch(self) -> CustomerPage:
        self._transport.http.check_usable()
        try:
            return await call_with_retries(
                self._try_once,
                self._transport.retry,
                budget=self._transport.budget,
                pause=self._pause,
                on_retry=self._report_retry,
            )
        except APITimeoutError as error:
            # Where the deadline cut an attempt, no attempt could say where it was.
            self._locate(error)
            raise

    async def _try_once(self, attempt: int, deadline: Deadline) -> CustomerPage:
        self._attempt = attempt
        auth = self._transport.auth
        secret = await auth.secret()
        try:
            return await self._with_permit(secret, deadline)
        except AuthenticationError:
            renewed = None if self._token_was_renewed else await auth.after_rejection(secret)
            if renewed is None:
                raise

        self._token_was_renewed = True
        return await self._with_permit(renewed, deadline)

    async def _with_permit(self, secret: Secret, deadline: Deadline) -> CustomerPage:
        """Exchange when the limiter lets it. To wait for the first turn is no failure, so no time limit runs meanwhile."""
        limiter = self._transport.limiter
        if limiter is None:
            return await self._with_slot(secret, deadline)

        again = self._last_sent > 0
        try:
            with nullcontext() if again else deadline.stopped():
                permit = await limiter.acquire(again=again, max_wait=self._max_wait)
        except RateLimitError as error:
            self._locate(error)
            error.attempts = self._last_sent
            raise

        self._feedback, self._last_sent = Feedback(), self._attempt
        try:
            return await self._with_slot(secret, deadline)
        finally:
            limiter.release(permit, self._feedback)
            if self._feedback.is_throttled:
                now = limiter.snapshot()
                self._emit(Throttled(**self._place, pause=now.paused_for, rate=now.rate))

    async def _with_slot(self, secret: Secret, deadline: Deadline) -> CustomerPage:
        """Exchange when there is a free connection. Waiting for it is no failure: neither time limit runs meanwhile."""
        slots = self._transport.http.slots
        try:
            slots.acquire_nowait()
        except anyio.WouldBlock:
            with deadline.stopped():
                await slots.acquire()
        try:
            return await in_child_task(lambda: self._exchange(secret))
        except CustomersError as error:
            self._locate(error)
            self._redact(error, secret)
            raise
        finally:
            slots.release()

    async def _exchange(self, secret: Secret) -> CustomerPage:
        timeout = self._transport.timeout
        self._emit(RequestSent(**self._place))
        began = anyio.current_time()
        with anyio.move_on_after(timeout):
            async with self._transport.http.get(self._params, secret) as answer:
                elapsed = anyio.current_time() - began
                self._emit(
                    ResponseReceived(**self._place, status_code=answer.status, size=len(answer.body), elapsed=elapsed)
                )
                self._feedback = _feedback_of(answer, longest=self._transport.retry.max_retry_after)
                return self._accept(answer, secret)

        # Reached only when the time limit has cut the attempt.
        raise APITimeoutError(f"no complete answer within the timeout of {timeout:g} s", transient=True)

    def _accept(self, answer: Answer, secret: Secret) -> CustomerPage:
        status, headers = answer.status, answer.headers
        if not answer.is_success:
            raise _wire.status_error(status, headers, answer.body, now=time.time())

        page = _wire.decode_page(
            status, headers, answer.body, corporation_id=self._corporation_id, redact=secret.redact_bytes
        )
        foreign = _wire.foreign_corporation(page)
        if foreign is None:
            return page

        # Most likely the connection is one answer behind: an answer that nobody had asked for was taken for ours. On
        # another connection it is worth one more attempt; twice is no accident.
        answer.drop_connection()
        came_before, self._foreign_customers_came = self._foreign_customers_came, True
        raise InvalidResponseError(
            f"the answer holds a customer of another corporation, {foreign!r}",
            status_code=status,
            transient=not came_before,
        )

    @property
    def _place(self) -> _Place:
        return {"corporation_id": self._corporation_id, "cursor": self._cursor, "attempt": self._attempt}

    def _locate(self, error: CustomersError) -> None:
        """Say in *error* which request it is about."""
        error.corporation_id = self._corporation_id
        error.cursor = self._cursor
        error.attempts = self._attempt

    @staticmethod
    def _redact(error: CustomersError, secret: Secret) -> None:
        """Take the token out of *error*, should the server have repeated it."""
        error.message = secret.redact(error.message)
        error.args = (error.message,)
        error.request_id = error.request_id and secret.redact(error.request_id)
        # A server may also have repeated it where the HTTP library quotes it, in a header that is malformed.
        if secret.is_shown_by(error.__cause__):
            error.__cause__ = error.__context__ = None

    def _pause(self) -> float:
        """Return for how many seconds the limiter holds this request back because the server has throttled it."""
        limiter = self._transport.limiter
        return limiter.snapshot().paused_for if limiter is not None and self._feedback.is_throttled else 0.0

    def _report_retry(self, error: CustomersError, wait: float) -> None:
        self._emit(RetryScheduled(**self._place, error=error, wait=wait))

    def _emit(self, event: Event) -> None:
        _logger.debug("%s", event)
        for hook in self._transport.hooks:
            hook(event)


def _feedback_of(answer: Answer, *, longest: float | None) -> Feedback:
    """
    Return what a limiter can learn from an answer.

    A wait beyond *longest* is raised, and nobody else waits for it; nor for more than a day if there is no longest.
    """
    status, headers = answer.status, answer.headers
    if status not in _THROTTLING:
        return Feedback(is_answered=True, remaining=parse_quota(headers, now=0.0).remaining)

    now = _wire.server_time(headers, now=time.time())
    quota = parse_quota(headers, now=now)
    # Where some of the quota is left that the server speaks of, it is another that is used up.
    wait = _wire.parse_retry_after(headers, now=now) or (None if quota.remaining else quota.reset)
    if wait is not None and wait > (_A_DAY if longest is None else longest):
        wait = None
    # A 503 is for the limiter if the server expects to be overloaded until then (RFC 9110, section 15.6.4).
    is_throttled = status == HTTPStatus.TOO_MANY_REQUESTS or wait is not None
    return Feedback(is_answered=True, is_throttled=is_throttled, wait=wait, remaining=quota.remaining)
