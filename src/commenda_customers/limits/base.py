"""The protocol of a limiter, and the values that it exchanges with the client."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

DEFAULT_MAX_IN_FLIGHT = 100
"""The number of connections of a client."""


@dataclass(slots=True)
class Permit:
    """
    The permission to send one request.

    Attributes:
        sent: When the request began, in seconds of the event loop's clock.
        in_flight: Requests in flight at that time, this one included.
    """

    sent: float
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """
    The outcome of a request.

    Attributes:
        is_answered: Whether a response came, whatever its status.
        is_throttled: Whether the server refused the request because of a limit: a 429, or a 503 with a wait.
        is_rejected: Whether it may have been refused because of a limit: a 503 without a wait, or a connection that was
            refused or closed before a response came.
        is_failed: Whether it failed in any other way that may pass: a 5xx, a timeout, a response that was cut.
        wait: Seconds that the server asked to wait; `None` if it did not say.
        failing_since: When the request failed for the first time, by the event loop's clock; infinity if it had not. If
            others have succeeded since, it fails by itself.
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
    The present state of a limiter.

    Attributes:
        rate: The most requests per second that may begin; `None` while no limit is known.
        in_flight: Requests in flight.
        max_in_flight: The most requests that may be in flight.
        waiting: Requests that wait for a permit.
        paused_for: Seconds until any request may begin; 0 if there is no pause.
        is_half_open: Whether the server takes nothing, and one request alone finds out if it takes any again.
        let_pass: Refusals so far that concerned their request alone.
        succeeded_at: When a request succeeded last, by the event loop's clock; minus infinity if none has.
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
    Gives permits to requests. One object stands for one quota: clients that share a token share it.

    The client calls `acquire` before each attempt and `release` after it, whatever its outcome, also if it was cancelled.
    `release`, `snapshot` and `estimate_wait` are ordinary methods, since a cancelled task cannot await; a limiter in which
    one of them is a coroutine function is refused.

    The client never opens or closes a limiter. A limiter may have resources of its own, such as a connection to a store that
    several processes share: enter it around the client, `async with MyLimiter() as limiter, AsyncCustomersAPI(rate_limit=
    limiter) as api`.
    """

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        """
        Wait until a request may begin.

        Args:
            again: An earlier attempt of the request had a permit, so it does not queue behind new requests.
            max_wait: Seconds, 0 or more, after which to raise; `None` means no limit.

        Raises:
            RateLimitError: It takes longer than *max_wait*; `retry_after` is the expected wait. An `AdaptiveLimiter` that
                knows no limit lets the request begin instead, if fewer than `max_in_flight` are in flight.
        """
        ...

    def release(self, permit: Permit, feedback: Feedback) -> None:
        """
        Give a permit back, with the outcome of the request.

        If the request was not successful, the client reads `snapshot()` next. If `paused_for` is above 0, `acquire` is
        expected to hold the next attempt back for so long; if it is 0, the retry policy waits. A throttled request does not
        count as a failed attempt, and neither does a failed one while the limiter is half open.
        """
        ...

    def estimate_wait(self) -> float:
        """Return about how many seconds a request would wait if it came now. May be called in any thread."""
        ...

    def snapshot(self) -> LimiterSnapshot:
        """Return the present state. May be called in any thread."""
        ...
