"""
When to try again, and after how long: a pure decision, and its thin adapter to tenacity.

This is the only file that imports tenacity.
"""

import math
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState

from ._checks import check_positive
from .errors import APITimeoutError, CustomersError, RateLimitError

__all__ = ["RetryPolicy"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    How one request is retried. Every request is a GET, so a retry is always safe.

    Retried are errors that are `transient`: failed and broken connections, attempts that took too long, the statuses 408,
    429, 500, 502, 503 and 504, bodies that break off or are no JSON, and, once, an answer with customers of another
    corporation. The wait before the next attempt is random between zero and `initial_wait`, twice that, four times that, and
    so on up to `max_wait` (full jitter); between zero and `max_wait` from the first retry on while at least a third of all
    requests fail, so as not to multiply an outage. Where the server says how long to wait, it is that long, and up to
    `initial_wait` longer, so that many who were told the same do not come back at once.

    Zero and less are refused. `None`, where it is allowed, is no limit.

    Attributes:
        max_attempts: How many attempts a request has at the most, the first one included. Sending again with a new token
            after a 401, or because the server closed a kept connection as it was used again, is not another attempt. Nor is
            a 429 for which the limiter pauses: those are bounded by the deadline.
        deadline: Seconds for one request over all attempts, waits and calls of a token provider. A running attempt is cut;
            a wait that would reach the deadline is not begun: the last error is raised instead. While a request waits for
            its first turn, at the limiter or for a free connection, the time does not count.
        initial_wait: Seconds that the wait after the first attempt has at the most.
        max_wait: Seconds that any wait has at the most, unless the server asks for more.
        max_retry_after: Seconds. If the server asks to wait longer, its answer is raised at once, with the time that it
            asked for in `retry_after`: better than to come back too early, or to sleep for a day.
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
        is_outage: bool = False,
        paused_for: float = 0.0,
    ) -> float | None:
        """
        Return the seconds to wait before the next attempt, or `None` to give up.

        Args:
            error: How the last attempt failed.
            attempt: Its number; the first is 1.
            elapsed: Seconds since the first attempt began.
            jitter: A random number from 0 to 1.
            is_outage: Whether retries have become too many beside the successes, over all requests.
            paused_for: Seconds for which a limiter holds the next attempt back. It spreads requests better than chance.
        """
        if not error.transient or (self.max_attempts is not None and attempt >= self.max_attempts):
            return None
        if self.max_retry_after is not None and (error.retry_after or 0.0) > self.max_retry_after:
            return None

        if paused_for:
            wait = max(paused_for, error.retry_after or 0.0)
        elif error.retry_after is None:
            # The exponent is capped because 2.0 ** 1024 is an OverflowError.
            backoff = self.initial_wait * 2.0 ** min(attempt - 1, 60)
            wait = jitter * (self.max_wait if is_outage else min(self.max_wait, backoff))
        else:
            wait = error.retry_after + jitter * self.initial_wait

        if self.deadline is not None and elapsed + wait >= self.deadline:
            return None

        return wait


class RetryBudget:
    """
    Keeps an outage from being multiplied: what all requests together may spend on quick retries.

    While it lasts, each request backs off by itself. When it is used up, the waits are as long as the policy has them, from
    the first one on: a server that is down gets a few retries from hundreds of requests, and none of them gives up earlier.
    """

    CAPACITY = 50.0
    PER_SUCCESS = 0.5  # so it lasts while fewer than a third of the requests fail

    def __init__(self) -> None:
        self._left = self.CAPACITY

    def earn(self) -> None:
        """Take note of a success."""
        self._left = min(self.CAPACITY, self._left + self.PER_SUCCESS)

    @property
    def is_used_up(self) -> bool:
        """Whether there is not enough left for a retry."""
        return self._left < 1

    def spend(self) -> None:
        """Pay for a retry."""
        self._left = max(0.0, self._left - 1)


