"""Many runs: which there are, on how many processes, and what is kept of each."""

import math
import multiprocessing
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import NamedTuple

from .contenders import CONTENDERS, Ideal
from .kinds import KINDS
from .network import Setting, in_virtual_time
from .servers import SCENARIOS, Scenario

PATIENCE = 10
"""Times the ideal client's time, after which a contender is stopped. What it has not read by then is lost."""

MOST, SPAN = 0.9, 3.0
"""A new limit is reached when this part of it gets through, for so many seconds."""
SHIFT = 2.3
"""Seconds by which a change is later with each seed."""


@dataclass(frozen=True)
class Job:
    """A run to be made: it comes out the same every time."""

    server: str
    setting: Setting
    seed: int
    contender: str


class Outcome(NamedTuple):
    """
    What is kept of a run, or of several.

    Attributes:
        share: The ideal client's time, divided by the contender's; zero if anything was lost.
        refused: The part of the requests that were refused.
        fairness: Jain's index at half time.
        lost: Corporations that were not read to their end.
    """

    share: float
    refused: float
    fairness: float
    lost: int


def run(job: Job) -> tuple[Job, Outcome]:
    """Make a run."""
    ideal = ideal_seconds(job.server, job.setting, job.seed)
    contender = CONTENDERS[job.contender]
    made = in_virtual_time(scenario_of(job.server), contender, job.setting, job.seed, PATIENCE * ideal)
    share = 0.0 if made.lost else ideal / made.seconds
    return job, Outcome(share, made.refused_part(), made.fairness(), made.lost)


@cache
def ideal_seconds(server: str, setting: Setting, seed: int) -> float:
    """Return the ideal client's time. It runs once for all contenders, which are in the same process one after the other."""
    scenario = scenario_of(server)
    settings = [replace(setting, at_once=at_once) for at_once in scenario.best_at_once] or [setting]
    return min(in_virtual_time(scenario, Ideal, best, seed).seconds for best in settings)


def scenario_of(server: str) -> Scenario:
    """Return a scenario by its name."""
    return SCENARIOS[server] if server in SCENARIOS else KINDS[server].scenario


def run_together(jobs: list[Job]) -> list[tuple[Job, Outcome]]:
    """Make the runs that are measured by the same ideal run."""
    return [run(job) for job in jobs]


def recovery(job: Job) -> tuple[Job, float]:
    """
    Return the seconds from the last change of a limit until most of the new limit is made use of; infinite if never.

    Each seed has the changes at another time, for what a limiter is about to do at that moment matters.
    """
    scenario = scenario_of(job.server)
    moved = replace(scenario, changes=tuple((when and when + SHIFT * job.seed, factor) for when, factor in scenario.changes))
    made = in_virtual_time(moved, CONTENDERS[job.contender], job.setting, job.seed)
    changed = moved.changes[-1][0]
    known = scenario.make(random.Random()).known()
    enough = math.ceil(MOST * SPAN * known.limit / known.per)
    admitted = [at for at in made.admitted if at >= changed]
    reached = (first for first, last in zip(admitted, admitted[enough - 1 :], strict=False) if last - first <= SPAN)
    return job, next(reached, math.inf) - changed


class Results:
    """What came of all runs."""

    def __init__(self, outcomes: dict[Job, Outcome]) -> None:
        self.outcomes = outcomes

    def of(self, server: str, contender: str, setting: Setting) -> Outcome:
        """Return the mean of all seeds."""
        seeds = [
            outcome
            for job, outcome in self.outcomes.items()
            if (job.server, job.contender, job.setting) == (server, contender, setting)
        ]
        return Outcome(
            statistics.mean(outcome.share for outcome in seeds),
            statistics.mean(outcome.refused for outcome in seeds),
            min(outcome.fairness for outcome in seeds),
            sum(outcome.lost for outcome in seeds),
        )


def run_all(jobs: Iterable[Job], processes: int) -> Results:
    """Make all runs, and say on stderr how far they are. Jobs that need the same ideal run belong beside each other."""
    together = [list(group) for _, group in groupby(jobs, lambda job: (job.server, job.setting, job.seed))]
    outcomes: dict[Job, Outcome] = {}
    with multiprocessing.Pool(processes) as pool:
        for made in pool.imap_unordered(run_together, together):
            outcomes.update(made)
            print(f"\r{len(outcomes)} of {sum(map(len, together))} runs ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Results(outcomes)


def recover_all(jobs: Iterable[Job], processes: int) -> dict[str, list[float]]:
    """Return the seconds of each server's recoveries."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    with multiprocessing.Pool(processes) as pool:
        for job, taken in pool.imap_unordered(recovery, jobs):
            seconds[job.server].append(taken)
    return seconds
