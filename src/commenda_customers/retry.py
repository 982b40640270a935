"""
Which failures the SDK retries, and after how long: a pure decision, and its adapter to tenacity.

This is the only file that imports tenacity.
"""

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from ._attempt import Attempt, Deadline
from ._checks import check_positive
from .errors import APIConnectionError, APITimeoutError, CustomersError, RateLimitError

__all__ = ["RetryPolicy"]

T = TypeVar("T")

_MOST_RESENDS = 3
"""
How often one request may be resent immediately. A server that restarts closes all its idle connections at once. But a server
that always refuses must not get requests again and again without a wait.
"""


def is_transient_status(status: int) -> bool:
    """
    Return whether a request that got *status* is worth another attempt. Every request is a GET, so that is always safe.

    The transient statuses are 408, 425, 429, and every 5xx except 501 (not implemented), 505 (version not supported) and 511
    (network login required). The codes that edges invented, such as 520 to 530, are transient too. So are those from 600 on,
    which count as a 5xx (RFC 9110, section 15), and a 403 that says how long to wait, see `Throttling`.
    """
    return status in {408, 425, 429} or (status >= 500 and status not in {501, 505, 511})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    How the client retries the request for a page. Every request is a GET, so a retry is always safe.

    The client retries errors that are `transient`:

    - connections that could not be opened, broke, or took longer than `timeout`, but not untrusted certificates;
    - the statuses 408, 425, 429, and every 5xx except 501, 505 and 511; a 403 with `Retry-After`;
    - a proxy that could not connect, or responded with one of these statuses; but not one that refuses with 403 or 407;
    - responses that were cut or are not JSON; and, only once, a response with customers of another corporation;
    - a token provider that failed with an `OSError` or a transport error of httpx or httpx2; and, only once, a new token
      that the server refuses. The server may not know that token yet.

    The wait before the next attempt is random between zero and a bound (full jitter). The bound is `initial_wait` at first,
    and doubles with each wait up to `max_wait`. If the server says how long to wait, the client waits at least that long,
    and up to `initial_wait` longer. So many clients do not return at the same moment. If a request fails because the server
    closed an idle connection, or says that it has not processed the request, the client sends it again immediately, up to
    three times.

    All numbers must be above zero. `None`, where it is allowed, means no limit.

    Attributes:
        max_attempts: Attempts for one page, including the first. Some attempts do not count: a second request with a new
            token after a 401, and an immediate resend. With a limiter, a refusal because of a
            limit and a failure in an outage do not count either. Only the deadline limits those.
        deadline: Seconds for one page, over all attempts, waits and calls of a token provider. The deadline cancels a
            running attempt. If a wait would reach the deadline, the client does not wait: it raises the last error instead.
            Normally the wait for the first permit from the limiter, and for a free connection, does not count. With the
            `max_wait` of `AsyncCustomersAPI.list`, all time counts.
        initial_wait: The longest wait after the first attempt, in seconds.
        max_wait: The longest wait of all, in seconds, unless the server asks for more.
        max_retry_after: Seconds. If the server asks for a longer wait, the client raises the error immediately, with that
            time in `retry_after`. So it does not retry too early, and does not sleep for a day.
    """

    max_attempts: int | None = 8
    deadline: float | None = 300.0
    initial_wait: float = 0.5
    max_wait: float = 30.0
    max_retry_after: float | None = 120.0

    def __post_init__(self) -> None:
        for name in ("max_attempts", "deadline", "max_retry_after"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value)
        if isinstance(self.max_attempts, float):
            raise TypeError("max_attempts: expected an int or None, got float")
        check_positive("initial_wait", self.initial_wait)
        check_positive("max_wait", self.max_wait)

    def wait_after(
        self,
        error: CustomersError,
        *,
        attempt: int,
        elapsed: float,
        jitter: float,
        backoffs: int | None = None,
        paused_for: float = 0.0,
    ) -> float | None:
        """
        Return the seconds to wait before the next attempt, or `None` to give up.

        Args:
            error: How the last attempt failed.
            attempt: How many failed attempts count, including this one.
            elapsed: Seconds since the first attempt began.
            jitter: A random number from 0 to 1.
            backoffs: How many times the bound of the wait has doubled; by default `attempt - 1`.
            paused_for: Seconds for which a limiter holds the next attempt back. The limiter spreads requests, so there is
                no jitter.
        """
        if not error.transient or (self.max_attempts is not None and attempt >= self.max_attempts):
            return None
        if self.max_retry_after is not None and (error.retry_after or 0.0) > self.max_retry_after:
            return None

        asked = error.retry_after
        if paused_for:
            wait = max(paused_for, asked or 0.0)
        else:
            # The exponent is capped because 2.0 ** 1024 is an OverflowError.
            backoff = self.initial_wait * 2.0 ** min(attempt - 1 if backoffs is None else backoffs, 60)
            wait = jitter * min(self.max_wait, backoff)
            wait = wait if asked is None else max(wait, asked + jitter * self.initial_wait)

        if self.deadline is not None and elapsed + wait >= self.deadline:
            return None

        return wait


class _Retries:
    """The retries of one request, as tenacity's callbacks. `after` and `before_sleep` count; the others only read."""

    def __init__(
        self, policy: RetryPolicy, max_wait: float | None, on_retry: Callable[[Attempt, CustomersError, float], None]
    ) -> None:
        self.attempt = Attempt(0, Deadline(policy.deadline, max_wait=max_wait))
        self.last_error: CustomersError | None = None
        self.held_back: RateLimitError | None = None
        self._policy = policy
        self._on_retry = on_retry
        self._failures = 0  # attempts that count
        self._backoffs = 0  # waits that were not the limiter's
        self._resends = 0
        self._is_resend = False  # the next attempt follows at once, and this one does not count

    def next_attempt(self) -> Attempt:
        """Begin the next attempt."""
        last = self.attempt
        self.attempt = Attempt(last.number + 1, last.deadline, last.had_permit, last.failing_since, last.failed_at)
        return self.attempt

    def retrying(self) -> AsyncRetrying:
        """Return tenacity's object for this request: concurrent calls through one object would mix their attempts."""
        return AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            after=self.after,
            wait=self.wait,
            stop=self.stop,
            before_sleep=self.before_sleep,
            sleep=anyio.sleep,
            reraise=True,
        )

    def after(self, state: RetryCallState) -> None:
        """Count a failed attempt."""
        error = self.last_error = _error_of(state)
        is_lost = isinstance(error, APIConnectionError) and (error.is_stale_connection or error.is_unprocessed)
        self._is_resend = is_lost and self._resends < _MOST_RESENDS
        self._resends += self._is_resend
        if not (self.attempt.is_exempt or self._is_resend):
            self._failures += 1

    def wait(self, state: RetryCallState) -> float:
        """Return the seconds to wait before the next attempt; infinity is to give up."""
        if self._is_resend:
            return 0.0

        error, deadline, paused_for = _error_of(state), self.attempt.deadline, self.attempt.paused_for
        left = deadline.left_to_wait
        if left is not None and paused_for > left:
            if (
                replace(self._policy, deadline=None).wait_after(error, attempt=self._failures, elapsed=0, jitter=0)
                is not None
            ):
                self.held_back = _held_back(paused_for, left, self.attempt, error)
            return math.inf

        wait = self._policy.wait_after(
            error,
            attempt=self._failures,
            elapsed=deadline.elapsed,
            jitter=random.random(),
            backoffs=self._backoffs,
            paused_for=paused_for,
        )
        # The rest of the wait is the limiter's.
        return math.inf if wait is None else wait - paused_for

    def stop(self, state: RetryCallState) -> bool:
        """Return whether to give up."""
        return state.upcoming_sleep == math.inf

    def before_sleep(self, state: RetryCallState) -> None:
        """Count the wait, and report the retry."""
        paused_for = self.attempt.paused_for
        self._backoffs += not (self._is_resend or paused_for)
        self._on_retry(self.attempt, _error_of(state), state.upcoming_sleep + paused_for)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, CustomersError) and error.transient


