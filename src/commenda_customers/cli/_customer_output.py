"""Prints customers as a table or as JSON lines, and shows the progress beside it."""

import os
import stat
import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..models import Customer, CustomerPage
from ._messages import is_terminal, printable, say

_COLUMNS = (("id", 4), ("name", 5), ("email", 6), ("created", 2), ("platform", 2))
"""Headings, and how much of the terminal's width each gets."""
_CORPORATION_COLUMN = ("corporation", 4)


class CustomerOutput:
    """Prints the customers of one corporation after the other."""

    def __init__(self, *, as_json: bool | None, several: bool) -> None:
        """
        Begin with nothing printed.

        Args:
            as_json: Whether customers are JSON lines. `None`: if standard output is not a terminal.
            several: Whether there are several corporations, so that each message must say which it is about.
        """
        self._console = Console()
        self._as_json = not is_terminal(sys.stdout) if as_json is None else as_json
        self._several = several
        self._has_header = False
        self._printed = self._came = self._counted = 0  # customers and rows of the present corporation
        self.progress = Progress()

    def print(self, page: CustomerPage, customers: Sequence[Customer]) -> None:
        """Print those *customers* of a page that are wanted."""
        if customers:
            self.progress.make_way()
            self._print(customers)
        self._printed += len(customers)
        self._came += len(page) + len(page.invalid_customers)
        self._counted = self._counted if page.total_customers is None else page.total_customers
        total = "" if page.total_customers is None else f" of {page.total_customers:,}"
        self.progress.show(f"{self._about(page.corporation_id)}{self._printed:,}{total} customers")

    def finish(self, corporation_id: str, *, is_whole: bool) -> None:
        """Say what is remarkable about a list that has ended. Without its first pages it is not *whole*."""
        about = self._about(corporation_id)
        if not self._came:
            say(f"{about}no customers match")
        if is_whole and self._came < self._counted:
            say(f"warning: {about}the server counted {self._counted:,} customers, but sent {self._came:,}")
        self._printed = self._came = self._counted = 0

    def _about(self, corporation_id: str) -> str:
        return f"{corporation_id}: " if self._several else ""

    def _print(self, customers: Sequence[Customer]) -> None:
        if self._as_json:
            # As bytes: JSON is UTF-8, whatever the locale.
            click.echo("\n".join(customer.model_dump_json() for customer in customers).encode())
            return

        self._console.print(self._table(customers))
        self._has_header = True

    def _table(self, customers: Sequence[Customer]) -> Table:
        """Return customers as a table. The widths depend on the terminal only, so that the pages line up."""
        table = Table(box=None, expand=True, show_header=not self._has_header, pad_edge=False)
        for name, ratio in (_CORPORATION_COLUMN, *_COLUMNS) if self._several else _COLUMNS:
            table.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
        for customer in customers:
            corporation = (customer.corporation_id,) if self._several else ()
            table.add_row(*(Text(printable(value or "")) for value in (*corporation, *_cells(customer))))

        return table


class Progress:
    """
    A line on standard error that says how many customers came, if that is a terminal.

    It must never stand in the way of customers. So it ends with the first of them, unless they go to a file: the program
    that reads a pipe may print them on the same terminal.
    """

    def __init__(self) -> None:
        # The log would write into the line.
        self._is_shown = is_terminal(sys.stderr) and not os.environ.get("COMMENDA_LOG")
        self._status = Console(stderr=True).status("waiting for the first page")
        self._stays = stat.S_ISREG(os.fstat(1).st_mode)

    def __enter__(self) -> None:
        if self._is_shown:
            self._status.start()

    def __exit__(self, *_exc_info: object) -> None:
        self._status.stop()

    def make_way(self) -> None:
        """Erase the line, before customers are printed where it is."""
        if not self._stays:
            self._status.stop()

    def show(self, text: str) -> None:
        """Replace the text, if the line is still there."""
        self._status.update(text)


def _cells(customer: Customer) -> tuple[str | None, ...]:
    created = None if customer.created_at is None else f"{customer.created_at:%Y-%m-%d}"
    return customer.id, customer.name, customer.email, created, customer.source_platform
