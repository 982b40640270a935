"""The limiter for a limit that you know."""

import math
import random
import sys
from collections import deque

import anyio

from .._checks import check_positive, check_type
from ._controller import Controller
from ._outcomes import outcome_of
from ._pacing import Pacer
from ._queue import QueueingLimiter
from .base import DEFAULT_MAX_IN_FLIGHT, Feedback, LimiterSnapshot, Permit

__all__ = ["FixedRate"]


class FixedRate(QueueingLimiter):
    """
    Lets at most *limit* requests begin in any period of *per* seconds.

    The server may still refuse a request. A single refusal concerns its request alone. If refusals come in clusters, all
    requests pause. If the server accepts no requests, one request at a time tests whether it accepts them again.
    """

    def __init__(self, limit: int, *, per: float = 1.0, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        """
        A limit of *limit* requests in *per* seconds.

        Args:
            limit: Requests, 1 or more.
            per: Seconds; 1 by default.
            max_in_flight: The most requests in flight, over all clients that share the limiter; 100 by default. It should
                not exceed the number of connections: a request that waits for a connection starts later than the limiter
                intended.

        Raises:
            ValueError: A number is not above zero, or too large.
            TypeError: An argument has a wrong type.
        """
        check_positive("limit", limit)
        check_type("limit", limit, int)
        if limit > sys.maxsize:
            raise ValueError(f"limit: must be at most {sys.maxsize}")
        check_positive("per", per)
        if math.isinf(per) or math.isinf(limit / per):
            raise ValueError(f"per: must be a finite number of seconds for {limit} requests, got {per}")
        super().__init__(max_in_flight)
        self.limit = limit
        self.per = per
        self._begun: deque[float] = deque(maxlen=limit)
        self._pacer = Pacer(Controller(adapts=False, window=math.inf), random.random)

    def __repr__(self) -> str:
        return f"FixedRate({self.limit}, per={self.per})"

    def _estimate(self, before: int, now: float) -> float:
        rounds, rest = divmod(before, self.limit)
        free = self.limit - len(self._begun)
        begins_at = now if rest < free else self._begun[rest - free] + self.per
        return max(begins_at, self._pacer.paused_until, now) - now + rounds * self.per

    def snapshot(self) -> LimiterSnapshot:
        """Return the current state."""
        controller = self._pacer.controller
        return LimiterSnapshot(
            rate=self.limit / self.per,
            in_flight=self._in_flight,
            max_in_flight=self.max_in_flight,
            waiting=len(self._queue),
            paused_for=max(0.0, self._pacer.paused_until - self._now()),
            is_half_open=controller.is_half_open,
            let_pass=controller.let_pass,
            succeeded_at=controller.succeeded_at - self._ahead,
        )

    def _delay(self, now: float) -> float:
        is_full = len(self._begun) == self.limit
        return max(self._begun[0] + self.per - now if is_full else 0.0, self._pacer.delay(now))

    def _begin(self, now: float) -> None:
        self._begun.append(now)
        self._pacer.begin(now)

    def _learn(self, permit: Permit, feedback: Feedback) -> None:
        self._pacer.end(permit.sent + self._ahead)
        outcome = outcome_of(permit, feedback, anyio.current_time(), self._ahead)
        if outcome is not None:
            self._pacer.observe(outcome)

    def _forget_requests(self) -> None:
        self._pacer.forget_requests()