def _error_of(state: RetryCallState) -> CustomersError:
    error = state.outcome and state.outcome.exception()
    assert isinstance(error, CustomersError)  # noqa: S101 - nothing else is retried
    return error


async def call_with_retries(
    call: Callable[[Attempt], Awaitable[T]],
    policy: RetryPolicy,
    *,
    max_wait: float | None = None,
    on_retry: Callable[[Attempt, CustomersError, float], None],
    on_deadline: Callable[[Attempt, CustomersError], None],
) -> T:
    """
    Make attempts until one returns, or until *policy* gives up.

    Args:
        call: Makes one attempt. Only a `CustomersError` that it raises is retried; everything else, such as a cancellation,
            is raised at once. It sets `paused_for` if the limiter pauses, and `is_exempt` if the attempt does not count
            as failed.
        policy: Decides.
        max_wait: Seconds for which the limiter may hold the call back, over all attempts; the deadline then counts all
            time. `None` means no limit.
        on_retry: Called before each wait, with the error of the attempt and the seconds until the next.
        on_deadline: Called when there is no time for another attempt or for its end, with the error that is raised next.

    Raises:
        CustomersError: The error of the last attempt.
        APITimeoutError: The deadline cut the last attempt.
        RateLimitError: With *max_wait*, the limiter holds the next attempt back for longer than that or the deadline allow.
    """
    retries = _Retries(policy, max_wait, on_retry)

    first: CustomersError | None = None

    async def attempt_once() -> T:
        nonlocal first
        if first is None:
            return await call(retries.next_attempt())

        failure, first = first, None
        raise failure

    with retries.attempt.deadline.scope:
        try:
            # Nearly every first attempt succeeds. Without tenacity, a page then takes 2 to 4 % less time.
            return await attempt_once()
        except CustomersError as failure:
            first = failure
        try:
            return await retries.retrying()(attempt_once)  # its first attempt is that failure
        except CustomersError:
            if retries.held_back is None:
                raise

    error = retries.held_back or _deadline_error(policy.deadline, retries.attempt, retries.last_error)
    on_deadline(retries.attempt, error)
    raise error from retries.last_error


