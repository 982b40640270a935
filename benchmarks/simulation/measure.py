"""Many runs: which there are, on how many processes, and what is kept of each."""

import multiprocessing
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from .contenders import CONTENDERS, Ideal
from .network import Setting, in_virtual_time
from .servers import SCENARIOS

PATIENCE = 10
"""Times the ideal client's time, after which a contender is stopped. What it has not read by then is lost."""


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
    made = in_virtual_time(SCENARIOS[job.server], contender, job.setting, job.seed, PATIENCE * ideal)
    share = 0.0 if made.lost else ideal / made.seconds
    return job, Outcome(share, made.refused_part(), made.fairness(), made.lost)


@cache
def ideal_seconds(server: str, setting: Setting, seed: int) -> float:
    """Return the ideal client's time. It runs once for all contenders, which are in the same process one after the other."""
    return in_virtual_time(SCENARIOS[server], Ideal, setting, seed).seconds


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
    jobs = list(jobs)
    outcomes: dict[Job, Outcome] = {}
    with multiprocessing.Pool(processes) as pool:
        for job, outcome in pool.imap_unordered(run, jobs, chunksize=len(CONTENDERS)):
            outcomes[job] = outcome
            print(f"\r{len(outcomes)} of {len(jobs)} runs ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Results(outcomes)
