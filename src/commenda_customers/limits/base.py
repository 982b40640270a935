"""What a limiter is to the rest of the client."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

DEFAULT_MAX_IN_FLIGHT = 100
"""As many as a client has connections."""


@dataclass(slots=True)
class Permit:
    """
    One request that a limiter has let begin.

    Attributes:
        sent: When it began, in seconds of the event loop's clock.
        in_flight: How many were in flight then, itself included.
    """

    sent: float
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """
    What came of a request.

    Attributes:
        is_answered: Whether the server answered it, whatever it said.
        is_throttled: Whether the answer was a 429, or a 503 that said when to come back.
        wait: Seconds that the server asked to wait; `None` if it did not say.
        remaining: How many more requests the server says it will take; `None` if it did not say.
    """

    is_answered: bool = False
    is_throttled: bool = False
    wait: float | None = None
    remaining: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterSnapshot:
    """
    What a limiter does at the moment.

    Attributes:
        rate: Requests per second that it lets begin at the most; `None` while it knows no limit.
        in_flight: Requests in flight.
        max_in_flight: Requests that it lets be in flight at once.
        waiting: Requests that wait for their turn.
        paused_for: Seconds until any request may begin; 0 if it is not pausing.
    """

    rate: float | None
    in_flight: int
    max_in_flight: int
    waiting: int
    paused_for: float


@runtime_checkable
class RateLimiter(Protocol):
    """
    Lets requests begin. One object stands for one quota of the server: share it between the clients that share a token.

    `acquire` before each request and `release` after it, whatever has come of it; nothing is held in between that could be
    lost with a cancelled task.
    """

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        """
        Wait until a request may begin.

        Args:
            again: The request was sent before: it has waited for its turn already.
            max_wait: Seconds, 0 or more. Raise if it takes longer; `None`: wait for as long as it takes.

        Raises:
            RateLimitError: It takes longer than *max_wait*; `retry_after` says how long. An `AdaptiveLimiter` that
                knows of no limit lets the request begin instead, if fewer than `max_in_flight` are in flight.
        """
        ...

    def release(self, permit: Permit, feedback: Feedback) -> None:
        """
        Take note that a request has ended, and of what came of it.

        If it was throttled, `snapshot().paused_for` says for how long it is held back; the page waits for longer only if the
        server asked for that. Where it is 0, the retry policy waits, and counts the attempt.
        """
        ...

    def estimate_wait(self) -> float:
        """Return about how many seconds a request would wait that came now. Any thread may ask."""
        ...

    def snapshot(self) -> LimiterSnapshot:
        """Return what is going on. Any thread may ask."""
        ...
