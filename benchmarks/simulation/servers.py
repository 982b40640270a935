"""The servers: what each kind of limit counts, and the scenarios that the contenders are measured in."""

import math
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

LEAST = 1e-9
"""Less than this is an error of floating point."""


class Known(NamedTuple):
    """What someone who has read the server's documentation would tell a limiter: *limit* requests *per* seconds."""

    limit: int
    per: float
    in_flight: int | None = None


class Server(ABC):
    """What a server counts. `factor` is the part of its limit that is left to us."""

    factor = 1.0

    def admits(self, now: float) -> bool:
        """Count a request, if there is room for it."""
        if self.wait(now) > LEAST:
            return False
        self.count(now)
        return True

    def change(self, now: float, factor: float) -> None:
        """Leave another part of the limit to us, from now on."""
        self.wait(now)  # what was gained until now was gained with the old part
        self.factor = factor

    @abstractmethod
    def wait(self, now: float) -> float:
        """Return the seconds until there may be room."""

    @abstractmethod
    def count(self, now: float) -> None:
        """Take note that a request was admitted."""

    @abstractmethod
    def remaining(self) -> int:
        """Return how many requests there is room for, as of the last call of another method."""

    @abstractmethod
    def known(self) -> Known:
        """Return the limit as it is documented, with the whole of it left to us."""

    def refused(self, now: float) -> None:  # noqa: B027 - most servers do not
        """Take note that a request was refused."""

    def done(self) -> None:  # noqa: B027 - most servers do not
        """Take note that a request was answered."""


