"""Messages on standard error."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

import click

from ..events import InvalidCustomerReceived


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether *stream* is a terminal, independent of `FORCE_COLOR`. `None` is a closed stream."""
    return stream is not None and stream.isatty()


def add_notes(error: BaseException, notes: Iterable[str]) -> None:
    """Add lines to print after *error*, when it ends the command."""
    for note in notes:
        error.add_note(note)


def say(text: str) -> None:
    """Write a line to standard error. If standard error is closed, continue without it."""
    with suppress(OSError):
        click.echo(printable(text), err=True)


def say_invalid(event: InvalidCustomerReceived) -> None:
    """Name a row that is not valid."""
    row = event.customer
    where = f"corporation {event.corporation_id!r}, row {row.index} of a page, id {row.id!r}"
    say(f"not valid: {where}: {', '.join(row.errors)}")


def printable(text: str, allowed: str = "") -> str:
    """Replace control characters that are not *allowed*. A text from the server must not control the terminal."""
    return "".join(char if char.isprintable() or char in allowed else "\N{REPLACEMENT CHARACTER}" for char in text)


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number and a noun."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
