"""Plots of the races as SVG: the same bytes for the same results."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .contenders import HAND, OURS, OURS_PYREQWEST
from .tables import median_of, quartiles

COLORS = {OURS: "#2f8f6b", HAND: "#555555"}
OTHER = "#9db4c0"

STYLE: Any = {"svg.hashsalt": "commenda-customers", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}


def plot_all(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured; return the files."""
    races, drawn = results["races"], []
    with mpl.rc_context(STYLE):
        if "one" in races and "many" in races:
            drawn.append(save(bars(races["one"], races["many"]), folder / "performance-page.svg"))
        if "corporations" in races:
            drawn.append(save(lines(races["corporations"]), folder / "performance-corporations.svg"))
    return drawn


def save(figure: Figure, path: Path) -> Path:
    """Write it without the date."""
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = path.read_text(encoding="utf-8")
    path.write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines()), encoding="utf-8")
    return path


def bars(*races: dict[str, Any]) -> Figure:
    """Show the CPU time of a page for each contender: medians, and lines from quartile to quartile."""
    figure = Figure(figsize=(9, 2.2 + 0.3 * max(len(race["entries"]) for race in races)), layout="constrained")
    axes = figure.subplots(1, len(races), sharey=True, squeeze=False)[0]
    for axis, race in zip(axes, races, strict=True):
        for label, rounds in race["entries"].items():
            low, median, high = (each / 1000 for each in quartiles([each["cpu"] for each in rounds]))
            axis.barh(label, median, xerr=[[median - low], [high - median]], color=color_of(label), ecolor="#222222")
            axis.text(high, label, f"  {median:.1f}", va="center")
        axis.set_title(race["title"])
        axis.set_xlabel("CPU time for a page of 100 customers, ms")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    return figure


def lines(race: dict[str, Any]) -> Figure:
    """Show how the CPU time of a page grows with the number of corporations."""
    series: dict[str, dict[int, float]] = {}
    for label in race["entries"]:
        name, _, number = label.removesuffix(" in flight").rpartition(", ")
        series.setdefault(name, {})[int(number)] = median_of(race, label, "cpu") / 1000
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for name, points in series.items():
        style = "--" if name == OURS_PYREQWEST else "-"
        axis.plot(list(points), list(points.values()), style, marker="o", label=name, color=color_of(name))
    axis.set_xscale("log", base=2)
    numbers = sorted({number for points in series.values() for number in points})
    axis.set_xticks(numbers, [str(number) for number in numbers])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("corporations, and requests in flight")
    axis.set_ylabel("CPU time for a page, ms")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def color_of(label: str) -> str:
    """Return ours in green, the baseline in dark gray."""
    return COLORS.get(label, COLORS[OURS] if label.startswith(OURS) else OTHER)
