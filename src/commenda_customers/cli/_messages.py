"""What the commands write to standard error."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

import click
from rich.console import Console

from ..events import Event, Hook, InvalidCustomerReceived, RetryScheduled


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether somebody sees *stream*, whatever the environment (`FORCE_COLOR`) says. `None`: it is closed."""
    return stream is not None and stream.isatty()


def warn(messages: Console, text: str) -> None:
    """Write a line, without markup and without line breaks."""
    messages.print(text, markup=False, highlight=False, soft_wrap=True)


def reporter(messages: Console) -> Hook:
    """Return a hook that writes a line for each retry, and for each row that is not valid."""

    def report(event: Event) -> None:
        if isinstance(event, RetryScheduled):
            warn(messages, f"{event.error}; trying again in {event.wait:.1f} s")
        elif isinstance(event, InvalidCustomerReceived):
            row = event.customer
            warn(messages, f"not valid: row {row.index} of a page, id {row.id!r}: {', '.join(row.errors)}")

    return report


def add_notes(error: BaseException, notes: Iterable[str]) -> None:
    """Add lines to what is written when *error* ends the command."""
    for note in notes:
        error.add_note(note)


def say(text: str) -> None:
    """Write a line that nobody needs to see: if standard error is gone, the command goes on."""
    with suppress(OSError):
        click.echo(printable(text), err=True)


def printable(text: str, allowed: str = "") -> str:
    """Replace control characters, except those that are *allowed*: a text of the server must not control the terminal."""
    return "".join(char if char.isprintable() or char in allowed else "\N{REPLACEMENT CHARACTER}" for char in text)


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number and a noun."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
