"""Writes the results into the documentation: its tables stand between two markers."""

import json
from pathlib import Path
from typing import Any

from .others import others
from .tables import race_table
from .versions import sentence

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE, RESULTS = DOCS / "performance.md", DOCS / "performance.json"

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def tables(results: dict[str, Any]) -> str:
    """Return all tables of the results."""
    parts = [race_table(race) for race in results["races"].values()]
    for name, other in others(is_quick=False).items():
        if name in results:
            parts.append(other.table(results[name]))
    return "\n\n".join(parts)


def section(results: dict[str, Any]) -> str:
    """Return what stands between the markers."""
    about = f"Medians of {results['rounds']} rounds. {sentence(results['versions'])}."
    return f"{BEGIN}\n\n{about}\n\n{tables(results)}\n\n{END}"


def write(results: dict[str, Any]) -> None:
    """Write the tables, the plots, and the results themselves."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + section(results) + after, encoding="utf-8")
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    from .plots import plot_all  # noqa: PLC0415 - only this needs matplotlib

    plot_all(results, DOCS)
