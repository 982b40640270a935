"""
Tells an outage, in which nothing gets through, from requests that fail by themselves: pure, like the controller.

1. *A request fails by itself* if others have succeeded since it failed for the first time. No other request waits for it.
2. *Shut.* If several requests fail in a row and nothing succeeds for two round trips, the server takes nothing at all. The
   same is true if requests are refused or fail again before one has succeeded after a pause.
3. *Half open.* While the server is shut, the pauses double, and one request at a time finds out. The first success lets all
   resume.
"""

import math
from dataclasses import dataclass

from ._outcomes import Kind, Outcome

NAP, LONGEST_NAP, LONGEST_OUTAGE_NAP = 0.2, 8.0, 4.0  # seconds; half of the first two: 95.0, 1.19; twice: 95.1, 1.17
LONG_WAIT = 1.0  # seconds; most shorter waits are rounded up; half: 89.0, 1.84; twice: 95.5, 1.15
FAILURES = 4  # in a row, after which the server is shut: fewer pages may fail by themselves at the same time


@dataclass(slots=True)
class Breaker:
    """
    What is known of the server's availability, as plain data.

    Attributes:
        round_trip: Seconds, on average.
        paused_until: Until then no request begins.
        lesson_at: When the last pause was decided. Requests that were sent before say nothing new.
        strikes: Pauses in a row without a success between them.
        failures: Failures in a row.
        has_worked: Whether any request was answered.
        succeeded_at: When a request succeeded last.
        used_until: Until then the server was in use, or the rate did not allow another request.
    """

    round_trip: float = 0.0
    paused_until: float = -math.inf
    lesson_at: float = -math.inf
    strikes: int = 0
    failures: int = 0
    has_worked: bool = False
    succeeded_at: float = -math.inf
    used_until: float = -math.inf

    @property
    def is_half_open(self) -> bool:
        """Whether one request alone finds out if the server takes any again."""
        return self.strikes > 1

    def concerns_all(self, outcome: Outcome) -> bool:
        """Return whether an outcome says anything about the server."""
        self.has_worked |= outcome.is_answered
        if not self.has_worked:
            # Most likely it never will: the address is wrong. That is no limit and no outage.
            return False
        # A request fails by itself if others have succeeded since it failed for the first time.
        return outcome.kind is Kind.SUCCESS or outcome.failing_since >= self.succeeded_at

    def idle_before(self, outcome: Outcome, interval: float) -> float:
        """Return the seconds before a request in which nothing was wanted. Requests may begin every *interval* seconds."""
        idle = outcome.sent - max(self.used_until, self.paused_until) if outcome.in_flight == 1 else 0.0
        self.used_until = max(self.used_until, outcome.ended, outcome.sent + interval)
        return idle if 0.0 < idle < math.inf else 0.0

    def note_success(self, outcome: Outcome) -> None:
        """Take note of a success. It ends an outage, if the request began after the last pause."""
        self.succeeded_at, self.failures = outcome.ended, 0
        self.round_trip += (outcome.duration - self.round_trip) / 32 if self.round_trip else outcome.duration
        if outcome.sent >= self.lesson_at:
            self.strikes = 0

    def is_shut_by(self, outcome: Outcome) -> bool:
        """Take note of a failure, and return whether the server takes nothing at all."""
        if outcome.sent < self.lesson_at:
            return False

        self.failures += 1
        is_quiet = outcome.ended - self.succeeded_at >= 2 * self.round_trip
        return self.strikes > 0 or (self.failures >= FAILURES and is_quiet)

    def nap_after(self, outcome: Outcome) -> float:
        """Return the seconds to pause: those that the server asks for, or a nap that doubles."""
        asked = outcome.wait or 0.0
        if not self.strikes:
            return asked if asked > LONG_WAIT else min(NAP, 2 * (self.round_trip or outcome.duration))
        longest = LONGEST_NAP if outcome.kind is Kind.REFUSAL else LONGEST_OUTAGE_NAP
        return asked if asked >= LONG_WAIT else min(longest, NAP * 2.0 ** min(self.strikes, 9))
