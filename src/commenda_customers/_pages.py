"""
Follows the cursors of the list of one corporation.

Nothing here knows HTTP: a `PageReader` is given a function that fetches the page at a cursor.

Theory of operation. A `PageReader` fetches page after page until the server gives no cursor. Each page becomes a
`PageBuffer`: its customers, and the position at which another run would resume if none of them were yielded. A position
names the page by its cursor, and the customers of that page that were yielded by their ids.

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

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import anyio

from .checkpoint import Position
from .errors import CursorLoopError, CursorRejectedError, ListChangedError
from .models import Customer, CustomerPage
from .query import MAX_LIMIT, CustomersQuery

Fetch = Callable[[CustomersQuery, str | None], Awaitable[CustomerPage]]
"""Returns the page of a query at a cursor; `None` is the first page."""


@dataclass(slots=True)
class PageBuffer:
    """
    A page that is being consumed.

    Attributes:
        page: The customers to yield: those of the page without those that an earlier run has yielded.
        start: Where another run resumes if none of them was taken.
        taken: How many of them were taken.
    """

    page: CustomerPage
    start: Position
    taken: int = 0

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
        """Whether all customers were taken."""
        return self.taken >= len(self.page.customers)

    @property
    def position(self) -> Position | None:
        """
        Where another run resumes after what was taken; `None` at the end of the list.

        That is this page, even when all of it was taken: the next run compares it, and so detects that the list has changed.
        """
        if self.is_used_up and self.page.cursor is None:
            return None

        return _advanced(self.start, self.page.customers[: self.taken])


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
        self._overlap_confirmed = not self._may_reappear
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
            if buffer.page or not page or page.cursor is None:  # else an earlier run has yielded all of it
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

    def _accept(self, page: CustomerPage, start: Position) -> PageBuffer:
        """Make a buffer of a page, and move to the next cursor."""
        rest, reappeared = _without(page, self._may_reappear)
        if not self._overlap_confirmed and (page or page.cursor is None):
            self._check_overlap(page, reappeared)

        if page:
            self._overlap_confirmed = True
            self._filled += 1
            # A customer that was pushed off a page comes soon; a removed one never comes. So only the last ids are kept.
            missing = Counter(self._may_reappear) - Counter(reappeared)
            self._may_reappear = tuple(missing.elements())[-MAX_LIMIT:]
            yielded = self._may_reappear + reappeared
            start = start.model_copy(update={"cursor": self._cursor, "yielded": yielded, "limit": self._limit})
        self._fetched[_digest(self._cursor)] = self._filled
        if page.cursor is not None and self._fetched.get(_digest(page.cursor), self._filled) < self._filled:
            start = start.model_copy(update={"loop_cursor": page.cursor})
        self._start = None if page.cursor is None else _advanced(start, rest.customers)
        self._cursor, self._given_at = page.cursor, anyio.current_time()
        return PageBuffer(rest, start)

    @property
    def _limit(self) -> int:
        return self.query.selection.limit

    def _check_overlap(self, page: CustomerPage, reappeared: tuple[str, ...]) -> None:
        """Refuse the first page that holds customers if it does not continue what an earlier run has yielded."""
        has_other_limit = self._limit_before not in (None, self._limit)
        if reappeared and (not has_other_limit or page.customers[0].id in self._may_reappear):
            return

        message = "the list has changed: the page at which the checkpoint was taken "
        if reappeared:
            message += "begins with a customer that was not yielded from it, so others may come twice"
        else:
            message += (
                f"has none of the {len(self._may_reappear)} customers that were already yielded from it, so others may have "
                "been missed"
            )
        if has_other_limit:
            message += f"; or the server's cursors do not allow another limit, then resume with limit={self._limit_before}"
        raise ListChangedError(
            f"{message}; Checkpoint.without() restarts the corporation",
            corporation_id=self.query.corporation_id,
            cursor=self._cursor,
        )


def _advanced(start: Position, customers: Sequence[Customer]) -> Position:
    """Return the position after *customers* of the page at *start*."""
    taken = tuple(customer.id for customer in customers)
    return start.model_copy(update={"yielded": start.yielded + taken, "customers": start.customers + len(taken)})


def _without(page: CustomerPage, yielded: tuple[str, ...]) -> tuple[CustomerPage, tuple[str, ...]]:
    """
    Leave out the customers that were already yielded. Return the rest of *page*, and the ids that were left out.

    A customer is known by its id, and left out as often as it was yielded. So it does not matter whether customers were
    inserted or removed in the meantime.
    """
    if not yielded:
        return page, yielded

    left = Counter(yielded)
    rest: list[Customer] = []
    reappeared: list[str] = []
    for customer in page:
        if left[customer.id]:
            left[customer.id] -= 1
            reappeared.append(customer.id)
        else:
            rest.append(customer)

    return replace(page, customers=tuple(rest)), tuple(reappeared)


def _digest(cursor: str | None) -> bytes | None:
    """Return a short hash of *cursor*: some servers have cursors of several kilobytes."""
    return None if cursor is None else blake2b(cursor.encode(), digest_size=16).digest()
