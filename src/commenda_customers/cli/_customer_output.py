"""Prints customers as a table or as JSON Lines, and shows the progress meanwhile."""

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

_COLUMNS = (("name", 5), ("email", 6), ("created", 2), ("platform", 2))
"""Headings after the ids, and the relative width of each column."""


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
        self._id_width = len("id")
        self._printed = self._came = self._counted = 0  # of the current corporation
        self.progress = Progress()

    def print(self, page: CustomerPage, customers: Sequence[Customer]) -> None:
        """Print *customers*, which are some or all customers of a page."""
        if customers:
            self.progress.make_way()
            self._print(customers)
        self._printed += len(customers)
        self._came += len(page) + len(page.invalid_customers)
        self._counted = self._counted if page.total_customers is None else page.total_customers
        total = "" if page.total_customers is None else f" of {page.total_customers:,}"
        self.progress.show(f"{self._about(page.corporation_id)}{self._printed:,}{total} customers")

    def finish(self, corporation_id: str, *, is_whole: bool) -> None:
        """
        Warn if a list had no customers, or fewer than the server counted.

        Only a list that was read from its first page is *whole*, and can be compared with the count.
        """
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
            # Write bytes: JSON is UTF-8, and must not depend on the locale.
            click.echo("\n".join(customer.model_dump_json() for customer in customers).encode())
            return

        self._console.print(self._table(customers))
        self._has_header = True

    def _table(self, customers: Sequence[Customer]) -> Table:
        """
        Return customers as a table.

        An id is never cut, because it is what a person copies. All other widths depend only on the terminal, so all pages
        line up.
        """
        self._id_width = max([self._id_width, *(len(customer.id) for customer in customers)])
        table = Table(box=None, expand=True, show_header=not self._has_header, pad_edge=False)
        if self._several:
            table.add_column("corporation", ratio=4, no_wrap=True, overflow="ellipsis")
        table.add_column("id", width=self._id_width, overflow="fold")
        for name, ratio in _COLUMNS:
            table.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
        for customer in customers:
            corporation = (customer.corporation_id,) if self._several else ()
            table.add_row(*(Text(printable(value or "")) for value in (*corporation, *_cells(customer))))

        return table


class Progress:
    """
    A line on standard error with the number of customers so far. It is shown only on a terminal.

    It must never mix with customers. So it disappears before the first customer is printed, unless customers go to a file.
    It disappears for a pipe too, because the program that reads the pipe may print on the same terminal.
    """

    def __init__(self) -> None:
        # With a log, show no progress: the log would write into the line.
        self._is_shown = is_terminal(sys.stderr) and not os.environ.get("COMMENDA_LOG")
        self._status = Console(stderr=True).status("waiting for the first page")
        self._stays = stat.S_ISREG(os.fstat(1).st_mode)

    def __enter__(self) -> None:
        if self._is_shown:
            self._status.start()

    def __exit__(self, *_exc_info: object) -> None:
        self._status.stop()

    def make_way(self) -> None:
        """Erase the line before customers are printed, unless they go to a file."""
        if not self._stays:
            self._status.stop()

    def show(self, text: str) -> None:
        """Update the text of the line, if it is still shown."""
        self._status.update(text)


def _cells(customer: Customer) -> tuple[str | None, ...]:
    created = None if customer.created_at is None else f"{customer.created_at:%Y-%m-%d}"
    return customer.id, customer.name, customer.email, created, customer.source_platform
