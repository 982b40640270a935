"""What an emulator received from a fleet, and how well the fleet used the limit."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from commenda_customers.testing import Emulator, RateLimit

ENOUGH, SPAN = 0.9, 2.0
"""The rate is back when this part of the limit gets through, for so many seconds."""


class Arrival(NamedTuple):
    """A request: when it came, in seconds of the machine's monotonic clock; whose it is; whether it got a page."""

    at: float
    worker: int
    is_accepted: bool


class Traffic:
    """
    The requests of a fleet.

    Attributes:
        began: When the first request came.
        first_done: When the first process has got nearly all of its pages, of those that were not killed. Until then, all
            have enough to do.
        ended: When the last request came.
    """

    def __init__(
        self, server: Emulator, shares: Sequence[Sequence[str]], survivors: Sequence[int], limit: RateLimit
    ) -> None:
        owners = {name: worker for worker, share in enumerate(shares) for name in share}
        requests = server.requests
        assert requests, "nothing was sent"
        assert requests[0].number == 1, "the emulator has forgotten the first requests"
        self._limit = limit
        self._arrivals = [Arrival(one.at, owners[one.params["corporation_id"]], one.status == 200) for one in requests]
        accepted = {
            worker: [one.at for one in self._arrivals if one.worker == worker and one.is_accepted] for worker in survivors
        }
        self.began, self.ended = self._arrivals[0].at, self._arrivals[-1].at
        self.first_done = min((times[19 * len(times) // 20] for times in accepted.values() if times), default=self.began)
        self.requests = len(requests)

    def __str__(self) -> str:
        seconds = range(math.ceil(self.ended - self.began))
        accepted = Counter(int(arrival.at - self.began) for arrival in self._arrivals if arrival.is_accepted)
        refused = Counter(int(arrival.at - self.began) for arrival in self._arrivals if not arrival.is_accepted)
        lines = {"accepted": accepted, "refused": refused}
        return "".join(f"{name} each second: {' '.join(str(of[n]) for n in seconds)}\n" for name, of in lines.items())

    def used(self, begin: float | None = None, end: float | None = None) -> float:
        """Return the part of the limit that was used; by default from the beginning, and while all are at work."""
        begin, end = self._span(begin, end)
        burst = self._limit.burst if begin <= self.began else 0
        accepted = sum(arrival.is_accepted for arrival in self._between(begin, end))
        return accepted / (burst + self._limit.rate * (end - begin))

    def refused(self, begin: float | None = None, end: float | None = None) -> float:
        """Return the part of the requests that were refused."""
        arrivals = self._between(*self._span(begin, end))
        return sum(not arrival.is_accepted for arrival in arrivals) / max(len(arrivals), 1)

    def evenness(self, begin: float | None = None, end: float | None = None) -> float:
        """Return the pages of the slowest process, divided by those of the fastest."""
        arrivals = self._between(*self._span(begin, end))
        workers = {arrival.worker for arrival in self._arrivals}
        pages = Counter(arrival.worker for arrival in arrivals if arrival.is_accepted)
        return min(pages[worker] for worker in workers) / max(pages.values(), default=1)

    def longest_silence(self, workers: Sequence[int], begin: float, end: float) -> float:
        """Return the longest time in seconds in which one of some processes sent nothing."""
        silences = [0.0]
        for worker in workers:
            times = [arrival.at for arrival in self._between(begin, end) if arrival.worker == worker]
            silences += [after - before for before, after in pairwise([begin, *times, end])]
        return max(silences)

    def unused(self, begin: float, end: float) -> float:
        """Return the unused part of the limit, in seconds. A third that is unused for three seconds is one second."""
        return (end - begin) * (1 - self.used(begin, end))

    def first_of(self, worker: int, since: float) -> float:
        """Return the seconds from a moment until a process sends something; infinity if it never does."""
        return next((one.at for one in self._arrivals if one.worker == worker and one.at >= since), math.inf) - since

    def _span(self, begin: float | None, end: float | None) -> tuple[float, float]:
        return self.began if begin is None else begin, self.first_done if end is None else end

    def _between(self, begin: float, end: float) -> list[Arrival]:
        return [arrival for arrival in self._arrivals if begin <= arrival.at <= end]
