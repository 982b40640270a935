"""
What the server's limit is: a pure decision about each request, learned from what came of those before it.

No clock, no I/O, no randomness; times are arguments, in seconds of any steady clock. The constants, here and of `Ceiling`,
were found by simulating this class against token buckets, fixed and sliding windows and limits of requests in flight, of 5
to 400 requests a second and with 5 ms to 2 s of latency. What a comment says of another value is what it did there to the
share of the limit, in points, or to the 429s.
"""

import math

from ._ceiling import Ceiling
from .base import Permit


class Controller:
    """
    Two ceilings, of the rate and of the number of requests in flight, and a pause.

    A 429 begins an *episode*. Those to requests that were sent before it say nothing new. Each episode pauses all requests
    for as long as the server asks, or else for a short nap, and lowers one of the ceilings: the one that was being probed,
    or else the window if the refused request found unusually many others in flight, or else the rate.
    """

    CAUTION = 0.99  # of a rate that was too high: a refusal must not leave it as it was. 1 makes no difference
    # A rate far above what got through is lowered to this part, or halfway on a scale of ratios if that is lower.
    CUT = 0.7  # 0.5 costs half a point, 0.9 makes a few more 429s
    DEEPEST_CUT = 0.1  # for nothing may have got through for want of time; 0 makes half as many 429s again on slow windows
    NAP = 0.2  # seconds, when the server does not say; doubled while 429s go on
    LONGEST_NAP = 8.0  # 2 and 32 make no difference
    NAP_REQUESTS = 10.0  # at a high rate a nap is as short as so many requests; else 1 point less at 5 ms of latency
    SLACK = 1.25  # of a rate above what got through while the window held requests back; without it a fifth more 429s
    # Requests in flight to begin with; up to half as many again with every round trip.
    FIRST_WINDOW = 4.0  # 8 costs 1 point, and so does 2 at 2 s of latency
    LEAST_RATE = 0.1
    LATENESS = 0.01  # seconds by which a request may be late without slowing us down; 0 costs 1 point

    def __init__(self) -> None:
        self.rate = Ceiling(math.inf)
        self.window = Ceiling(self.FIRST_WINDOW)
        self.is_limited = False
        self.paused_until = -math.inf
        self.round_trip = 0.0
        self._next_start = -math.inf
        self._proven, self._failed = 0.0, math.inf  # a rate that got through; a rate that did not
        self._episode_began, self._episodes = -math.inf, 0  # episodes in a row, without a success between them
        self._probes_in_flight = 0  # in flight, of those that began after the last episode had
        self._since, self._answered = math.inf, 0  # since the rate was last lowered
        self._usual, self._most = 1.0, 1  # in flight when a request began that was answered; the most since the last episode

    def delay(self, now: float, in_flight: int) -> float:
        """Return the seconds until the next request may begin; infinity is until one of those *in_flight* has ended."""
        if now < self.paused_until:
            return self.paused_until - now
        if (in_flight and in_flight >= int(self.window.now)) or (self._probes_in_flight and self.is_half_open):
            return math.inf
        return max(0.0, self._next_start - now)

    def begin(self, now: float) -> None:
        """Let a request begin."""
        self._probes_in_flight += 1
        self._since = min(self._since, now)
        if self.is_limited:
            self._next_start = max(self._next_start, now - self.LATENESS) + 1 / self.rate.now

    def ended(self, permit: Permit) -> None:
        """Take note that a request has ended, before learning from its answer, if there was one."""
        if permit.sent >= self._episode_began:
            self._probes_in_flight = max(0, self._probes_in_flight - 1)

    def succeeded(self, permit: Permit, now: float) -> None:
        """Learn from an answer other than 429."""
        if permit.sent > self._episode_began:
            self._episodes = 0
        self._answered += 1
        round_trip = now - permit.sent
        self.round_trip += (round_trip - self.round_trip) / 32 if self.round_trip else round_trip
        self._usual += (permit.in_flight - self._usual) / 32
        self._most = max(self._most, permit.in_flight)
        window = self.window.now
        if self.is_limited:
            is_full = permit.in_flight >= int(window)
            if is_full:
                self.window.age += self.round_trip / self.window.value
            if not is_full or window >= self.rate.now * self.round_trip:
                self.rate.age += 1 / self.rate.value
        elif permit.in_flight * 2 > window:
            self.window.value += 1

    def throttled(self, permit: Permit, now: float, wait: float | None) -> None:
        """Learn from a 429, and pause everyone for *wait* seconds; `None` if the server did not say how long."""
        if wait is not None:
            self.paused_until = max(self.paused_until, now + wait)
        if permit.sent <= self._episode_began:
            return

        self._episodes += 1
        round_trip = self.round_trip or max(now - permit.sent, 0.001)
        if wait is None or self._episodes > 1:  # a server that says "at once" again and again is not to be believed
            nap = min(self.NAP, max(2 * round_trip, self.NAP_REQUESTS / self.rate.value))
            nap = min(nap * 2.0 ** min(self._episodes - 1, 9), self.LONGEST_NAP)
            self.paused_until = max(self.paused_until, now + nap)
        if self._episodes > 1:
            self.rate.spare(self.paused_until - now)
        elif self.is_limited and self._is_crowded(permit):
            self._lower_window(permit, now, round_trip)
        else:
            self._lower_rate(permit, now, round_trip)
        self._episode_began, self._most, self._probes_in_flight = now, 1, 0
        self._next_start = max(self._next_start, self.paused_until)

    def shift_times(self, by: float) -> None:
        """Use a clock that is *by* seconds ahead. No request is in flight at this time."""
        self._probes_in_flight = 0
        self.paused_until += by
        self._next_start += by
        self._episode_began += by
        self._since += by

    @property
    def is_half_open(self) -> bool:
        """Whether one request alone is to find out if the server takes any again."""
        return self._episodes > 1

    def _is_crowded(self, permit: Permit) -> bool:
        """Whether it is the number in flight that the server minds. To a limit of the rate that number is mere chance."""
        if self.window.is_probing:
            return permit.in_flight > self.window.value
        many = (self._usual + max(self._most, permit.in_flight)) / 2
        return not self.rate.is_probing and 1 < permit.in_flight >= min(int(self.window.now), many)

    def _lower_window(self, permit: Permit, now: float, round_trip: float) -> None:
        window, rate, pause = self.window, self.rate, self.paused_until - now
        if window.is_probing:
            new, hold = max(int(window.value), int(window.now) - 1), 2 * window.hold
        else:
            new, hold = max(1, min(int(window.value), permit.in_flight) - 1), 0.0
        window.settle(float(new), hold, pace=new / round_trip, round_trip=round_trip, pause=pause)
        # A rate of which no use was made is not known to hold. It must not wait for the window to grow.
        seen = self._answered / max(now - self._since, round_trip)
        rate.value = max(min(rate.value, max(self.SLACK * seen, self.CUT * rate.value)), self.LEAST_RATE)

    def _lower_rate(self, permit: Permit, now: float, round_trip: float) -> None:
        seen = self._answered / max(now - self._since, round_trip)  # what got through since the rate was last lowered
        pause = self.paused_until - now
        if not self.is_limited:
            self.is_limited = True
            most = float(max(self._most, permit.in_flight - 1))
            self.window.settle(most, 0.0, pace=most / round_trip, round_trip=round_trip, pause=pause)
            new, hold = max(seen, 0.5 * permit.in_flight / round_trip), 0.0
        elif self.rate.is_probing:
            new, hold = self._below_probe(seen)
        else:
            new, hold = self._below_value(seen)
        new = max(new, self.LEAST_RATE)
        self.rate.settle(new, hold, pace=new, round_trip=round_trip, pause=pause)
        self._since, self._answered = now, 0

    def _below_probe(self, seen: float) -> tuple[float, float]:
        """The rate held, its probe did not: the limit is between them. Return the next rate, and for how long to hold it."""
        rate, probe = self.rate.value, self.rate.now
        self._proven = max(self._proven, seen)
        if probe > 1.5 * rate:  # a leap
            self._failed = math.inf
            return max(self._proven, (rate + probe) / 2), 0.0

        self._failed = probe if probe > 1.25 * self._failed else min(self._failed, probe)
        step = 0.5 * (probe - rate) * math.sqrt(self.rate.unit / self.rate.hold)
        new = min(rate + step, (self._proven + self._failed) / 2)
        return max(self._proven, new), 2 * self.rate.hold

    def _below_value(self, seen: float) -> tuple[float, float]:
        """The rate itself was too high. Return the next one, and for how long to hold it."""
        rate = self.rate.value
        if rate <= self._proven * 1.01:
            self._proven = 0.0  # it used to hold: the limit has fallen
        self._failed = rate
        known = max(seen, self._proven)
        lowest = max(self.DEEPEST_CUT * rate, math.sqrt(known * rate))
        new = max(min(known, self.CAUTION * rate), min(self.CUT * rate, lowest))
        self._proven = max(self._proven, min(seen, new))
        return new, 2 * self.rate.hold if new > self.CUT * rate else 0.0
