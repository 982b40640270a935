"""Plots of the races."""

from pathlib import Path
from typing import Any

from figures import GRAY, GREEN, PALE, drawing

from .contenders import HAND, OURS
from .tables import median_of, quartiles


def plot_all(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured; return the files."""
    races, drawn = results["races"], []
    if "one" in races and "many" in races:
        drawn.append(folder / "performance-page.svg")
        draw_bars([races["one"], races["many"]], drawn[-1])
    if "corporations" in races:
        drawn.append(folder / "performance-corporations.svg")
        draw_lines(races["corporations"], drawn[-1])
    return drawn


def draw_bars(races: list[dict[str, Any]], path: Path) -> None:
    """Show the CPU time of a page for each contender: medians, and lines from quartile to quartile."""
    height = 1.5 + 0.35 * max(len(race["entries"]) for race in races)
    with drawing(path, 9, height, columns=len(races)) as axes:
        for axis, race in zip(axes, races, strict=True):
            for label, rounds in race["entries"].items():
                low, median, high = (each / 1000 for each in quartiles([each["cpu"] for each in rounds]))
                axis.barh(label, median, xerr=[[median - low], [high - median]], color=color_of(label), ecolor="#222222")
                axis.text(high, label, f"  {median:.1f}", va="center")
            axis.set_title(race["title"])
            axis.set_xlabel("CPU time for a page of 100 customers, ms")
            axis.margins(x=0.15)
        axes[0].invert_yaxis()


def draw_lines(race: dict[str, Any], path: Path) -> None:
    """Show how the CPU time of a page grows with the number of corporations."""
    series: dict[str, dict[int, float]] = {}
    for label in race["entries"]:
        name, _, number = label.removesuffix(" in flight").rpartition(", ")
        series.setdefault(name, {})[int(number)] = median_of(race, label, "cpu") / 1000
    numbers = sorted({number for points in series.values() for number in points})
    with drawing(path, 7, 4) as (axis,):
        for name, points in series.items():
            line = "-" if name in {HAND, OURS} else "--"
            axis.plot(list(points), list(points.values()), line, marker="o", label=name, color=color_of(name))
        axis.set_xscale("log", base=2)
        axis.set_xticks(numbers, [str(number) for number in numbers])
        axis.set_ylim(bottom=0)
        axis.set_xlabel("corporations, and requests in flight")
        axis.set_ylabel("CPU time for a page, ms")
        axis.legend()


def color_of(label: str) -> str:
    """Return ours in green, and the baseline darker than the others."""
    if label.startswith(OURS):
        return GREEN
    return GRAY if label == HAND else PALE
