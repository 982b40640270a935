"""`commenda-customers list`: a table on a terminal, JSON lines elsewhere."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import click

from .._customer_list import CustomerList
from ..errors import BadRequestError, CursorLoopError, CustomersError
from ..events import Event, InvalidCustomerReceived, RetryScheduled
from ..models import CustomerPage
from ._broken_pipe import give_up_output
from ._customer_output import CustomerOutput
from ._filters import filter_options
from ._messages import add_notes, say, say_invalid
from ._options import ClientOptions, FirstResponse, client_options, limit_option, usage_error, usage_errors


class _Place:
    """Where the printed customers end, and so where another run resumes."""

    def __init__(self, corporation_ids: Sequence[str], cursor: str | None, limit: int | None) -> None:
        """Begin at *cursor* of the first corporation. *limit* is what another run must be told, if anything."""
        self._unread = [*corporation_ids]  # the first of them may have begun
        self._is_one_of_several = len(corporation_ids) > 1
        self._has_begun = False
        self._cursor = cursor
        self._limit = limit

    def advance(self, page: CustomerPage) -> None:
        """Take note that a page was printed."""
        self._has_begun = True
        self._cursor = page.cursor
        if page.cursor is None:
            self._unread.pop(0)

    def notes(self, *, skip_page: bool = False) -> list[str]:
        """Return what to tell somebody who wants to resume. With *skip_page*, the present page cannot be read again."""
        notes: list[str] = []
        unread = self._unread
        if self._cursor is not None and not skip_page:
            corporation = [unread[0]] if self._is_one_of_several else []
            limit = [] if self._limit is None else ["--limit", str(self._limit)]
            notes.append(f"to resume: {shlex.join([*corporation, *limit, '--cursor', self._cursor])}")
        if self._cursor is not None or skip_page:
            unread = unread[1:]
        if self._is_one_of_several and self._has_begun and unread:
            notes.append(f"not read yet: {shlex.join(unread)}")
        return notes


@click.command("list", short_help="Print the customers of corporations.")
@click.argument("corporation_ids", nargs=-1, required=True, metavar="CORPORATION_ID...")
@filter_options
@limit_option
@click.option(
    "--max",
    "max_customers",
    type=click.IntRange(1),
    metavar="N",
    help="Stop after so many customers, and print how to resume.",
)
@click.option("--cursor", help="Cursor at which to begin, with a single corporation; printed when the command stops early.")
@click.option("--skip-invalid", is_flag=True, help="Skip rows that are not valid, and name them on standard error.")
@click.option("--json/--table", "as_json", default=None, help="JSON lines, or a table.  [default: a table on a terminal]")
@client_options
def list_command(
    corporation_ids: tuple[str, ...],
    limit: int,
    max_customers: int | None,
    cursor: str | None,
    client: ClientOptions,
    skip_invalid: bool,
    as_json: bool | None,
    **filters: Any,
) -> None:
    """
    Print the customers of one corporation, or of several, one after the other.

    The environment variable COMMENDA_API_TOKEN must hold the token.

    \b
    Examples:
      commenda-customers list corp_1 --max 20
      commenda-customers list corp_1 corp_2 --has-exemption > exempt.jsonl
    """  # noqa: D301 - click's mark for lines that it must not join
    _check_corporations(corporation_ids, cursor)
    # A smaller page ends where the output ends, so that its cursor repeats nothing.
    is_lowered = max_customers is not None and max_customers < limit
    limit = min(limit, max_customers or limit)
    place = _Place(corporation_ids, cursor, limit if is_lowered else None)
    options = {"limit": limit, "cursor": cursor, "invalid_customers": "collect" if skip_invalid else "raise", **filters}
    try:
        anyio.run(partial(_run, corporation_ids, place, client, max_customers=max_customers, as_json=as_json, **options))
    except KeyboardInterrupt as exc:
        abort = click.Abort()
        add_notes(abort, place.notes())
        raise abort from exc


def _check_corporations(corporation_ids: Sequence[str], cursor: str | None) -> None:
    for corporation_id in corporation_ids:
        if corporation_ids.count(corporation_id) > 1:
            raise usage_error(f"{corporation_id!r} is given twice")
    if cursor is not None and len(corporation_ids) > 1:
        raise usage_error("--cursor: needs a single corporation, because a cursor belongs to one list")


async def _run(
    corporation_ids: Sequence[str],
    place: _Place,
    client: ClientOptions,
    *,
    max_customers: int | None,
    as_json: bool | None,
    **options: Any,
) -> None:
    """Print the customers, page by page as they come."""
    first_response = FirstResponse(client.seconds_to_first_response)
    api = client.client(_report, first_response)
    with usage_errors():
        lists = {name: api.list(name, **options) for name in corporation_ids}

    output = CustomerOutput(as_json=as_json, several=len(lists) > 1)
    work = partial(_print_lists, lists, output, place, max_customers=max_customers, is_whole=options["cursor"] is None)
    try:
        async with api:
            with output.progress:
                repeated = await first_response.limit(api, work)
        if repeated is not None:
            _say_how_to_resume(place, max_customers, repeated)
    except CustomersError as error:
        add_notes(error, place.notes(skip_page=isinstance(error, BadRequestError | CursorLoopError)))
        raise
    except BrokenPipeError:
        give_up_output()  # the program that reads the output has stopped, as `head` does


async def _print_lists(
    lists: Mapping[str, CustomerList],
    output: CustomerOutput,
    place: _Place,
    *,
    max_customers: int | None,
    is_whole: bool,
) -> int | None:
    """
    Print one list after the other.

    Return `None` after the last customer. If `max_customers` were printed and others follow, return how many of them another
    run repeats: those of a page that was not printed to its end.
    """
    left = sys.maxsize if max_customers is None else max_customers
    for corporation_id, customers in lists.items():
        if not left:
            return 0
        async for page in customers.pages():
            wanted = page.customers[:left]
            output.print(page, wanted)
            left -= len(wanted)
            if len(wanted) < len(page):
                return len(wanted)
            place.advance(page)
            if not left and page.cursor is not None:
                return 0
        output.finish(corporation_id, is_whole=is_whole)

    return None


def _say_how_to_resume(place: _Place, max_customers: int | None, repeated: int) -> None:
    notes = place.notes()
    rest = f"; another run repeats the last {repeated:,}" if repeated and notes else ""
    say(f"stopped after {max_customers:,} customers; there may be more{rest}")
    for note in notes:
        say(note)


def _report(event: Event) -> None:
    """Say that a request is sent again, or that a row is not valid. A hook of the client."""
    if isinstance(event, RetryScheduled):
        say(f"{event.error}; trying again in {event.wait:.1f} s")
    elif isinstance(event, InvalidCustomerReceived):
        say_invalid(event)
