"""The default limiter: it learns the server's limit."""

import math

from ._controller import Controller
from ._queue import QueueingLimiter
from .base import DEFAULT_MAX_IN_FLIGHT, Feedback, LimiterSnapshot, Permit

__all__ = ["AdaptiveLimiter"]

_FEWEST_RESPONSES = 20
"""Between two quota hints, which are successes that say that no quota remains. Small quotas need no pause for each."""

_QUOTA_HINTS = 3
"""Hints that count between two 429s. A server that counts down and never refuses must not slow us down."""


class AdaptiveLimiter(QueueingLimiter):
    """
    Learns how many requests the server takes, from its 429s and from the headers of its quota.

    Before the first 429 it limits the number of requests in flight: four at first, and at most 50 % more after each round
    trip. After it, requests begin evenly, a little below the rate that the server accepted. A higher rate is probed from
    time to time. The longer the current rate holds, the less often that happens.

    One limiter stands for one quota: pass it to all clients that share a token.
    """

    def __init__(self, *, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        """
        A new limiter knows nothing about the server.

        Args:
            max_in_flight: The most requests in flight, over all clients that share the limiter; 100 by default.

        Raises:
            ValueError: It is not above zero.
            TypeError: It is not an int.
        """
        super().__init__(max_in_flight)
        self._controller = Controller()
        self._had_quota = False
        self._responses_since_hint = _FEWEST_RESPONSES
        self._hints_left = _QUOTA_HINTS

    def __repr__(self) -> str:
        rate = f"{self._controller.rate.now:.3g} requests per second" if self._controller.is_limited else "no limit known"
        return f"<AdaptiveLimiter, {rate}>"

    def _estimate(self, ahead: int, now: float) -> float:
        controller = self._controller
        delay = self._time_to_start(now)
        if delay < math.inf:
            return delay + ahead / controller.rate.now

        # One request in flight has to end for each that begins.
        window = 1 if controller.is_half_open else min(int(controller.window.now), self.max_in_flight)
        return max((ahead + 1) * controller.round_trip / window, ahead / controller.rate.now)

    def snapshot(self) -> LimiterSnapshot:
        """Return the present state."""
        controller = self._controller
        return LimiterSnapshot(
            rate=controller.rate.now if controller.is_limited else None,
            in_flight=self._in_flight,
            max_in_flight=min(int(controller.window.now), self.max_in_flight),
            waiting=len(self._queue),
            paused_for=max(0.0, controller.paused_until - self._now()),
        )

    def _delay(self, now: float) -> float:
        return self._controller.delay(now, self._in_flight)

    def _knows_no_limit(self) -> bool:
        return not self._controller.is_limited and self._now() >= self._controller.paused_until

    def _begin(self, now: float) -> None:
        self._controller.begin(now)

    def _learn(self, permit: Permit, feedback: Feedback, now: float) -> None:
        self._controller.ended(permit)
        if feedback.is_throttled:
            self._controller.throttled(permit, now, feedback.wait)
            self._hints_left = _QUOTA_HINTS
        elif feedback.is_answered:
            self._controller.succeeded(permit, now)
            self._responses_since_hint += 1
            if feedback.remaining == 0:
                # Treat it like a 429, but without a refused request. Ignore it if the server says it and never refuses.
                if self._had_quota and self._responses_since_hint > _FEWEST_RESPONSES and self._hints_left:
                    self._controller.throttled(permit, now, None)
                    self._hints_left -= 1
                self._responses_since_hint = 0
        if feedback.remaining is not None:
            self._had_quota = feedback.remaining > 0

    def _shift_times(self, by: float) -> None:
        self._controller.shift_times(by)
