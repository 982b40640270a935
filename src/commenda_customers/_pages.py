"""
Follows the cursors of the list of one corporation.

Nothing here knows HTTP: a `PageReader` is given a function that fetches the page at a cursor.

Theory of operation. A `PageReader` fetches page after page until the server gives no cursor. Each page becomes a
`PageBuffer`: its customers, and the position at which another run would resume if none of them were yielded. A position
names the page by its cursor, and the customers of that page that were yielded by their ids. Rows that are not valid are
reported before the first customer of their page, and the position has their ids too. A row without an id is known by a
short digest.

A run that resumes fetches the page of its position again. In the meantime the list may have changed, so the customers
that may reappear, because an earlier run has yielded them, are left out wherever they are now: on that page, or pushed to
the next one by insertions. If the first page that holds customers holds none of them, the overlap with the earlier run
is gone, and others may have been missed: that is a `ListChangedError`.

A run may resume with another limit. Then its pages end elsewhere: a smaller one holds only a part of what was yielded from
the old page. The rest follows on the next pages, and is left out there. But if the server's cursors count pages, another
limit moves the page. It begins too early and would repeat customers, or it begins too late and would lose some. So with
another limit, the first customer that comes must be one that was yielded. Then all customers before it were yielded, too.

A server whose cursors lead back to an earlier page would be followed for ever. So all cursors of a run are remembered, as
short digests, and a repeated cursor is a `CursorLoopError`. A position also holds the loop cursor, if its page has one, so
that a run that resumes there does not follow the loop once more.
"""

import json
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeVar

import anyio

from .checkpoint import Position
from .errors import CursorLoopError, CursorRejectedError, ListChangedError
from .models import Customer, CustomerPage, InvalidCustomer
from .query import MAX_LIMIT, CustomersQuery

Fetch = Callable[[CustomersQuery, str | None], Awaitable[CustomerPage]]
"""Returns the page of a query at a cursor; `None` is the first page."""

_NO_ID = "\0"
"""What the key of a row without an id begins with."""

_MOST_KNOWN = 20_000
"""Invalid rows that a position knows; a page has at most half as many."""