class Bucket(Server):
    """Tokens drip in at *rate*, up to *burst* of them; a request takes one."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, float(burst), 0.0

    def wait(self, now: float) -> float:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate * self.factor)
        self.at = now
        return max(0.0, (1 - self.tokens) / (self.rate * self.factor)) if self.factor else max(0.0, 1.0 - self.tokens)

    def count(self, now: float) -> None:  # noqa: ARG002 - a token has no date
        self.tokens -= 1

    def remaining(self) -> int:
        return int(self.tokens)

    def known(self) -> Known:
        limit = int(min(self.burst, self.rate))
        return Known(limit, limit / self.rate)


class Window(Server):
    """*quota* requests from one full *per* seconds to the next. The server's clock does not begin with ours."""

    def __init__(self, quota: int, per: float, shift: float) -> None:
        self.quota, self.per, self.shift = quota, per, shift
        self.number, self.used = 0, 0

    def wait(self, now: float) -> float:
        number = int((now + self.shift + LEAST) // self.per)
        if number != self.number:
            self.number, self.used = number, 0
        return 0.0 if self.remaining() else (number + 1) * self.per - self.shift - now

    def count(self, now: float) -> None:  # noqa: ARG002 - the window has been opened by `wait`
        self.used += 1

    def remaining(self) -> int:
        return max(0, int(self.quota * self.factor) - self.used)

    def known(self) -> Known:
        return Known(self.quota, self.per)


class SlidingWindow(Server):
    """*quota* requests in the last *per* seconds, wherever one begins to count; with *penalty* those refused count too."""

    def __init__(self, quota: int, per: float, *, penalty: bool = False) -> None:
        self.quota, self.per, self.penalty = quota, per, penalty
        self.log: deque[float] = deque()

    def wait(self, now: float) -> float:
        while self.log and self.log[0] <= now - self.per + LEAST:
            self.log.popleft()
        surplus = len(self.log) - int(self.quota * self.factor)
        return 0.0 if surplus < 0 else self.log[surplus] + self.per - now

    def count(self, now: float) -> None:
        self.log.append(now)

    def refused(self, now: float) -> None:
        if self.penalty:
            self.log.append(now)

    def remaining(self) -> int:
        return max(0, int(self.quota * self.factor) - len(self.log))

    def known(self) -> Known:
        return Known(self.quota, self.per)


class InFlight(Server):
    """*limit* requests at once."""

    POLL = 0.002
    """Seconds. Nobody can know when one of those at work is done."""

    def __init__(self, limit: int) -> None:
        self.limit, self.active = limit, 0

    def wait(self, now: float) -> float:  # noqa: ARG002 - it does not count over time
        return 0.0 if self.remaining() else self.POLL

    def count(self, now: float) -> None:  # noqa: ARG002 - it does not count over time
        self.active += 1

    def done(self) -> None:
        self.active -= 1

    def remaining(self) -> int:
        return max(0, int(self.limit * self.factor) - self.active)

    def known(self) -> Known:
        return Known(1_000_000, 1.0, self.limit)


class Free(Server):
    """No limit at all."""

    def wait(self, now: float) -> float:  # noqa: ARG002 - it does not count
        return 0.0

    def count(self, now: float) -> None:
        pass

    def remaining(self) -> int:
        return 1_000_000

    def known(self) -> Known:
        return Known(1_000_000, 1.0)


class Both(Server):
    """Two limits at once. Each request must keep to both."""

    def __init__(self, first: Server, second: Server) -> None:
        self.first, self.second = first, second

    def change(self, now: float, factor: float) -> None:
        self.first.change(now, factor)
        self.second.change(now, factor)

    def wait(self, now: float) -> float:
        return max(self.first.wait(now), self.second.wait(now))

    def count(self, now: float) -> None:
        self.first.count(now)
        self.second.count(now)

    def remaining(self) -> int:
        return min(self.first.remaining(), self.second.remaining())

    def known(self) -> Known:
        return self.first.known()


CLOSED = 0
"""The status of an answer that never comes, because the connection is closed in its place."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """
    A server and what is around it.

    Attributes:
        make: Makes the server; may draw what nobody can know, such as the second in which a minute begins.
        says_when: Whether its 429s have a `Retry-After`, in whole seconds.
        says_remaining: Whether its answers say how much of the quota remains.
        changes: How its limit changes: (when, to which part).
        failures: The part of its answers that are 500.
        is_jittery: Whether requests take very different times to reach it.
        make_own: Makes what each corporation is limited by, beside the limit of all.
        refuses_with: The status of a refusal, or `CLOSED`.
        chance: The part of the requests that is refused although there is room for them.
        strays: The numbers of requests that are refused although there is room for them; the first is 1.
        first_takes: Seconds that the first answer takes longer.
        workers: Requests that it works at without being slower.
        congestion: How much slower more requests make it: with 1 its work is shared out, with 2 it also gets less done.
        best_at_once: Numbers in flight that the ideal client tries. It uses the best. By default the setting's.
    """

    make: Callable[[random.Random], Server]
    says_when: bool = True
    says_remaining: bool = False
    changes: tuple[tuple[float, float], ...] = ()
    failures: float = 0.0
    is_jittery: bool = False
    make_own: Callable[[random.Random], Server] | None = None
    refuses_with: int = 429
    chance: float = 0.0
    strays: tuple[int, ...] = ()
    first_takes: float = 0.0
    workers: float = math.inf
    congestion: float = 0.0
    best_at_once: tuple[int, ...] = ()


def bucket(rate: float, burst: int) -> Callable[[random.Random], Server]:
    """Make a bucket later, when the scenario begins."""
    return lambda _draw: Bucket(rate, burst)


def window(quota: int, per: float) -> Callable[[random.Random], Server]:
    """Make a fixed window later."""
    return lambda draw: Window(quota, per, draw.uniform(0, per))


def sliding(quota: int, per: float, *, penalty: bool = False) -> Callable[[random.Random], Server]:
    """Make a sliding window later."""
    return lambda _draw: SlidingWindow(quota, per, penalty=penalty)


HALVES = ((60.0, 0.5),)
RIVAL = ((40.0, 0.5), (100.0, 1.0))
"""Another program takes its half for a minute."""

UNLIMITED = "no limit in reach"
WITH_A_RIVAL = "bucket 50/s, with a rival, RA"
"""The one that is plotted."""

SCENARIOS = {
    "bucket 50/s, burst 50": Scenario(make=bucket(50, 50), says_when=False),
    "bucket 50/s, burst 50, RA": Scenario(make=bucket(50, 50)),
    "bucket 50/s, burst 50, RA, quota": Scenario(make=bucket(50, 50), says_remaining=True),
    "bucket 50/s, burst 10": Scenario(make=bucket(50, 10), says_when=False),
    "bucket 50/s, burst 10, RA": Scenario(make=bucket(50, 10)),
    "bucket 50/s, burst 10, RA, quota": Scenario(make=bucket(50, 10), says_remaining=True),
    "bucket 50/s, burst 3000, RA, quota": Scenario(make=bucket(50, 3000), says_remaining=True),
    "bucket 5/s, burst 5, RA": Scenario(make=bucket(5, 5)),
    "bucket 400/s, burst 100, RA": Scenario(make=bucket(400, 100)),
    "bucket 50/s, burst 50, 1 % fail, RA": Scenario(make=bucket(50, 50), failures=0.01),
    "bucket 50/s, burst 10, jitter, RA": Scenario(make=bucket(50, 10), is_jittery=True),
    "bucket 50/s, halves": Scenario(make=bucket(50, 50), says_when=False, changes=HALVES),
    "bucket 50/s, halves, RA": Scenario(make=bucket(50, 50), changes=HALVES),
    "bucket 50/s, with a rival": Scenario(make=bucket(50, 50), says_when=False, changes=RIVAL),
    WITH_A_RIVAL: Scenario(make=bucket(50, 50), changes=RIVAL),
    "50 in a second": Scenario(make=window(50, 1), says_when=False),
    "50 in a second, RA": Scenario(make=window(50, 1)),
    "50 in a second, RA, quota": Scenario(make=window(50, 1), says_remaining=True),
    "3000 in a minute": Scenario(make=window(3000, 60), says_when=False),
    "3000 in a minute, RA": Scenario(make=window(3000, 60)),
    "3000 in a minute, RA, quota": Scenario(make=window(3000, 60), says_remaining=True),
    "3000 in a minute, with a rival, RA, quota": Scenario(make=window(3000, 60), says_remaining=True, changes=RIVAL),
    "500 in any 10 s": Scenario(make=sliding(500, 10), says_when=False),
    "500 in any 10 s, RA": Scenario(make=sliding(500, 10)),
    "500 in any 10 s, RA, quota": Scenario(make=sliding(500, 10), says_remaining=True),
    "500 in any 10 s, refused ones count, RA": Scenario(make=sliding(500, 10, penalty=True)),
    "10 at once": Scenario(make=lambda _draw: InFlight(10), says_when=False),
    UNLIMITED: Scenario(make=bucket(1000, 1000), says_when=False),
}
"""By name: RA is for `Retry-After`, quota for headers that say how much remains."""

LIMITED = tuple(name for name in SCENARIOS if name != UNLIMITED)
