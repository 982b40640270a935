"""The options that select the sink of an export: `--output`, `--format` and `--fresh`."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import click

from ..checkpoint import Checkpoint
from ..export import CSVFile, JSONLinesFile, ParquetFolder, Sink, SQLiteDatabase
from ..export._threads import in_thread
from ..export.json_lines import encode_lines
from ..models import CustomerPage
from ._options import usage_error


class _Format(NamedTuple):
    """The sink that writes a format, and the suffixes of its files."""

    sink: type[CSVFile | JSONLinesFile | ParquetFolder | SQLiteDatabase]
    suffixes: tuple[str, ...]


_FORMATS: Mapping[str, _Format] = {
    "sqlite": _Format(SQLiteDatabase, (".db", ".sqlite", ".sqlite3")),
    "jsonl": _Format(JSONLinesFile, (".jsonl", ".ndjson")),
    "csv": _Format(CSVFile, (".csv",)),
    "parquet": _Format(ParquetFolder, ("/",)),
}
_COMPRESSED = {"jsonl", "csv"}
_COMPRESSIONS = (".gz", ".zst")

FORMATS = tuple(_FORMATS)
"""The names of the formats."""


class StandardOutput(Sink):
    """
    JSON Lines on standard output. Such an export cannot resume.

    Each page is written immediately, so the program that reads the pipe does not wait. If that program stops reading, the
    write waits, and a cancellation waits too. So no line is ever cut.
    """

    def __str__(self) -> str:
        return "standard output"

    @property
    def may_be_seen(self) -> bool:
        """Whether the output may appear on a terminal, perhaps through another program. False for a file."""
        return not stat.S_ISREG(os.fstat(1).st_mode)

    async def open(self) -> Checkpoint | None:
        """Begin a new run."""

    async def write(self, page: CustomerPage) -> None:
        """
        Write the customers of a page, one on each line.

        Raises:
            OSError: The program that reads the pipe has ended (`BrokenPipeError`), or the disk is full.
        """
        await in_thread(_echo, encode_lines(page))

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Do nothing: every page is already written."""

    async def finish(self) -> None:
        """Do nothing: every page is already written."""


def _echo(data: bytes) -> None:
    click.echo(data, nl=False)


class Place(NamedTuple):
    """
    Where a person finds what an export has written.

    Attributes:
        complete: The output.
        unfinished: Where the customers are until all is complete.
        invalid: Where the rows are that are not valid; `None` if they are nowhere.
    """

    complete: str
    unfinished: str
    invalid: str | None

    @classmethod
    def of(cls, sink: Sink) -> "Place":
        """Return the place of a sink."""
        name = str(sink)
        match sink:
            case StandardOutput():
                return cls(name, name, None)
            case SQLiteDatabase():
                return cls(name, name, "the table invalid_customers")
            case ParquetFolder():
                return cls(name, f"{name}/_partial", f"{name}.invalid.jsonl")
            case _:
                return cls(name, f"{name}.partial", f"{name}.invalid.jsonl")


def make_sink(output: str, name: str | None, *, fresh: bool, escape_formulas: bool) -> Sink:
    """
    Return the sink for `--output`, in the format *name*. `None`: the suffix sets the format.

    Raises:
        click.UsageError: The suffix is unknown, the path is of another kind, or a package is missing.
    """
    if output == "-":
        if name not in {None, "jsonl"}:
            raise usage_error("--output -: standard output supports only JSON Lines")
        return StandardOutput()

    name = name or _format_of(output)
    if name is None:
        raise usage_error(
            f"--output: cannot tell the format from the name {output!r}; use {_known_suffixes()}; or pass --format"
        )
    path = Path(output)
    if path.exists() and not (path.is_dir() if name == "parquet" else path.is_file()):
        raise usage_error(f"--output: {output} exists, and is not a {'folder' if name == 'parquet' else 'regular file'}")
    try:
        if name == "csv":
            return CSVFile(output, fresh=fresh, escape_formulas=escape_formulas)
        return _FORMATS[name].sink(output, fresh=fresh)
    except ModuleNotFoundError as exc:
        raise usage_error(str(exc)) from exc


def _format_of(output: str) -> str | None:
    """Return the format of a file name. `None`: the suffix is unknown."""
    if output.endswith(("/", os.sep)) or (output and Path(output).is_dir()):
        return "parquet"

    lowered = output.lower()
    for compression in _COMPRESSIONS:
        plain = lowered.removesuffix(compression)
        if plain != lowered:
            return next((name for name in _COMPRESSED if plain.endswith(_FORMATS[name].suffixes)), None)

    return next((name for name, each in _FORMATS.items() if lowered.endswith(each.suffixes)), None)


def _known_suffixes() -> str:
    """Return the suffixes of each format, for an error message."""
    lines: list[str] = []
    for name, each in _FORMATS.items():
        compressed = f" (also with {' or '.join(_COMPRESSIONS)})" if name in _COMPRESSED else ""
        lines.append(f"{', '.join(each.suffixes)}{compressed} for {name}")
    return ", ".join(lines)
