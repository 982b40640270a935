"""The default limiter: it finds the server's limit by itself."""

import math

from ._controller import Controller
from ._queue import QueueingLimiter
from .base import DEFAULT_MAX_IN_FLIGHT, Feedback, LimiterSnapshot, Permit

__all__ = ["AdaptiveLimiter"]

_FEWEST_ANSWERS = 20
"""Between two that say that no quota remains. A small quota is used up better without a pause for each."""

_QUOTA_HINTS = 3
"""That are learned from such answers between two 429s: a server that counts down and never refuses must not slow us down."""


class AdaptiveLimiter(QueueingLimiter):
    """
    Learns how many requests the server takes, from its 429s and from what it says of its quota.

    Until the first 429 only the number of requests in flight is limited: four at first, and up to half as many again with
    each round trip. From then on requests begin evenly, a little below what the server was found to take, and the limit is
    probed less often the longer it holds.

    One object stands for one quota: pass it to all clients that share a token.
    """

    def __init__(self, *, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        """
        Know nothing yet.

        Args:
            max_in_flight: Requests that may be in flight at once at the most, over all clients that share the limiter.

        Raises:
            ValueError: It is not above zero.
            TypeError: It is no int.
        """
        super().__init__(max_in_flight)
        self._controller = Controller()
        self._some_remained = False
        self._answers_since_none_remained = _FEWEST_ANSWERS
        self._trust = _QUOTA_HINTS

    def __repr__(self) -> str:
        rate = f"{self._controller.rate.now:.3g} requests per second" if self._controller.is_limited else "no limit known"
        return f"<AdaptiveLimiter, {rate}>"

    def _estimate(self, ahead: int, now: float) -> float:
        controller = self._controller
        delay = self._time_to_start(now)
        if delay < math.inf:
            return delay + ahead / controller.rate.now

        # One of those in flight has to end for each that begins.
        window = 1 if controller.is_half_open else min(int(controller.window.now), self.max_in_flight)
        return max((ahead + 1) * controller.round_trip / window, ahead / controller.rate.now)

    def snapshot(self) -> LimiterSnapshot:
        """Return what is going on."""
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
            self._trust = _QUOTA_HINTS
        elif feedback.is_answered:
            self._controller.succeeded(permit, now)
            self._answers_since_none_remained += 1
            if feedback.remaining == 0:
                # As good as a 429, and cheaper. From a server that says so and never means it, it means nothing.
                if self._some_remained and self._answers_since_none_remained > _FEWEST_ANSWERS and self._trust:
                    self._controller.throttled(permit, now, None)
                    self._trust -= 1
                self._answers_since_none_remained = 0
        if feedback.remaining is not None:
            self._some_remained = feedback.remaining > 0

    def _shift_times(self, by: float) -> None:
        self._controller.shift_times(by)
