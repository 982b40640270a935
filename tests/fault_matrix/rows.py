"""The rows of `docs/faults.md`: all faults, and what the client does about each."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "faults.md"

_SECTION = re.compile(r"(?ms)^## (?P<title>[^\n]+)\n(?P<text>.*?)(?=^## |\Z)")
_TABLE_LINE = re.compile(r"(?m)^\|(.+)\|$")
_CELLS = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Row:
    """
    A row of a table.

    Attributes:
        section: The heading above the table.
        cells: The text of its cells.
    """

    section: str
    cells: tuple[str, ...]

    @property
    def fault(self) -> str:
        """What goes wrong, as the page describes it."""
        return self.cells[0]

    @property
    def outcome(self) -> str:
        """The word for what happens."""
        return self.cells[1]

    @property
    def error(self) -> str:
        """The name of the error; empty if there is none."""
        return self.cells[2].strip("`")

    @property
    def name(self) -> str:
        """The name of a test."""
        return f"{self.section}: {self.fault}"


def rows_of(section: str) -> list[Row]:
    """Return the rows of the table of a section, without its heading."""
    found = {match["title"]: match["text"] for match in _SECTION.finditer(PAGE.read_text(encoding="utf-8"))}
    lines = [_CELLS.split(line) for line in _TABLE_LINE.findall(found[section])]
    return [Row(section, tuple(cell.strip() for cell in cells)) for cells in lines[2:]]


def sections() -> list[str]:
    """Return the headings of the page."""
    return [match["title"] for match in _SECTION.finditer(PAGE.read_text(encoding="utf-8"))]
