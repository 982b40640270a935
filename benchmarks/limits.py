"""
How much of a server's rate limit is used, and how many requests are refused? In virtual time, so that hours take seconds.

The real `AdaptiveLimiter` with its real waiting, and what programs do without it, read 200 corporations from simulated
servers of many kinds. What comes out on stdout are the tables of `docs/rate-limits.md`, which explains them.

    python benchmarks/limits.py [--quick] [--only-kinds] [--plot docs/rate-limits.svg]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import product, starmap
from pathlib import Path

import anyio
from simulation.contenders import CONTENDERS, OURS
from simulation.cost import cpu_per_request
from simulation.kinds import FEW_KINDS, KINDS, RECOVERIES
from simulation.measure import Job, recover_all, run_all
from simulation.network import Setting
from simulation.servers import LIMITED, UNLIMITED, WITH_A_RIVAL
from simulation.tables import breadth, contest, novelty, recoveries

ROUND_TRIPS, AT_ONCE = (0.005, 0.15, 2.0), (1, 32, 200)
PAGES, FEWER_PAGES, QUICK = 50, 36, 1 / 5
"""
Of each corporation, in the first table and in the second. The longest windows have to come round more than twice: otherwise
it is luck whether a job ends just before or just after its requests are used up. A quick run reads a part of the pages.
"""

CHANGES = 5
"""Of each limit that rises, at different times: the median is shown."""

FEW = ("bucket 50/s, burst 10, RA", WITH_A_RIVAL, "50 in a second", "10 at once")
"""The servers of the quick run."""


def jobs(servers: Sequence[str], first: Setting, others: Sequence[Setting], seeds: int) -> list[Job]:
    """Return the runs of both tables."""
    return [
        *starmap(Job, product((*servers, UNLIMITED), [first], range(seeds), CONTENDERS)),
        *starmap(Job, product(servers, others, range(seeds), [OURS])),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few servers and pages: less than a minute")
    parser.add_argument("--only-kinds", action="store_true", help="only the servers that do not keep to one limit")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind, of which the mean is shown")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="also write this SVG file")
    options = parser.parse_args()

    began = time.monotonic()
    if options.plot is not None:
        from simulation.plot import plot  # noqa: PLC0415 - only this needs matplotlib

        plot(options.plot)
    part = QUICK if options.quick else 1.0
    tables = [] if options.only_kinds else compare_and_widen(FEW if options.quick else LIMITED, part, options)
    names, part = (FEW_KINDS, 1 / 2) if options.quick else (tuple(KINDS), 1.0)
    tables += compare_kinds(names, part, options)
    print(*tables, sep="\n\n")
    if not options.only_kinds:
        free, queued = anyio.run(cpu_per_request)
        print(f"\nCPU time of the limiter for a request: {free:.1f} us if it need not wait, {queued:.1f} us if it does.")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


def compare_and_widen(servers: Sequence[str], part: float, options: argparse.Namespace) -> list[str]:
    """Return the tables of the servers that keep to one limit."""
    first = Setting(round(part * PAGES))
    others = [Setting(round(part * FEWER_PAGES), at_once, trip) for trip in ROUND_TRIPS for at_once in AT_ONCE]
    results = run_all(jobs(servers, first, others, options.seeds), options.processes)
    return [contest(results, servers, first), breadth(results, servers, others)]


def compare_kinds(names: Sequence[str], part: float, options: argparse.Namespace) -> list[str]:
    """Return the tables of the other kinds of servers."""
    settings = {name: KINDS[name].setting(part) for name in names}
    runs = [
        Job(name, setting, seed, contender)
        for name, setting in settings.items()
        for seed in range(options.seeds * KINDS[name].runs)
        for contender in KINDS[name].contenders
    ]
    tables = [novelty(run_all(runs, options.processes), settings)]
    if not options.quick:
        changes = starmap(Job, ((name, KINDS[name].setting(), seed, OURS) for name in RECOVERIES for seed in range(CHANGES)))
        tables.append(recoveries(recover_all(changes, options.processes), RECOVERIES))
    return tables


if __name__ == "__main__":
    main()