@dataclass(slots=True)
class PageBuffer:
    """
    A page that is being consumed.

    Attributes:
        page: The customers to yield: those of the page without those that an earlier run has yielded.
        before: Where another run resumes if none of them was taken: the end of the last page with rows.
        start: The position of the page itself.
        cursor: The cursor of the page.
        taken: How many of them were taken.
        reported: How many of its invalid rows were reported.
    """

    page: CustomerPage
    before: Position
    start: Position
    cursor: str | None
    taken: int = 0
    reported: int = 0

    def report_one(self) -> InvalidCustomer | None:
        """Return the next invalid row; `None` after the last."""
        rows = self.page.invalid_customers
        if self.reported >= len(rows):
            return None

        self.reported += 1
        return rows[self.reported - 1]

    def take_one(self) -> Customer | None:
        """Return the next customer; `None` after the last."""
        customers = self.page.customers
        if self.taken >= len(customers):
            return None

        self.taken += 1
        return customers[self.taken - 1]

    def take_rest(self) -> CustomerPage:
        """Return a page of the customers that were not taken yet."""
        rest = replace(self.page, customers=self.page.customers[self.taken :]) if self.taken else self.page
        self.taken = len(self.page)
        return rest

    @property
    def is_used_up(self) -> bool:
        """Whether all customers were taken, and all invalid rows reported."""
        return self.taken >= len(self.page.customers) and self.reported >= len(self.page.invalid_customers)

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left of the list."""
        return self.is_used_up and self.page.cursor is None

    @property
    def position(self) -> Position:
        """
        Where another run resumes after what was taken.

        That is this page, even when all of it was taken: the next run compares it, and so detects that the list has changed.
        If no customer was taken, there would be nothing to compare, so it is the page before.
        """
        return _advanced(self.start if self.taken else self.before, self.page, taken=self.taken, reported=self.reported)

    @property
    def end(self) -> Position:
        """The position after the last row."""
        return _after(self.start, self.page)


class PageReader:
    """Fetches one list, page by page. A step that failed or was cancelled can be repeated."""

    def __init__(self, fetch: Fetch, query: CustomersQuery, start: Position | None) -> None:
        """Begin at *start*; `None` is the end of the list."""
        self.query = query
        self._fetch = fetch
        self._start = start  # of the next buffer
        self._cursor = start.cursor if start else None  # of the next page
        self._given_at: float | None = None  # when this run received that cursor
        self._may_reappear = start.yielded if start else ()  # ids that an earlier run has yielded
        self._may_be_reported = start.invalid if start else ()  # keys of invalid rows that an earlier run has reported
        # No customer can be missing before the first one of the list.
        self._overlap_confirmed = not self._known_ids() or (self._cursor is None and not self._may_reappear)
        self._limit_before = start.limit if start else None
        # Maps each cursor to the number of pages with customers so far. A run resumes at the last of these pages, so it
        # finds a loop after that page by itself; a cursor that leads to an earlier page must be in the position.
        self._fetched: dict[bytes | None, int] = {_digest(start.loop_cursor): -1} if start and start.loop_cursor else {}
        self._filled = 0

    async def step(self) -> PageBuffer | None:
        """
        Fetch the next page; return `None` after the last.

        Raises:
            CursorLoopError: The server's cursors form a loop.
            CursorRejectedError: The server no longer accepts the cursor.
            ListChangedError: The page at which an earlier run stopped has none of the customers that it had yielded.
            CustomersError: The page could not be fetched.
        """
        while self._start is not None:
            page = await self._fetch_new()
            buffer = self._accept(page, self._start)
            if _has_rows(buffer.page) or not _has_rows(page) or page.cursor is None:  # else an earlier run has yielded it
                return buffer

        return None

    async def _fetch_new(self) -> CustomerPage:
        if _digest(self._cursor) in self._fetched:
            raise CursorLoopError(
                f"the server's cursors form a loop: one was repeated within {len(self._fetched)} pages",
                corporation_id=self.query.corporation_id,
                cursor=self._cursor,
            )

        try:
            return await self._fetch(self.query, self._cursor)
        except CursorRejectedError as error:
            if self._given_at is not None:
                error.cursor_age = anyio.current_time() - self._given_at
            raise
        except StopAsyncIteration as exc:
            # From a hook or a token provider. It would silently end the list; in a generator Python prevents that (PEP 479).
            raise RuntimeError("StopAsyncIteration was raised while a page was fetched") from exc

    def _accept(self, page: CustomerPage, before: Position) -> PageBuffer:
        """Make a buffer of a page, and move to the next cursor."""
        start = before
        customers, reappeared = _without(page.customers, self._may_reappear)
        invalid, reported = _without(page.invalid_customers, self._may_be_reported)
        rest = replace(page, customers=customers, invalid_customers=invalid) if reappeared or reported else page
        if not self._overlap_confirmed and (_has_ids(page) or page.cursor is None):
            self._check_overlap(page)

        self._may_reappear = _missing(self._may_reappear, reappeared, most=MAX_LIMIT)
        self._may_be_reported = _missing(self._may_be_reported, reported, most=_MOST_KNOWN)
        if _has_ids(page):
            self._overlap_confirmed = True
            self._filled += 1
            yielded, known = self._may_reappear + reappeared, self._may_be_reported + reported
            update = {"cursor": self._cursor, "yielded": yielded, "invalid": known, "limit": self._limit}
            start = start.model_copy(update=update)
        self._fetched[_digest(self._cursor)] = self._filled
        if page.cursor is not None and self._fetched.get(_digest(page.cursor), self._filled) < self._filled:
            loop = {"loop_cursor": page.cursor}
            before, start = before.model_copy(update=loop), start.model_copy(update=loop)
        self._start = None if page.cursor is None else _after(start, rest)
        buffer = PageBuffer(rest, before, start, self._cursor)
        self._cursor, self._given_at = page.cursor, anyio.current_time()
        return buffer

    @property
    def _limit(self) -> int:
        return self.query.selection.limit

    def _known_ids(self) -> set[str]:
        """Return the ids of the page of the position. A row without an id is no sign that a page is the same."""
        return {*self._may_reappear, *(key for key in self._may_be_reported if not key.startswith(_NO_ID))}

    def _check_overlap(self, page: CustomerPage) -> None:
        """Refuse the first page that holds customers if it does not continue what an earlier run has yielded."""
        # A row may have become valid in the meantime, or invalid.
        came, known = _ids_of(page), self._known_ids()
        is_known = not known.isdisjoint(came)
        has_other_limit = self._limit_before not in (None, self._limit)
        if is_known and (not has_other_limit or came[0] in known):
            return

        message = "the list has changed: the page at which the checkpoint was taken "
        if is_known:
            message += "begins with a customer that was not yielded from it, so others may come twice"
        else:
            message += (
                f"has none of the {len(known)} customers that were already yielded from it, so others may have been missed"
            )
        if has_other_limit:
            message += f"; or the server's cursors do not allow another limit, then resume with limit={self._limit_before}"
        raise ListChangedError(
            f"{message}; Checkpoint.without() restarts the corporation",
            corporation_id=self.query.corporation_id,
            cursor=self._cursor,
        )


def _advanced(start: Position, page: CustomerPage, *, taken: int, reported: int) -> Position:
    """Return the position after the first customers and invalid rows of *page*, which is at *start*."""
    ids = tuple(customer.id for customer in page.customers[:taken])
    update: dict[str, object] = {"yielded": start.yielded + ids, "customers": start.customers + taken}
    if reported:
        known = tuple(_key_of(row) for row in page.invalid_customers[:reported])
        update["invalid"] = (start.invalid + known)[-_MOST_KNOWN:]
        update["invalid_customers"] = start.invalid_customers + reported
    return start.model_copy(update=update)


def _after(start: Position, page: CustomerPage) -> Position:
    return _advanced(start, page, taken=len(page), reported=len(page.invalid_customers))


def _ids_of(page: CustomerPage) -> list[str]:
    """Return the ids of all rows of a page that have one, in the server's order."""
    invalid = {row.index: row.id for row in page.invalid_customers}
    customers = iter(page.customers)
    rows = range(len(page.customers) + len(page.invalid_customers))
    ids = [invalid[index] if index in invalid else next(customers).id for index in rows]
    return [name for name in ids if name is not None]


