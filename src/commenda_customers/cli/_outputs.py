"""Which sink an export writes to: the options `--output`, `--format` and `--fresh`."""

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
    JSON Lines on standard output. There is nothing from which another run could resume.

    Each page is written as it comes, so that the program that reads it does not wait. If that program does not read, the
    write waits, and so does a cancellation: a line is never cut.
    """

    def __str__(self) -> str:
        return "standard output"

    @property
    def may_be_seen(self) -> bool:
        """Whether somebody may see it on a terminal, possibly through another program: it is not a file."""
        return not stat.S_ISREG(os.fstat(1).st_mode)

    async def open(self) -> Checkpoint | None:
        """Begin a new run."""

    async def write(self, page: CustomerPage) -> None:
        """
        Write the customers of a page, a line each.

        Raises:
            OSError: The program that reads it has ended (`BrokenPipeError`), or the disk is full.
        """
        await in_thread(_echo, encode_lines(page))

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Do nothing: all is written."""

    async def finish(self) -> None:
        """Do nothing: all is written."""


def _echo(data: bytes) -> None:
    click.echo(data, nl=False)


def make_sink(output: str, name: str | None, *, fresh: bool) -> Sink:
    """
    Return the sink for what `--output` says, in the format *name*; `None`: as the file name says.

    Raises:
        click.UsageError: The name says no format, or a package is missing.
    """
    if output == "-":
        if name not in {None, "jsonl"}:
            raise usage_error("--output -: standard output gets JSON Lines, no other format")
        return StandardOutput()

    name = name or _format_of(output)
    if name is None:
        raise usage_error(f"--output: the name {output!r} says no format: {_known_suffixes()}; or give --format")
    path = Path(output)
    if path.exists() and not (path.is_dir() if name == "parquet" else path.is_file()):
        raise usage_error(f"--output: {output} exists, and is not a {'folder' if name == 'parquet' else 'regular file'}")
    try:
        return _FORMATS[name].sink(output, fresh=fresh)
    except ModuleNotFoundError as exc:
        raise usage_error(str(exc)) from exc


def _format_of(output: str) -> str | None:
    """Return the format of a file name; `None` if it says none."""
    if output.endswith(("/", os.sep)) or (output and Path(output).is_dir()):
        return "parquet"

    lowered = output.lower()
    for compression in _COMPRESSIONS:
        plain = lowered.removesuffix(compression)
        if plain != lowered:
            return next((name for name in _COMPRESSED if plain.endswith(_FORMATS[name].suffixes)), None)

    return next((name for name, each in _FORMATS.items() if lowered.endswith(each.suffixes)), None)


def _known_suffixes() -> str:
    """Return the suffixes of each format, for somebody who used none of them."""
    lines: list[str] = []
    for name, each in _FORMATS.items():
        compressed = f" (and {' or '.join(_COMPRESSIONS)} after it)" if name in _COMPRESSED else ""
        lines.append(f"{', '.join(each.suffixes)}{compressed} for {name}")
    return ", ".join(lines)