class Deadline:
    """
    Measures one request against its deadline. It can be stopped while the request waits for its turn to be sent.

    Attributes:
        scope: Ends at the deadline.
    """

    def __init__(self, seconds: float | None) -> None:
        self.scope = anyio.CancelScope(deadline=math.inf if seconds is None else anyio.current_time() + seconds)
        self._began = anyio.current_time()

    @property
    def elapsed(self) -> float:
        """Seconds for which it has been running."""
        return anyio.current_time() - self._began

    @contextmanager
    def stopped(self) -> Generator[None]:
        """Stop for the time of a block."""
        stopped_at, deadline = anyio.current_time(), self.scope.deadline
        self.scope.deadline = math.inf
        try:
            yield
        finally:
            waited = anyio.current_time() - stopped_at
            self.scope.deadline = deadline + waited
            self._began += waited


class _Course:
    """What becomes of one call: whether it goes on after an error, and after how long."""

    def __init__(
        self,
        policy: RetryPolicy,
        deadline: Deadline,
        budget: RetryBudget,
        *,
        pause: Callable[[], float],
        on_retry: Callable[[CustomersError, float], None],
    ) -> None:
        self.wait = 0.0
        self.last_error: CustomersError | None = None
        self._policy = policy
        self._deadline = deadline
        self._budget = budget
        self._pause = pause
        self._on_retry = on_retry
        self._failures = 0

    def goes_on(self, state: RetryCallState) -> bool:
        """Decide whether there is another attempt. tenacity asks for the `wait` afterwards; it is decided here as well."""
        error = state.outcome and state.outcome.exception()
        if not isinstance(error, CustomersError):
            return False

        self.last_error = error
        paused_for = self._pause()
        self._failures += not (paused_for and isinstance(error, RateLimitError))
        decided = self._policy.wait_after(
            error,
            attempt=self._failures,
            elapsed=self._deadline.elapsed,
            jitter=random.random(),
            is_outage=self._budget.is_used_up,
            paused_for=paused_for,
        )
        if decided is None:
            return False

        if not paused_for and error.retry_after is None:
            self._budget.spend()
        self.wait = decided - paused_for  # the rest is waited for at the limiter
        self._on_retry(error, decided)
        return True


async def call_with_retries(
    attempt: Callable[[int, Deadline], Awaitable[T]],
    policy: RetryPolicy,
    *,
    budget: RetryBudget,
    pause: Callable[[], float],
    on_retry: Callable[[CustomersError, float], None],
) -> T:
    """
    Call *attempt* with 1, 2, 3 … until it returns, or until *policy* gives up.

    Args:
        attempt: One attempt, given its number and its deadline. Only a `CustomersError` that it raises is retried;
            everything else, cancellation above all, passes straight through.
        policy: Decides.
        budget: What this call shares with others.
        pause: Returns for how many seconds a limiter holds the next attempt back because of what came of the last. If it
            does, a 429 is no failed attempt.
        on_retry: Called before each wait, with the error of the last attempt and the seconds to wait.

    Raises:
        CustomersError: The error of the last attempt.
        APITimeoutError: The deadline cut the last attempt.
    """
    deadline = Deadline(policy.deadline)
    course = _Course(policy, deadline, budget, pause=pause, on_retry=on_retry)
    attempts = 0

    async def next_attempt() -> T:
        nonlocal attempts
        attempts += 1
        return await attempt(attempts, deadline)

    # A new object for each call: concurrent calls through one tenacity object would mix their attempts.
    retrying = AsyncRetrying(retry=course.goes_on, wait=lambda _: course.wait, sleep=anyio.sleep)
    with deadline.scope:
        outcome: T = await retrying(next_attempt)
        budget.earn()
        return outcome

    raise _deadline_error(policy.deadline, attempts, course.last_error) from course.last_error


def _deadline_error(deadline: float | None, attempts: int, last_error: CustomersError | None) -> APITimeoutError:
    message = f"no answer within the deadline of {deadline:g} s"
    if last_error is None:
        return APITimeoutError(message, attempts=attempts, transient=True)

    return APITimeoutError(
        f"{message}; before that: {last_error.message}",
        attempts=attempts,
        status_code=last_error.status_code,
        request_id=last_error.request_id,
        retry_after=last_error.retry_after,
        body_excerpt=last_error.body_excerpt,
        transient=True,
    )
