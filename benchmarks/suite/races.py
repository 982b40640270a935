"""Races: contenders that alternate, round after round, each time in a fresh process."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from .contenders import CONTENDERS, HAND, OURS, OURS_PYREQWEST, Contender
from .jobs import Job
from .server import Server
from .tables import race_table

Results = dict[str, list[dict[str, Any]]]
"""The rounds of each contender."""

Note = Callable[[str], None]
"""Is told what runs now."""


@dataclass(frozen=True)
class Entry:
    """
    One line of a race.

    Attributes:
        label: The line's name.
        contender: Who runs.
        baseline: The label of the entry whose results divide those of this one.
        job: What it has to do. The address and the contender come later.
    """

    label: str
    contender: Contender
    baseline: str
    job: Job


@dataclass(frozen=True)
class Race:
    """
    Who is compared with whom.

    Attributes:
        name: For `--only`.
        title: For the table.
        entries: The contenders.
        is_compressed: Whether the server uses gzip.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    is_compressed: bool = False

    def of(self, wanted: Collection[str]) -> "Race":
        """Return the race of the entries that are installed and whose label matches *wanted*, and of their baselines."""
        installed = [entry for entry in self.entries if entry.contender.is_installed]
        kept = [each for each in installed if not wanted or any(re.search(pattern, each.label) for pattern in wanted)]
        labels = {label for entry in kept for label in (entry.label, entry.baseline)}
        return replace(self, entries=tuple(entry for entry in installed if entry.label in labels))

    def run(self, server: Server, rounds: int, note: Note) -> Results:
        """Run it. Every second round goes in the other direction, so that no contender always comes after the same one."""
        results: Results = {entry.label: [] for entry in self.entries}
        for number in range(rounds):
            for entry in self.entries if number % 2 else reversed(self.entries):
                note(f"{self.name}, round {number + 1} of {rounds}: {entry.label}")
                url = server.url(entry.contender.envelope + ("-gzip" if self.is_compressed else ""))
                results[entry.label].append(replace(entry.job, url=url, contender=entry.contender.name).run())
        return results

    @staticmethod
    def table(results: dict[str, Any]) -> str:
        """Return the results as Markdown."""
        return race_table(results)


def of_shape(shape: str, job: Job, contenders: Collection[str]) -> tuple[Entry, ...]:
    """Give the same job to all of *contenders* that can do it."""
    found = (each for each in CONTENDERS.values() if each.name in contenders and shape in each.shapes)
    return tuple(Entry(each.name, each, HAND, job) for each in found if job.backend in each.backends)


def races(*, is_quick: bool, is_full: bool) -> list[Race]:
    """Return all races. *is_quick*: the most important contenders; *is_full*: also a list of a million customers."""
    one, many = Job("cost:cpu", pages=200 if is_quick else 400), Job("cost:cpu", corporations=64, pages=10, in_flight=64)
    main = {HAND, OURS, OURS_PYREQWEST, "commenda-customers, httpx-aiohttp", "raw: httptools + pydantic"}
    everybody = main if is_quick else set(CONTENDERS)
    found = [
        Race("one", "1 in flight", (*of_shape("one", one, everybody), frozen(one))),
        Race("many", "64 corporations, 64 in flight", (*of_shape("many", many, everybody), frozen(many))),
    ]
    for backend in ("asyncio", "trio", "uvloop"):
        how = "gzip" if backend == "asyncio" else backend
        for name, title, job in (("one", "1 in flight", one), ("many", "64 corporations, 64 in flight", many)):
            entries = of_shape(name, replace(job, backend=backend), main)
            found.append(Race(f"{name}-{how}", f"{title}, {how}", entries, is_compressed=how == "gzip"))
    return [*found, by_corporations(), by_length(1_000_000 if is_full else 100_000)]


def frozen(job: Job) -> Entry:
    """Return the entry of a program that uses the SDK, and freezes what it has imported."""
    return Entry(f"{OURS}, frozen", CONTENDERS[OURS], HAND, replace(job, is_frozen=True))


def by_corporations() -> Race:
    """What does a page cost if there are more corporations?"""
    entries = [
        Entry(
            f"{name}, {number} in flight",
            CONTENDERS[name],
            f"{name}, 1 in flight",
            Job("cost:cpu", corporations=number, pages=10, in_flight=number, times=max(1, 16 // number)),
        )
        for name in (OURS, OURS_PYREQWEST, HAND)
        for number in (1, 16, 64, 256)
    ]
    return Race("corporations", "More corporations: as many as requests in flight", tuple(entries))


def by_length(most: int) -> Race:
    """What does a page cost in a longer list?"""
    entries = [
        Entry(
            f"{OURS}, a list of {size:,}",
            CONTENDERS[OURS],
            f"{OURS}, a list of 100",
            Job("cost:cpu", pages=size // 100, times=max(1, 20_000 // size)),
        )
        for size in (100, 10_000, most)
    ]
    return Race("length", "Longer lists", tuple(entries))
