"""When the next request may begin, according to what the controller has learned."""

import math
from collections.abc import Callable

from ._breaker import LONGEST_OUTAGE_NAP
from ._controller import Controller
from ._outcomes import Outcome

_LATENESS = 0.01
"""Seconds by which a request may be late without slowing down those behind it. A timer of an event loop is never exact."""

_MOST_JITTER = 0.25
"""The part of a pause, while the server is shut, by which it is longer at most; never more than a second."""


class Pacer:
    """Spreads requests evenly, pauses them, and lets one at a time find out whether a server that was shut is open again."""

    def __init__(self, controller: Controller | None = None, jitter: Callable[[], float] = float) -> None:
        """Begin with what a controller has learned, by default nothing. *jitter* returns random numbers from 0 to 1."""
        self.controller = controller or Controller()
        self._jitter = jitter
        self._paused_for_longer = 0.0
        self._next_start = -math.inf
        self._last_start = -math.inf
        # Requests in flight that began after the last lesson. Older ones may hang, and must not block the others.
        self._recent = 0

    def delay(self, now: float) -> float:
        """Return the seconds until the next request may begin; infinity: not before one of those in flight has ended."""
        controller = self.controller
        if now < self.paused_until:
            return self.paused_until - now
        if self._recent and controller.is_half_open:
            # A probe that hangs must not keep the others waiting for its timeout.
            return max(0.0, self._last_start + LONGEST_OUTAGE_NAP - now)
        if self._recent and self._recent >= controller.window:
            return math.inf
        return max(0.0, self._next_start - now)

    def begin(self, now: float) -> None:
        """Count a request that begins."""
        self._recent += 1
        self._last_start = now
        if self.controller.is_limited:
            self._next_start = max(self._next_start, now - _LATENESS) + 1 / self.controller.present_rate

    def end(self, sent: float, outcome: Outcome | None) -> None:
        """Count a request that has ended, and learn from its outcome, if it has one: a cancelled request has none."""
        controller = self.controller
        if sent >= controller.lesson_at:
            self._recent = max(0, self._recent - 1)
        if outcome is None:
            return

        lesson_before = controller.lesson_at
        controller.observe(outcome)
        self._heed_lesson(lesson_before)

    def exhaust(self, outcome: Outcome) -> None:
        """Learn from a quota that a response says is used up."""
        lesson_before = self.controller.lesson_at
        self.controller.exhaust(outcome)
        self._heed_lesson(lesson_before)

    @property
    def paused_until(self) -> float:
        """No request begins until then."""
        return self.controller.paused_until + self._paused_for_longer

    def _heed_lesson(self, lesson_before: float) -> None:
        controller = self.controller
        if controller.lesson_at == lesson_before:
            return

        self._recent = 0
        # Many clients that find out whether a server is back must not do so at the same moment.
        pause = controller.paused_until - controller.lesson_at if controller.is_half_open else 0.0
        self._paused_for_longer = self._jitter() * min(_MOST_JITTER * pause, 1.0)
        self._next_start = max(self._next_start, self.paused_until)

    def shift_times(self, by: float) -> None:
        """Use a clock that is *by* seconds ahead. No request is in flight at this time."""
        self._recent = 0
        self._next_start += by
        self.controller.shift_times(by)
