"""When the next request may begin, according to what the controller has learned."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ._breaker import LONGEST_OUTAGE_NAP
from ._controller import Controller
from ._outcomes import Outcome

_LATENESS = 0.01
"""Seconds by which a request may be late without slowing down those behind it. A timer of an event loop is never exact."""

_TELLING = 0.1
"""Seconds, at most, for which requests wait until the others know an outcome."""

_GUESSED_ROUND_TRIP = 0.1
"""Seconds, while the round trip is not known."""

_MOST_JITTER = 0.25
"""The part of a pause, while the server is shut, by which it is longer at most; never more than a second."""


@dataclass(slots=True)
class Part:
    """
    Our part of the limit, if other processes use it too.

    Attributes:
        share: The part of the rate.
        room: Our share of the requests that may be in flight; below 1 if there are more processes than requests.
        phase: When all begin again, we wait for this part of an interval, from 0 to 1, so that we begin in turn.
        elsewhere: Requests of the others in flight that began after the last lesson.
        untold: Outcomes that the others do not know yet. In slow start, or half open, these requests count as in flight.
        untold_since: When the first of them was known here.
    """

    share: float = 1.0
    room: float = math.inf
    phase: float = 0.0
    elsewhere: int = 0
    untold: int = 0
    untold_since: float = -math.inf


class Pacer:
    """
    Spreads requests evenly, pauses them, and lets one at a time find out whether a server that was shut is open again.

    Attributes:
        controller: What was learned.
        part: Our part of it.
    """

    def __init__(self, controller: Controller | None = None, jitter: Callable[[], float] = float) -> None:
        """Begin with what a controller has learned, by default nothing. *jitter* returns random numbers from 0 to 1."""
        self.controller = controller or Controller()
        self.part = Part()
        self._jitter = jitter
        self._paused_for_longer = 0.0
        self._next_start = -math.inf
        self._interval = 0.0  # seconds from the last start to the next one
        self._last_start = -math.inf
        # Requests in flight that began after the last lesson. Older ones may hang, and must not block the others.
        self._recent = 0
        self._lesson: float = self.controller.lesson_at  # the last one that was heeded
        self._heeded_at = -math.inf

    @property
    def rate(self) -> float:
        """Requests per second that may begin now; infinite while no limit is known."""
        controller = self.controller
        rate = controller.present_rate * self.part.share
        # Less than one request in flight means to wait between two requests.
        return rate if self.part.room >= 1 else min(rate, self.part.room / max(controller.round_trip, _GUESSED_ROUND_TRIP))

    @property
    def window(self) -> float:
        """Requests that may be in flight; one may be in any case."""
        return min(self.part.room, self.controller.window)

    @property
    def in_flight(self) -> int:
        """Requests whose outcome is not known to all."""
        return self._recent if self.controller.is_limited else self._recent + self.part.untold

    def delay(self, now: float) -> float:
        """Return the seconds until the next request may begin; infinity: not before one of those in flight has ended."""
        controller = self.controller
        if now < self.paused_until:
            return self.paused_until - now
        if controller.is_half_open and (self._recent or self.part.elsewhere or self.part.untold):
            # A probe that hangs must not keep the others waiting for its timeout.
            return max(0.0, max(self._last_start, self.paused_until) + LONGEST_OUTAGE_NAP - now)
        if self._recent and self._recent >= self.window:
            return math.inf
        must_be_told = self.part.untold and self.in_flight >= self.window
        told_by = self.part.untold_since + _TELLING if must_be_told else -math.inf
        return max(0.0, told_by - now, self._next_start - now)

    def begin(self, now: float) -> None:
        """Count a request that begins."""
        self._recent += 1
        self._last_start = now
        self._interval = 1 / self.rate
        self._next_start = max(self._next_start, now - _LATENESS) + self._interval

    def end(self, sent: float) -> None:
        """Count a request that has ended."""
        if sent >= self._heeded_at:
            self._recent = max(0, self._recent - 1)

    def observe(self, outcome: Outcome) -> None:
        """Learn from an outcome."""
        self.controller.observe(outcome)
        self.heed_lesson(outcome.ended)

    def exhaust(self, outcome: Outcome) -> None:
        """Learn from a quota that a response says is used up."""
        self.controller.exhaust(outcome)
        self.heed_lesson(outcome.ended)

    @property
    def paused_until(self) -> float:
        """No request begins until then."""
        return self.controller.paused_until + self._paused_for_longer

    def heed_lesson(self, now: float) -> None:
        """Pause, if there was a lesson since the last call."""
        controller = self.controller
        if controller.lesson_at == self._lesson:
            return

        self._lesson, self._heeded_at = controller.lesson_at, now
        self._recent = self.part.elsewhere = self.part.untold = 0
        # Many clients that find out whether a server is back must not do so at the same moment.
        pause = controller.paused_until - controller.lesson_at if controller.is_half_open else 0.0
        self._paused_for_longer = self._jitter() * min(_MOST_JITTER * pause, 1.0)
        self.begin_in_turn(self.paused_until)

    def begin_in_turn(self, now: float) -> None:
        """Let the next request begin in our turn after *now*."""
        turn = now + self.part.phase / self.rate
        late = max(0.0, self._next_start - turn)
        if self.part.share < 1:
            # Who hears late of a lesson begins at its next turn. Otherwise all begin at once, again and again.
            late = round(late * self.rate) / self.rate
        self._next_start = turn + late

    def use_part(self) -> None:
        """Let the next request wait as long as our present part of the limit demands."""
        interval = 1 / self.rate
        self._next_start += interval - self._interval
        self._interval = interval

    def forget_requests(self) -> None:
        """Forget the requests in flight: they will never end."""
        self._recent = 0
