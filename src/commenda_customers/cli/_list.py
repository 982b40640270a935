"""`commenda-customers list`: a table on a terminal, JSON Lines elsewhere."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import click

from .._customer_list import CustomerList
from ..errors import BadRequestError, CursorLoopError, CustomersError, NotFoundError, PermissionDeniedError
from ..events import Event, InvalidCustomerReceived, RetryScheduled
from ..limits import RateLimiter
from ..models import CustomerPage
from ._broken_pipe import give_up_output
from ._customer_output import CustomerOutput
from ._filters import filter_options
from ._limiter import entered, quota_option
from ._messages import add_notes, say, say_invalid
from ._options import ClientOptions, FirstResponse, client_options, limit_option, usage_error, usage_errors

_REFUSALS = BadRequestError | CursorLoopError | NotFoundError | PermissionDeniedError
"""Errors that would come again from the same page."""


class _Place:
    """The position after the printed customers, where the next run resumes."""

    def __init__(self, corporation_ids: Sequence[str], cursor: str | None, limit: int | None) -> None:
        """Start at *cursor* of the first corporation. *limit* is the `--limit` that the next run needs, if any."""
        self._unread = [*corporation_ids]  # the first one may be partly printed
        self._is_one_of_several = len(corporation_ids) > 1
        self._has_begun = False
        self._cursor = cursor
        self._limit = limit

    def advance(self, page: CustomerPage) -> None:
        """Record that a page was printed."""
        self._has_begun = True
        self._cursor = page.cursor
        if page.cursor is None:
            self._unread.pop(0)

    def notes(self, *, skip_page: bool = False) -> list[str]:
        """Return the hints for the user on how to resume. With *skip_page*, do not suggest the cursor that just failed."""
        notes: list[str] = []
        unread = self._unread
        if self._cursor is not None and not skip_page:
            corporation = [unread[0]] if self._is_one_of_several else []
            limit = [] if self._limit is None else ["--limit", str(self._limit)]
            notes.append(f"to resume: {shlex.join([*corporation, *limit, '--cursor', self._cursor])}")
        if self._cursor is not None or skip_page:
            unread = unread[1:]
        if self._is_one_of_several and (self._has_begun or skip_page) and unread:
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
    help="Stop after N customers, and print how to resume.",
)
@click.option("--cursor", help="Start at this cursor of a single corporation. A command that stops early prints it.")
@click.option("--skip-invalid", is_flag=True, help="Skip invalid rows, and report them on standard error.")
@click.option(
    "--json/--table", "as_json", default=None, help="Print JSON Lines or a table.  [default: a table on a terminal]"
)
@quota_option
@client_options
def list_command(
    corporation_ids: tuple[str, ...],
    limit: int,
    max_customers: int | None,
    cursor: str | None,
    quota: RateLimiter | None,
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
    """  # noqa: D301 - click does not join the lines after its mark
    _check_corporations(corporation_ids, cursor)
    # With smaller pages, the page ends where the output ends. So the next run repeats nothing.
    is_lowered = max_customers is not None and max_customers < limit
    limit = min(limit, max_customers or limit)
    place = _Place(corporation_ids, cursor, limit if is_lowered else None)
    options = {"limit": limit, "cursor": cursor, "invalid_customers": "collect" if skip_invalid else "raise", **filters}
    try:
        run = partial(_run, corporation_ids, place, client, quota, max_customers=max_customers, as_json=as_json, **options)
        anyio.run(run)
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
    quota: RateLimiter | None,
    *,
    max_customers: int | None,
    as_json: bool | None,
    **options: Any,
) -> None:
    """Print each page of customers when it arrives."""
    first_response = FirstResponse(client.seconds_to_first_response)
    api = client.client(_report, first_response, rate_limit=quota)
    with usage_errors():
        lists = {name: api.list(name, **options) for name in corporation_ids}

    output = CustomerOutput(as_json=as_json, several=len(lists) > 1)
    work = partial(_print_lists, lists, output, place, max_customers=max_customers, is_whole=options["cursor"] is None)
    try:
        async with entered(quota), api:
            with output.progress:
                repeated = await first_response.limit(api, work)
        if repeated is not None:
            _say_how_to_resume(place, max_customers, repeated)
    except CustomersError as error:
        add_notes(error, place.notes(skip_page=isinstance(error, _REFUSALS)))
        raise
    except BrokenPipeError:
        give_up_output()  # the program that reads the pipe has ended, as `head` does


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

    Return `None` after the last customer. If the command stops at `max_customers`, return how many printed customers the
    next run repeats. It repeats them if the last page was not printed to its end.
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
    rest = f"; the next run prints the last {repeated:,} again" if repeated and notes else ""
    say(f"stopped after {max_customers:,} customers; there may be more{rest}")
    for note in notes:
        say(note)


def _report(event: Event) -> None:
    """Say that a request is sent again, or that a row is not valid. A hook of the client."""
    if isinstance(event, RetryScheduled):
        say(f"{event.error}; retrying in {event.wait:.1f} s")
    elif isinstance(event, InvalidCustomerReceived):
        say_invalid(event)
