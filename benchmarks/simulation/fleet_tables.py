"""What is measured of fleets: many runs, and the tables, as Markdown."""

import logging
import math
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from .fleet import APART, SHARED, TOLD, Plan, Traffic, run
from .markdown import percent, table

MOST, SPAN = 0.9, 2.0
"""A fleet has recovered when this part of what it used before gets through, for so many seconds."""
BEFORE, AFTER = 20.0, 10.0
"""Seconds before an event, and after it, that are compared."""
SLOW = 0.99
"""The part of the pages of a modest process that are faster than the time that is shown."""

Results = Mapping[Plan, Traffic]


def run_all(plans: Iterable[Plan], processes: int) -> Results:
    """Run each plan once, those that take longest first, and say on stderr how far they are."""
    todo = sorted(set(plans), key=lambda plan: plan.seconds * plan.processes, reverse=True)
    results: dict[Plan, Traffic] = {}
    with multiprocessing.Pool(processes, _silence) as pool:
        for plan, traffic in pool.imap_unordered(_run, todo):
            results[plan] = traffic
            print(f"\r{len(results)} of {len(todo)} runs ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return results


def _silence() -> None:
    logging.disable()  # of a log that is away: that is intended


def _run(plan: Plan) -> tuple[Plan, Traffic]:
    return plan, run(plan)


class Runs:
    """The runs of a plan with all seeds."""

    def __init__(self, results: Results, plan: Plan, seeds: int) -> None:
        self._traffic = [results[replace(plan, seed=seed)] for seed in range(seeds)]

    def mean(self, figure: Callable[[Traffic], float]) -> float:
        """Return the mean of a figure."""
        return statistics.mean(map(figure, self._traffic))

    def worst(self, figure: Callable[[Traffic], float]) -> float:
        """Return the largest of a figure."""
        return max(map(figure, self._traffic))

    @property
    def used(self) -> float:
        """Requests that the server let pass."""
        return self.mean(lambda traffic: len(traffic.admitted))

    @property
    def refused(self) -> float:
        """The part of the requests that were refused."""
        return self.mean(Traffic.refused_part)

    @property
    def evenness(self) -> float:
        """What the slowest process got for each page of the fastest."""
        return self.mean(Traffic.evenness)


def alone(plan: Plan) -> Plan:
    """Return what a plan is measured by: one process that does all."""
    return replace(plan, processes=1, contender=APART)


def sharing(results: Results, rows: Mapping[tuple[str, int], Plan], seeds: int) -> str:
    """Compare all contenders with one process."""
    lines = [["server", "processes", "one process", SHARED, APART, TOLD]]
    for (name, processes), plan in rows.items():
        one = Runs(results, alone(plan), seeds)
        fleets = [Runs(results, replace(plan, contender=contender), seeds) for contender in (SHARED, APART, TOLD)]
        first = f"{one.used / plan.seconds:.1f}/s / {percent(one.refused)}" if processes == 1 else ""
        lines.append([name, str(processes), first, *(_cell(fleet, one) for fleet in fleets)])
    return table(lines)


def _cell(fleet: Runs, one: Runs) -> str:
    return f"{percent(fleet.used / one.used)} / {percent(fleet.refused)} / {fleet.evenness:.2f}"


def costs(results: Results, rows: Mapping[tuple[str, int], Plan], seeds: int) -> str:
    """Show what the log costs, and how many more requests are refused than those of one process."""
    lines = [["server", "processes", "refused, one process = 1", "calls per request", "calls per second", "kB per request"]]
    for (name, processes), plan in rows.items():
        one, fleet = Runs(results, alone(plan), seeds), Runs(results, replace(plan, contender=SHARED), seeds)
        calls, characters = fleet.mean(lambda traffic: traffic.calls), fleet.mean(lambda traffic: traffic.characters)
        lines.append(
            [
                name,
                str(processes),
                f"{fleet.refused / one.refused:.2f}" if one.refused else "",
                f"{calls / fleet.used:.2f}",
                f"{calls / plan.seconds:.0f}",
                f"{characters / fleet.used / 1000:.2f}",
            ]
        )
    return table(lines)


def events(results: Results, rows: Mapping[tuple[str, int], Plan], seeds: int) -> str:
    """Show what happens after a death, an outage of the log, and when a process joins."""
    head = ["event", "processes", "over after, worst", "use meanwhile, before = 1", "refused before", "refused meanwhile"]
    lines = [[*head, "longest wait of a process"]]
    for (name, processes), plan in rows.items():
        fleet = Runs(results, plan, seeds)
        began, ended = span(plan)
        before = began - BEFORE

        def use(traffic: Traffic, plan: Plan = plan) -> float:
            began, ended = span(plan)
            return _rate(traffic.admitted, began, ended) / _rate(traffic.admitted, began - BEFORE, began)

        lines.append(
            [
                name,
                str(processes),
                f"{fleet.worst(lambda traffic, plan=plan: recovery(plan, traffic)):.1f} s",
                f"{fleet.mean(use):.2f}",
                percent(fleet.mean(lambda traffic, span=(before, began): refused_in(traffic, *span))),
                percent(fleet.mean(lambda traffic, span=(began, ended): refused_in(traffic, *span))),
                f"{fleet.worst(lambda traffic, plan=plan: longest_wait(plan, traffic, *span(plan))):.1f} s",
            ]
        )
    return table(lines)


def conditions(results: Results, rows: Mapping[tuple[str, int], tuple[Plan, Plan]], seeds: int) -> str:
    """Show fleets whose processes differ: each with the same fleet whose processes do not."""
    head = ["one process", "processes", "use, others alike = 1", "refused", "refused, others alike", "slowest/fastest"]
    lines = [[*head, "it gets of what it wants", "99 % of its pages within"]]
    for (name, processes), (plan, alike) in rows.items():
        fleet, normal = Runs(results, plan, seeds), Runs(results, alike, seeds)
        modest = plan.events.modest
        lines.append(
            [
                name,
                str(processes),
                f"{fleet.used / normal.used:.2f}",
                percent(fleet.refused),
                percent(normal.refused),
                f"{fleet.mean(_evenness_of_hungry if modest else Traffic.evenness):.2f}",
                percent(fleet.mean(lambda traffic, plan=plan: granted(plan, traffic))) if modest else "",
                f"{fleet.worst(_slow_page):.2f} s" if modest else "",
            ]
        )
    return table(lines)


def span(plan: Plan) -> tuple[float, float]:
    """Return when the event of a plan began, and when what follows it should be over."""
    happens = plan.events
    if happens.outage is not None:
        began, seconds = happens.outage
        return began, began + seconds + AFTER
    began = happens.joins_at if happens.deaths is None else happens.deaths
    return began, began + AFTER


def recovery(plan: Plan, traffic: Traffic) -> float:
    """
    Return the seconds from an event until it is over.

    A death and an outage are over when the fleet uses most of what it used before; a joining, when the process that joins
    has most of its equal part.
    """
    began, _ = span(plan)
    before = _rate(traffic.admitted, began - BEFORE, began)
    if plan.events.joins_at:
        return _reached(traffic.pages[-1], began, before / plan.processes)
    return _reached(sorted(at for pages in traffic.pages for at in pages), began, before)


def _reached(times: Sequence[float], began: float, rate: float) -> float:
    enough = max(2, math.ceil(MOST * SPAN * rate))
    later = [at for at in times if at >= began]
    reached = (first for first, last in zip(later, later[enough - 1 :], strict=False) if last - first <= SPAN)
    return next(reached, math.inf) - began


def refused_in(traffic: Traffic, began: float, ended: float) -> float:
    """Return the part of the requests that were refused in some time."""
    refused, admitted = (_rate(times, began, ended) for times in (traffic.refused, traffic.admitted))
    return refused / max(1e-9, refused + admitted)


def longest_wait(plan: Plan, traffic: Traffic, began: float, ended: float) -> float:
    """Return the longest time in which a process that lives got no page."""
    living = traffic.pages if plan.events.deaths is None else traffic.pages[plan.events.dead :]
    return max(
        later - earlier
        for times in living
        for earlier, later in pairwise([max(times[0], began), *(at for at in times if began < at < ended), ended])
    )


def granted(plan: Plan, traffic: Traffic) -> float:
    """Return the part of what a modest process wants that it gets."""
    return len(traffic.pages[-1]) / (plan.seconds * (plan.events.modest or math.inf))


def _slow_page(traffic: Traffic) -> float:
    return sorted(traffic.waits)[int(SLOW * len(traffic.waits))]


def _evenness_of_hungry(traffic: Traffic) -> float:
    return Traffic(traffic.pages[:-1]).evenness()


def _rate(times: Iterable[float], began: float, ended: float) -> float:
    return sum(began <= at < ended for at in times) / (ended - began)