def _has_rows(page: CustomerPage) -> bool:
    return bool(page.customers or page.invalid_customers)


def _has_ids(page: CustomerPage) -> bool:
    """Return whether another run can recognise a page by its rows."""
    return bool(page.customers) or any(row.id is not None for row in page.invalid_customers)


def _missing(expected: tuple[str, ...], came: tuple[str, ...], *, most: int) -> tuple[str, ...]:
    """Return the keys that did not come. One that was pushed off a page comes soon, so only the last ones are kept."""
    return tuple((Counter(expected) - Counter(came)).elements())[-most:] if expected else ()


R = TypeVar("R", Customer, InvalidCustomer)


def _without(rows: tuple[R, ...], known: tuple[str, ...]) -> tuple[tuple[R, ...], tuple[str, ...]]:
    """
    Leave out the rows that an earlier run has yielded or reported. Return the rest, and the keys that were left out.

    A row is left out as often as its key is known. So it does not matter whether customers were inserted or removed in the
    meantime.
    """
    if not known:
        return rows, known

    left = Counter(known)
    rest: list[R] = []
    reappeared: list[str] = []
    for row in rows:
        key = _key_of(row)
        if left[key]:
            left[key] -= 1
            reappeared.append(key)
        else:
            rest.append(row)

    return tuple(rest), tuple(reappeared)


def _key_of(row: Customer | InvalidCustomer) -> str:
    """Return by what another run knows a row: its id, or a digest if it has none."""
    if row.id is not None:
        return row.id

    assert isinstance(row, InvalidCustomer)  # noqa: S101 - a customer has an id
    text = json.dumps(row.raw, sort_keys=True)
    return _NO_ID + urlsafe_b64encode(blake2b(text.encode(), digest_size=9).digest()).decode()


def _digest(cursor: str | None) -> bytes | None:
    """Return a short hash of *cursor*: some servers have cursors of several kilobytes."""
    return None if cursor is None else blake2b(cursor.encode(), digest_size=16).digest()
