"""
How well do several processes share one limit? In virtual time, so that minutes take seconds.

The real limiter, with a log in memory in place of Redis, reads endless lists from simulated servers. Beside it are processes
that know nothing of each other, and processes that share a token bucket at the documented rate. What comes out on stdout are
the tables of `docs/fleets.md`, which explains them.

    python benchmarks/fleets.py [--quick] [--seeds 3] [--processes 2]
"""

import argparse
import sys
import time
from dataclasses import replace

from simulation.fleet import APART, SHARED, TOLD, Events, Plan
from simulation.fleet_tables import alone, conditions, costs, events, run_all, sharing
from simulation.servers import UNLIMITED

SIZES = (1, 4, 16)
NAMES = (
    "bucket 50/s, burst 10",
    "bucket 50/s, burst 10, RA",
    "bucket 50/s, burst 50, RA",
    "bucket 50/s, halves",
    "bucket 50/s, halves, RA",
)
MINUTE = "3000 in a minute, RA"
STEADY = "bucket 50/s, burst 10, RA"
"""The server on which events are watched."""
HALF_TIME = 40.0
"""Seconds after the beginning at which an event begins."""
SHORT, LONG = 2.0, 20.0
"""Seconds for which the log is away."""
SLOW_WAY = 0.3
"""Seconds from a process to the log, one way."""
QUICK = 1 / 3


def shares(part: float, sizes: tuple[int, ...], names: tuple[str, ...]) -> dict[tuple[str, int], Plan]:
    """Return the fleets of the first table."""
    servers = [(name, Plan(server=name, processes=1, seconds=120 * part)) for name in names]
    if part == 1:
        near = replace(servers[1][1], round_trip=0.03)
        servers += [
            (f"{STEADY}, round trip 30 ms", near),
            (MINUTE, Plan(server=MINUTE, processes=1, seconds=240)),
            (UNLIMITED, Plan(server=UNLIMITED, processes=1, seconds=20)),
        ]
    return {(name, size): replace(plan, processes=size) for name, plan in servers for size in sizes}


def troubles(sizes: tuple[int, ...]) -> dict[tuple[str, int], Plan]:
    """Return the fleets to which something happens."""
    plans: dict[tuple[str, int], Plan] = {}
    for size in sizes:
        plan = Plan(server=STEADY, processes=size)
        for name, happens, seconds in (
            ("a quarter of the processes killed", Events(deaths=HALF_TIME, dead=max(1, size // 4)), 20.0),
            ("the log hangs for 2 s", Events(outage=(HALF_TIME, SHORT)), SHORT + 20),
            ("the log hangs for 20 s", Events(outage=(HALF_TIME, LONG)), LONG + 20),
            ("a process joins", Events(joins_at=HALF_TIME), 20.0),
        ):
            plans[name, size] = replace(plan, events=happens, seconds=HALF_TIME + seconds)
    return plans


def odd_ones(sizes: tuple[int, ...]) -> dict[tuple[str, int], tuple[Plan, Plan]]:
    """Return the fleets in which one process is not like the others."""
    plans: dict[tuple[str, int], tuple[Plan, Plan]] = {}
    for size in sizes:
        plan = Plan(server=STEADY, processes=size)
        for name, happens in (
            ("300 ms from the log, one way", Events(slow_way=SLOW_WAY)),
            (f"wants {32 / size:g} pages per second", Events(modest=32 / size)),
        ):
            plans[name, size] = replace(plan, events=happens), plan
    return plans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few servers and short runs: less than a minute")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind; the tables show their mean")
    parser.add_argument("--processes", type=int, default=2, help="of this machine that simulate")
    options = parser.parse_args()

    began, seeds = time.monotonic(), 1 if options.quick else options.seeds
    sizes = SIZES[:2] if options.quick else SIZES
    fleets = shares(QUICK if options.quick else 1, sizes, NAMES[:1] if options.quick else NAMES)
    several = tuple(size for size in sizes if size > 1)
    happening, odd = troubles(several), odd_ones(several)
    plans = {replace(plan, contender=contender) for plan in fleets.values() for contender in (SHARED, APART, TOLD)}
    plans |= (
        {alone(plan) for plan in fleets.values()} | {*happening.values()} | {plan for pair in odd.values() for plan in pair}
    )
    results = run_all([replace(plan, seed=seed) for plan in plans for seed in range(seeds)], options.processes)
    print(
        sharing(results, fleets, seeds),
        costs(results, fleets, seeds),
        events(results, happening, seeds),
        conditions(results, odd, seeds),
        sep="\n\n",
    )
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
