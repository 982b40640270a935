"""The options that select the corporations of an export: `--corporation`, `--corporations-from` and `--shard`."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from ..export import shard as shard_of
from ..query import MAX_LIMIT, Selection
from ._options import usage_error

_COMMENT = "#"


class Shard(NamedTuple):
    """One of several parts of the corporations; see `commenda_customers.export.shard`."""

    number: int
    of: int


def parse_shard(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Shard | None:
    """Parse a shard. `2/8` is the second of eight shards."""
    if value is None:
        return None

    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise click.BadParameter(f"{value!r} is not of the form NUMBER/SHARDS, such as 2/8")

    return Shard(int(found[1]), int(found[2]))


def read_corporations(given: Sequence[str], source: str | None, shard: Shard | None) -> list[str]:
    """
    Return the ids from the command line and from the file *source* that are in the shard.

    Raises:
        click.UsageError: There are no ids, an id is given twice, or an id is not valid.
    """
    if not given and source is None:
        raise usage_error("name the corporations with --corporation or --corporations-from")

    lines: dict[str, int] = {}
    selection = Selection(MAX_LIMIT)
    for line, corporation_id in _each(given, source):
        place = f"{source}, line {line}" if line else "--corporation"
        try:
            selection.of(corporation_id)
        except ValueError as exc:
            raise usage_error(f"{place}: {exc}") from exc
        if corporation_id in lines:
            first = lines[corporation_id]
            where = f"the first time in line {first}" if first else "the first time with --corporation"
            raise usage_error(f"{place}: {corporation_id!r} is given twice, {where}")
        lines[corporation_id] = line

    if not lines:
        raise usage_error(f"--corporations-from: {source} names no corporation")
    return list(lines) if shard is None else shard_of(lines, shard.number, of=shard.of)


def _each(given: Iterable[str], source: str | None) -> Iterator[tuple[int, str]]:
    """Yield each id with its line number. An id from the command line has the number 0."""
    for corporation_id in given:
        yield 0, corporation_id
    if source is not None:
        for line, text in enumerate(_read(source).splitlines(), 1):
            corporation_id = text.strip()
            if not corporation_id or corporation_id.startswith(_COMMENT):
                continue
            if len(corporation_id.split()) > 1:
                raise usage_error(f"{source}, line {line}: {corporation_id!r} has a space; write one id on each line")
            yield line, corporation_id


def _read(source: str) -> str:
    """Return the text of a file, or of standard input."""
    try:
        data = sys.stdin.buffer.read() if source == "-" and sys.stdin else Path(source).read_bytes()
    except OSError as exc:
        raise usage_error(f"--corporations-from: {source}: {exc.strerror}") from exc

    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise usage_error(f"{source}, line {line}: is not UTF-8 text") from exc