def _held_back(paused_for: float, left: float, attempt: Attempt, last_error: CustomersError) -> RateLimitError:
    error = RateLimitError(
        f"the rate limiter would hold the request back for about {paused_for:.1f} s, longer than max_wait and the deadline "
        f"leave ({left:.1f} s); before that: {last_error.message}",
        **_last_response(attempt, last_error),
    )
    error.retry_after = max(paused_for, last_error.retry_after or 0.0)
    return error


def _deadline_error(deadline: float | None, attempt: Attempt, last_error: CustomersError | None) -> CustomersError:
    message = f"no complete response within the deadline of {deadline:g} s"
    error: type[CustomersError] = APITimeoutError
    if attempt.deadline.came_at_limiter:
        message = (
            f"the rate limiter held the request back for {attempt.deadline.waited:.1f} s; the deadline is {deadline:g} s"
        )
        error = RateLimitError
    if last_error is not None:
        message += f"; before that: {last_error.message}"

    return error(message, **_last_response(attempt, last_error))


def _last_response(attempt: Attempt, last_error: CustomersError | None) -> dict[str, Any]:
    """Return what an error without a response of its own says about the last one."""
    names = ("status_code", "request_id", "retry_after", "body_excerpt")
    fields = {name: getattr(last_error, name, None) for name in names}
    return {**fields, "attempts": attempt.attempts_sent, "transient": True}
