"""What servers do besides keeping to one limit: chance, outages, several limits, slowness, refusals of other kinds."""

import random
from dataclasses import dataclass

from .contenders import OURS
from .network import Setting
from .servers import CLOSED, Both, Bucket, Free, Scenario, Window, bucket, window

COMPARED = ("backoff", "Retry-After each", "FixedRate", OURS)
"""The contenders, each where it makes a difference."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """
    A scenario, and how much is read from it.

    Attributes:
        scenario: The scenario.
        pages: Of each corporation: few where a page takes long.
        round_trip: Seconds.
        at_once: Requests that may be in flight.
        is_documented: Whether its documentation says what `FixedRate` has to be told.
        runs: Several where much is luck.
    """

    scenario: Scenario
    pages: int = 18
    round_trip: float = 0.15
    at_once: int = 32
    is_documented: bool = False
    runs: int = 1

    def setting(self, part: float = 1.0) -> Setting:
        """Return how a part of the job is done."""
        return Setting(max(1, round(part * self.pages)), self.at_once, self.round_trip)

    @property
    def contenders(self) -> tuple[str, ...]:
        """Return who reads from it."""
        makes_a_difference = {"Retry-After each": self.scenario.says_when, "FixedRate": self.is_documented}
        return tuple(name for name in COMPARED if makes_a_difference.get(name, True))


def free(_draw: object) -> Free:
    """Make a server without a limit."""
    return Free()


def two_quotas(draw: random.Random) -> Both:
    """Make a server with a limit per second and another per minute."""
    return Both(Bucket(20, 20), Window(600, 60, draw.uniform(0, 60)))


RIVAL_OF_NINE_TENTHS = ((20.0, 0.1), (60.0, 1.0))
TWELVEFOLD = ((0.0, 1 / 12), (20.0, 1.0))
MINUTE, THREE_MINUTES = ((20.0, 0.0), (80.0, 1.0)), ((20.0, 0.0), (200.0, 1.0))
"""Without an answer other than a refusal."""


def stray(number: int, first_takes: float = 0.0) -> Kind:
    """Return a server that refuses one request, and has no reason."""
    return Kind(scenario=Scenario(make=free, says_when=False, strays=(number,), first_takes=first_takes))


def chance(part: float, *, says_when: bool) -> Kind:
    """Return a server that refuses requests at random."""
    return Kind(scenario=Scenario(make=free, says_when=says_when, chance=part), pages=24, runs=3)


def changing(changes: tuple[tuple[float, float], ...], *, says_when: bool) -> Kind:
    """Return a server whose limit of 60 in a second changes."""
    return Kind(scenario=Scenario(make=bucket(60, 10), says_when=says_when, changes=changes), pages=24, is_documented=True)


def shut(changes: tuple[tuple[float, float], ...]) -> Kind:
    """Return a server that takes nothing at all for a while."""
    return Kind(scenario=Scenario(make=bucket(50, 10), says_when=False, changes=changes), is_documented=True)


def slow(congestion: float, at_once: int) -> Kind:
    """Return a server that refuses nothing, and is slower the more it is asked."""
    best = (20, 24, 28, 32, 40)
    scenario = Scenario(make=free, says_when=False, workers=20, congestion=congestion, best_at_once=best)
    return Kind(scenario=scenario, at_once=at_once)


def wordless(status: int, rate: float, burst: int, pages: int = 18) -> Kind:
    """Return a server whose refusals do not look like those of a limit."""
    scenario = Scenario(make=bucket(rate, burst), says_when=False, refuses_with=status)
    return Kind(scenario=scenario, pages=pages, is_documented=True)


KINDS = {
    "one refusal, the 3rd request": stray(3),
    "one refusal, the 3rd, after a slow answer": stray(3, first_takes=2.0),
    "one refusal, the 1,800th": stray(1800),
    "chance 0.2 %": chance(0.002, says_when=False),
    "chance 0.2 %, RA": chance(0.002, says_when=True),
    "chance 1 %": chance(0.01, says_when=False),
    "chance 1 %, RA": chance(0.01, says_when=True),
    "chance 5 %": chance(0.05, says_when=False),
    "chance 5 %, RA": chance(0.05, says_when=True),
    "rival of nine tenths": changing(RIVAL_OF_NINE_TENTHS, says_when=False),
    "rival of nine tenths, RA": changing(RIVAL_OF_NINE_TENTHS, says_when=True),
    "5/s, then 60/s": changing(TWELVEFOLD, says_when=False),
    "5/s, then 60/s, RA": changing(TWELVEFOLD, says_when=True),
    "nothing for a minute": shut(MINUTE),
    "nothing for three minutes": shut(THREE_MINUTES),
    "20/s and 600 in a minute": Kind(scenario=Scenario(make=two_quotas, says_when=False), pages=9),
    "20/s and 600 in a minute, RA": Kind(scenario=Scenario(make=two_quotas), pages=9),
    "20 in a minute": Kind(scenario=Scenario(make=window(20, 60), says_when=False), pages=1, is_documented=True),
    "20 in a minute, RA": Kind(scenario=Scenario(make=window(20, 60)), pages=1, is_documented=True),
    "1 in 10 s": Kind(scenario=Scenario(make=window(1, 10), says_when=False), pages=1, is_documented=True),
    "1 in 10 s, RA": Kind(scenario=Scenario(make=window(1, 10)), pages=1, is_documented=True),
    "0.5/s for each corporation": Kind(scenario=Scenario(make=free, make_own=bucket(0.5, 2), says_when=False)),
    "0.5/s for each corporation, RA": Kind(scenario=Scenario(make=free, make_own=bucket(0.5, 2))),
    "bucket 2,000/s, burst 200": Kind(
        scenario=Scenario(make=bucket(2000, 200), says_when=False), pages=60, round_trip=0.01, is_documented=True
    ),
    "slower beyond 20 at once": slow(1.0, 32),
    "slower beyond 20 at once, 200 in flight": slow(1.0, 200),
    "thrashes beyond 20 at once": slow(2.0, 32),
    "thrashes beyond 20 at once, 200 in flight": slow(2.0, 200),
    "silent 503s, 50/s, burst 20": wordless(503, 50, 20),
    "silent 503s, 10/s, no burst": wordless(503, 10, 1, pages=6),
    "connections closed, 50/s, burst 20": wordless(CLOSED, 50, 20),
}
"""
By name; RA is for `Retry-After`. "Slower": the server works at 20 requests at once, and shares its work out to more. If it
thrashes it gets less done.
"""

FEW_KINDS = ("one refusal, the 3rd request", "chance 1 %", "20 in a minute, RA", "silent 503s, 50/s, burst 20")
"""Those of the quick run."""

RECOVERIES = ("rival of nine tenths", "rival of nine tenths, RA", "5/s, then 60/s", "5/s, then 60/s, RA")
"""The kinds for which the recovery is measured."""
