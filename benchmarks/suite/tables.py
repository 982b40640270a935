"""From results to tables in Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from .contenders import OURS


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper one."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def ratios(race: dict[str, Any], label: str, baseline: str) -> list[float]:
    """Return the CPU time of each round, as a multiple of the baseline's of the same round."""
    return [own["cpu"] / other["cpu"] for own, other in zip(race["entries"][label], race["entries"][baseline], strict=True)]


def median_of(race: dict[str, Any], label: str, what: str) -> float:
    """Return the median of the rounds."""
    values: list[float] = [each[what] for each in race["entries"][label]]
    return statistics.median(values)


def race_table(race: dict[str, Any]) -> str:
    """Return the table of a race."""
    head = ["", "ratio", "quartiles", "CPU, us a page", "customers/s", "memory, MiB"]
    rows = []
    for label, baseline in race["baselines"].items():
        low, median, high = quartiles(ratios(race, label, baseline))
        cpu, wall, mib = (median_of(race, label, what) for what in ("cpu", "wall", "mib"))
        rows.append([label, f"{median:.2f}", f"{low:.2f} to {high:.2f}", f"{cpu:,.0f}", f"{1e8 / wall:,.0f}", f"{mib:.0f}"])
    if OURS in race["entries"]:
        head.insert(3, "ours = 1")
        for row in rows:
            row.insert(3, f"{statistics.median(ratios(race, row[0], OURS)):.2f}")
    note = f"\n\nThe server needed {race['server']:,.0f} microseconds of CPU time for a page."
    return f"### {race['title']}\n\n{table(head, rows)}{note}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns are aligned: the first to the left, numbers to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in [lines[0], rule, *lines[1:]]
    )
