"""`commenda-customers list`: a table on a terminal, JSON lines elsewhere."""

import shlex
from collections.abc import AsyncIterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import anyio
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..client import AsyncCustomersAPI
from ..errors import BadRequestError, CursorLoopError, CustomersError
from ..events import Event, InvalidCustomerReceived, RetryScheduled
from ..models import Customer, CustomerPage
from ._broken_pipe import give_up_output
from ._filters import filter_options

_COLUMNS = (("id", 4), ("name", 5), ("email", 6), ("created", 2), ("platform", 2))
"""Headings, and how much of the terminal's width each gets."""


@click.command("list")
@click.argument("corporation_id")
@filter_options
@click.option("--limit", type=int, default=100, show_default=True, help="Customers per page, 1 to 100.")
@click.option("--cursor", help="Cursor at which to begin; printed after a failure.")
@click.option(
    "--base-url", envvar="COMMENDA_BASE_URL", help="Address of the API.  [env: COMMENDA_BASE_URL; default: the vendor's]"
)
@click.option("--skip-invalid", is_flag=True, help="Skip rows that are not valid, and name them on standard error.")
@click.option("--json/--table", "as_json", default=None, help="JSON lines, or a table.  [default: a table on a terminal]")
def list_command(
    corporation_id: str,
    limit: int,
    cursor: str | None,
    base_url: str | None,
    skip_invalid: bool,
    as_json: bool | None,
    **filters: Any,
) -> None:
    """
    Print the customers of a corporation.

    The environment variable COMMENDA_API_TOKEN must hold the token.
    """
    options = {"limit": limit, "cursor": cursor, "invalid_customers": "collect" if skip_invalid else "raise", **filters}
    anyio.run(partial(_print_customers, corporation_id, base_url=base_url, as_json=as_json, **options))


async def _print_customers(
    corporation_id: str,
    *,
    base_url: str | None,
    as_json: bool | None,
    **options: Any,
) -> None:
    """Print the customers of a corporation, page by page as they come."""
    messages = Console(stderr=True)

    def report(event: Event) -> None:
        if isinstance(event, RetryScheduled):
            _warn(messages, f"{event.error}; trying again in {event.wait:.1f} s")
        elif isinstance(event, InvalidCustomerReceived):
            row = event.customer
            _warn(messages, f"not valid: row {row.index} of a page, id {row.id!r}: {', '.join(row.errors)}")

    try:
        api = AsyncCustomersAPI(base_url=base_url, hooks=[report])
        pages = api.list(corporation_id, **options).pages()
    except (ValueError, TypeError) as exc:
        raise click.UsageError(str(exc)) from exc

    try:
        async with api:
            await _print_pages(pages, messages, as_json=as_json, is_whole=options["cursor"] is None)
    except CustomersError as error:
        if error.cursor is not None and not isinstance(error, BadRequestError | CursorLoopError):
            error.add_note(f"to resume: --cursor {shlex.quote(error.cursor)}")
        raise
    except BrokenPipeError:
        give_up_output()  # the program that reads the output has stopped, as `head` does


def _warn(messages: Console, text: str) -> None:
    messages.print(text, markup=False, highlight=False, soft_wrap=True)


async def _print_pages(
    pages: AsyncIterator[CustomerPage], messages: Console, *, as_json: bool | None, is_whole: bool
) -> None:
    output = Console()
    is_terminal = output.is_terminal
    printed, came, counted = 0, 0, 0
    status = messages.status("waiting for the first page")
    # On a terminal the customers themselves show the progress.
    with nullcontext() if is_terminal else status:
        async for page in pages:
            if as_json or (as_json is None and not is_terminal):
                _print_json(page)
            else:
                output.print(_table(page, with_header=not printed))
            printed += len(page)
            came += len(page) + len(page.invalid_customers)
            counted = counted if page.total_customers is None else page.total_customers
            total = "" if page.total_customers is None else f" of {page.total_customers:,}"
            status.update(f"{printed:,}{total} customers")
    if not came:
        messages.print("no customers match")
    if is_whole and came < counted:
        _warn(messages, f"warning: the server counted {counted:,} customers, but sent {came:,}")


def _print_json(page: CustomerPage) -> None:
    if page.customers:
        # As bytes: JSON is UTF-8, whatever the locale.
        click.echo("\n".join(customer.model_dump_json() for customer in page).encode())


def _table(page: CustomerPage, *, with_header: bool) -> Table:
    """Return a page as a table. The widths depend on the terminal only, so that the pages line up."""
    table = Table(box=None, expand=True, show_header=with_header, pad_edge=False)
    for name, ratio in _COLUMNS:
        table.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
    for customer in page:
        table.add_row(*(Text(_printable(value)) for value in _cells(customer)))

    return table


def _cells(customer: Customer) -> tuple[str | None, ...]:
    created = None if customer.created_at is None else f"{customer.created_at:%Y-%m-%d}"
    return customer.id, customer.name, customer.email, created, customer.source_platform


def _printable(value: str | None) -> str:
    """Replace control characters: a name must not control the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value or "")
