"""
What the server's limit is: a pure decision about each request, learned from what came of those before it.

No clock, no I/O, no randomness; times are arguments, in seconds of any steady clock. Most constants were found by simulating
this class against token buckets, fixed and sliding windows and limits of requests in flight, of 5 to 400 requests a second.
"""

import math

from .base import Permit


class Ceiling:
    """
    The highest value that has held; probed upwards, the faster the longer it has.

    Attributes:
        value: The value that holds; infinite while nothing is known.
        age: For how many seconds it has been in use. What is not made use of proves nothing.
        hold: Seconds of use before the first probe. They double with each probe that fails, so that probes become rare.
    """

    HOLD = 4.0
    MOST_HOLD = 60.0
    GROWTH = 12.0  # seconds after which a probe has doubled the value

    def __init__(self, value: float) -> None:
        self.value = value
        self.age = 0.0
        self.hold = self.HOLD

    @property
    def now(self) -> float:
        """The value with its probe."""
        return self.value * (1 + (max(0.0, self.age - self.hold) / self.GROWTH) ** 2)

    @property
    def is_probing(self) -> bool:
        """Whether it is above what has held."""
        return self.age > self.hold

    def settle(self, value: float, hold: float) -> None:
        """Go on from another value."""
        self.value, self.hold, self.age = value, hold, 0.0


class Controller:
    """
    Two ceilings, of the rate and of the number of requests in flight, and a pause.

    A 429 begins an *episode*. Those to requests that were sent before it say nothing new. Each episode pauses all requests
    for as long as the server asks, or else for a short nap, and lowers one of the ceilings.
    """

    CAUTION = 0.99  # of a rate that was too high
    CUT, DEEP_CUT, SHORT = 0.7, 0.3, 3.0  # at the most to this part; to that one if it took longer than these seconds
    PAUSES_PER_PROBE = 30.0  # a probe that fails costs a pause, and so must be rarer by as much;
    REQUESTS_PER_PROBE = 150.0  # and it costs a 429, which must be rare among the requests of a slow server too
    NAP, LONGEST_NAP = 0.2, 8.0  # seconds, when the server does not say; doubled while 429s go on
    FIRST_WINDOW = 4.0  # requests in flight to begin with; up to half as many again with every round trip
    LEAST_RATE = 0.1
    LATENESS = 0.01  # by which timers of event loops may be late without slowing us down

    def __init__(self) -> None:
        self.rate = Ceiling(math.inf)
        self.window = Ceiling(self.FIRST_WINDOW)
        self.is_limited = False
        self.paused_until = -math.inf
        self._next_start = -math.inf
        self._proven, self._failed = 0.0, math.inf  # a rate that got through; a rate that did not
        self._episode_began, self._answered = -math.inf, 0
        self._first_sent = math.inf
        self._episodes = 0  # in a row, without a success between them
        self.round_trip = 0.0
        self._most_in_flight = 1

    def delay(self, now: float, in_flight: int) -> float:
        """Return the seconds until the next request may begin; infinity is until one of those *in_flight* has ended."""
        if now < self.paused_until:
            return self.paused_until - now
        if in_flight and (in_flight >= int(self.window.now) or self._episodes > 1):
            return math.inf  # full; or one request alone is to find out whether the limit still holds
        return max(0.0, self._next_start - now)

    def begin(self, now: float) -> None:
        """Let a request begin."""
        self._first_sent = min(self._first_sent, now)
        if self.is_limited:
            self._next_start = max(self._next_start, now - self.LATENESS) + 1 / self.rate.now

    def succeeded(self, permit: Permit, now: float) -> None:
        """Learn from an answer other than 429."""
        if permit.sent > self._episode_began:
            self._episodes = 0
        self._answered += 1
        round_trip = now - permit.sent
        self.round_trip += (round_trip - self.round_trip) / 32 if self.round_trip else round_trip
        self._most_in_flight = max(self._most_in_flight, permit.in_flight)
        if self.is_limited:
            self.rate.age += 1 / self.rate.value
            if permit.in_flight >= int(self.window.now):
                self.window.age += self.round_trip / self.window.value
        elif permit.in_flight * 2 > self.window.value:
            self.window.value += 1

    def throttled(self, permit: Permit, now: float, wait: float | None) -> None:
        """Learn from a 429, and pause everyone for *wait* seconds; `None` if the server did not say how long."""
        if wait is not None:
            self.paused_until = max(self.paused_until, now + wait)
        if permit.sent <= self._episode_began:
            return

        self._episodes += 1
        if wait is None:
            self.paused_until = now + min(self.NAP * 2.0 ** min(self._episodes - 1, 9), self.LONGEST_NAP)
        if self._episodes == 1:
            # A server that can say when to come back counts over time. One that cannot may count what is in flight.
            if self.is_limited and wait is None and 1 < self.window.value <= permit.in_flight:
                self._lower_window(permit)
            else:
                self._lower_rate(permit, now)
        self._episode_began, self._answered = now, 0

    def forget_times(self) -> None:
        """Keep what was learned, but no moment: the clock is another one from now on."""
        self.paused_until = self._next_start = self._episode_began = -math.inf
        self._first_sent, self._answered, self._episodes = math.inf, 0, 0

    def _lower_window(self, permit: Permit) -> None:
        window = self.window
        if window.is_probing:
            window.settle(max(int(window.value), int(window.now) - 1), min(2 * window.hold, window.MOST_HOLD))
        else:
            window.settle(max(1, min(int(window.value), permit.in_flight) - 1), window.HOLD)

    def _lower_rate(self, permit: Permit, now: float) -> None:
        span = max(now - max(self._episode_began, self._first_sent), 0.05)
        seen = self._answered / span  # what got through since the last episode
        rate, old = self.rate, self.rate.value
        hold = rate.HOLD
        if not self.is_limited:
            self.is_limited = True
            self.window.settle(float(max(self._most_in_flight, permit.in_flight - 1)), self.window.HOLD)
            new = max(seen, 0.5 * permit.in_flight / (self.round_trip or max(now - permit.sent, 0.001)))
        elif rate.is_probing:
            # The rate held, its probe did not: the limit is between them.
            self._proven = max(self._proven, seen)
            probe = rate.now
            leapt = probe > 1.5 * old
            if leapt or probe > 1.25 * self._failed:
                self._failed = math.inf
            if leapt:
                new = (old + probe) / 2
            else:
                self._failed = min(self._failed, probe)
                new = min(old + (probe - old) * 0.5 * rate.HOLD / rate.hold, (self._proven + self._failed) / 2)
                hold = 2 * rate.hold
            new = max(self._proven, new)
        else:
            if old <= self._proven * 1.01:
                self._proven = 0.0  # it used to hold: the limit has fallen
            self._failed = old
            cut = self.CUT if span < self.SHORT else self.DEEP_CUT
            new = max(min(max(seen, self._proven), self.CAUTION * old), cut * old)
            self._proven = max(self._proven, min(seen, new))
            hold = 2 * rate.hold
        pause = self.paused_until - now
        longest = max(rate.HOLD, self.PAUSES_PER_PROBE * pause, self.REQUESTS_PER_PROBE / max(new, self.LEAST_RATE))
        rate.settle(max(new, self.LEAST_RATE), min(hold, longest, rate.MOST_HOLD))
