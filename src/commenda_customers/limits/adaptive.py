"""The default limiter: it learns the server's limit."""

import math
import random

import anyio

from ._controller import Controller
from ._outcomes import Kind, Outcome, outcome_of
from ._pacing import Pacer
from ._queue import QueueingLimiter
from .base import DEFAULT_MAX_IN_FLIGHT, Feedback, LimiterSnapshot, Permit

__all__ = ["AdaptiveLimiter"]

_FEWEST_RESPONSES = 20
"""Between two quota hints, which are successes that say that no quota remains. Small quotas need no pause for each."""

_QUOTA_HINTS = 3
"""Hints that count between two refusals. A server that counts down and never refuses must not slow us down."""


class AdaptiveLimiter(QueueingLimiter):
    """
    Learns how many requests the server accepts, from its refusals and from its quota headers.

    While the limiter knows no limit, it limits the number of requests in flight: four at first, and one more after each
    response. A single refusal concerns its request alone. When refusals come in clusters, all requests pause. Then the
    limiter spreads them evenly, at a rate slightly below the one that the server accepted. From time to time it tries a
    higher rate. If the server accepts no requests, one request at a time tests whether it accepts them again.

    One limiter represents one quota: pass it to all clients that share a token.
    """

    def __init__(self, *, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        """
        A new limiter knows nothing about the server.

        Args:
            max_in_flight: The most requests in flight, over all clients that share the limiter; 100 by default.

        Raises:
            ValueError: *max_in_flight* is not above zero.
            TypeError: *max_in_flight* is not an int.
        """
        super().__init__(max_in_flight)
        self._pacer = self._new_pacer()
        self._had_quota = False
        self._responses_since_hint = _FEWEST_RESPONSES
        self._hints_left = _QUOTA_HINTS

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {self._rate_in_words()}>"

    def _rate_in_words(self) -> str:
        rate = self._pacer.rate
        return "no limit known" if math.isinf(rate) else f"{rate:.3g} requests per second"

    def _estimate(self, before: int, now: float) -> float:
        controller, rate = self._pacer.controller, self._pacer.rate
        delay = self._time_to_start(now)
        if delay < math.inf:
            return delay + before / rate

        # One request in flight has to end for each that begins.
        window = 1 if controller.is_half_open else self._window
        return max((before + 1) * controller.round_trip / window, before / rate)

    def snapshot(self) -> LimiterSnapshot:
        """Return the current state."""
        controller = self._pacer.controller
        return LimiterSnapshot(
            rate=self._pacer.rate if controller.is_limited else None,
            in_flight=self._in_flight,
            max_in_flight=self._window,
            waiting=len(self._queue),
            paused_for=max(0.0, self._pacer.paused_until - self._now()),
            is_half_open=controller.is_half_open,
            let_pass=controller.let_pass,
            succeeded_at=controller.succeeded_at - self._ahead,
        )

    def _new_pacer(self, controller: Controller | None = None) -> Pacer:
        return Pacer(controller, random.random)

    @property
    def _window(self) -> int:
        return max(1, int(min(self._pacer.window, self.max_in_flight)))

    def _delay(self, now: float) -> float:
        return self._pacer.delay(now)

    def _knows_no_limit(self) -> bool:
        controller = self._pacer.controller
        return not (controller.is_limited or controller.is_half_open) and self._now() >= self._pacer.paused_until

    def _begin(self, now: float) -> None:
        self._pacer.begin(now)

    def _learn(self, permit: Permit, feedback: Feedback) -> None:
        self._pacer.end(permit.sent + self._ahead)
        outcome = outcome_of(permit, feedback, anyio.current_time(), self._ahead)
        if outcome is not None:
            self._observe(outcome)
        if feedback.is_throttled:
            self._hints_left = _QUOTA_HINTS
        elif outcome is not None and outcome.kind is Kind.SUCCESS:
            self._heed_quota(outcome, feedback.remaining)
        if feedback.remaining is not None:
            self._had_quota = feedback.remaining > 0

    def _observe(self, outcome: Outcome) -> None:
        self._pacer.observe(outcome)

    def _exhaust(self, outcome: Outcome) -> None:
        self._pacer.exhaust(outcome)

    def _heed_quota(self, outcome: Outcome, remaining: int | None) -> None:
        """Treat a quota that is used up like a limit that was met, without a refused request."""
        self._responses_since_hint += 1
        if remaining != 0:
            return

        # Ignore it if the server says it and never refuses.
        if self._had_quota and self._responses_since_hint > _FEWEST_RESPONSES and self._hints_left:
            self._exhaust(Outcome(Kind.REFUSAL, outcome.sent, outcome.ended, outcome.in_flight))
            self._hints_left -= 1
        self._responses_since_hint = 0

    def _forget_requests(self) -> None:
        self._pacer.forget_requests()
