"""The protocol of a limiter, and the data that a limiter and the client exchange."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .._checks import check_not_async, check_type

DEFAULT_MAX_IN_FLIGHT = 100
"""The number of connections of a client."""


@dataclass(slots=True)
class Permit:
    """
    The permission to send one request.

    Attributes:
        sent: When the request began, in seconds of the event loop's clock.
        in_flight: Requests in flight at that time, including this one.
    """

    sent: float
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """
    The outcome of a request.

    Attributes:
        is_answered: Whether a response came, with any status.
        is_throttled: Whether the server refused the request because of a limit: a 429, or a 403 or 503 with a wait.
        is_rejected: Whether the server may have refused the request because of a limit: a 503 without a wait, or a
            connection that the server refused or closed before a response came.
        is_failed: Whether the request failed with another temporary error: a 5xx, a timeout, a response that was cut.
        wait: Seconds that the server asked to wait; `None` if it did not say.
        failing_since: When the request for this page failed for the first time, by the event loop's clock; infinity if it
            has never failed. If other requests have succeeded since, the page fails by itself.
        remaining: Requests left in the quota, according to the server; `None` if it did not say.
    """

    is_answered: bool = False
    is_throttled: bool = False
    is_rejected: bool = False
    is_failed: bool = False
    wait: float | None = None
    failing_since: float = math.inf
    remaining: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterSnapshot:
    """
    The current state of a limiter.

    Attributes:
        rate: The most requests per second that may begin; `None` while no limit is known.
        in_flight: Requests in flight.
        max_in_flight: The most requests that may be in flight.
        waiting: Requests that wait for a permit.
        paused_for: Seconds until any request may begin; 0 if there is no pause.
        is_half_open: Whether the server accepts no requests, and one request at a time tests whether it accepts them again.
        let_pass: Refusals so far that the limiter let pass: only the refused request waited.
        succeeded_at: The time of the last success, by the event loop's clock; minus infinity if no request has succeeded.
    """

    rate: float | None
    in_flight: int
    max_in_flight: int
    waiting: int
    paused_for: float
    is_half_open: bool = False
    let_pass: int = 0
    succeeded_at: float = -math.inf


@runtime_checkable
class RateLimiter(Protocol):
    """
    Gives permits to requests. One limiter represents one quota: clients that share a token should share the limiter.

    The client calls `acquire` before each attempt. It calls `release` after each attempt, with any outcome, even after a
    cancellation. `release`, `snapshot` and `estimate_wait` must be ordinary methods, because a cancelled task cannot await.
    If one of them is a coroutine function, the client refuses the limiter.

    The client never opens or closes a limiter. A limiter may have its own resources, such as a connection to a store that
    several processes share: enter it around the client, `async with MyLimiter() as limiter, AsyncCustomersAPI(rate_limit=
    limiter) as api`.
    """

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        """
        Wait until a request may begin.

        Args:
            again: Whether an earlier attempt for the same page had a permit. Such a retry does not queue behind new
                requests.
            max_wait: The longest wait in seconds, 0 or more; `None` means no limit.

        Raises:
            RateLimitError: The wait would be longer than *max_wait*; `retry_after` is the expected wait. There is one
                exception: if an `AdaptiveLimiter` knows no limit, and fewer than `max_in_flight` requests are in flight, it
                lets the request begin.
        """
        ...

    def release(self, permit: Permit, feedback: Feedback) -> None:
        """
        Return a permit to the limiter, with the outcome of the request.

        If the request was not successful, the client reads `snapshot()` next. If `paused_for` is above 0, `acquire` must
        hold the next attempt back for that time. If it is 0, the retry policy waits. A throttled request does not count as
        a failed attempt. While the limiter is half open, a failed request does not count either.
        """
        ...

    def estimate_wait(self) -> float:
        """Return about how many seconds a new request would wait now. You may call it from any thread."""
        ...

    def snapshot(self) -> LimiterSnapshot:
        """Return the current state. You may call it from any thread."""
        ...


def check_limiter(name: str, limiter: RateLimiter) -> None:
    """Refuse an object that is not a limiter, or one with an async method that must not be async."""
    check_type(name, limiter, RateLimiter)
    if isinstance(limiter, type):
        raise TypeError(f"{name}: expected a limiter, got its class; write {limiter.__name__}(...)")
    for method in ("release", "snapshot", "estimate_wait"):
        check_not_async(f"{name}.{method}", getattr(limiter, method))
