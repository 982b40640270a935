"""How plots are written: as SVG, with the same bytes for the same figures."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREEN, RED, GRAY, PALE = "#2f8f6b", "#e07a5f", "#555555", "#9db4c0"

_STYLE: Any = {
    "svg.hashsalt": "commenda-customers",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@contextmanager
def drawing(path: Path, width: float, height: float, *, rows: int = 1, columns: int = 1) -> Iterator[list[Axes]]:
    """Yield the axes of a figure, whose size is in inches; write it at the end of the block, without the date."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=rows > 1, sharey=columns > 1, squeeze=False)
        yield list(axes.flat)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"(\.\d\d)\d+", r"\1", path.read_text(encoding="utf-8"))  # hundredths of a point are enough
    path.write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines()), encoding="utf-8")
