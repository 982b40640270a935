"""
The walk from cursor to cursor through the list of one corporation.

It knows nothing of HTTP: it is given a function that fetches the page at a cursor.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from .checkpoint import Position
from .errors import CursorLoopError, ListChangedError
from .models import Customer, CustomerPage
from .query import CustomersQuery

Fetch = Callable[[CustomersQuery, str | None], Awaitable[CustomerPage]]
"""Returns the page of a query at a cursor; `None` is the first page."""


@dataclass(slots=True)
class PageBuffer:
    """
    A page on its way to the user.

    Attributes:
        page: What of it is to be yielded: without what an earlier run has yielded.
        start: Where another run is to go on if none of it was taken.
        taken: How many of its customers were yielded.
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
        """Return a page of what was not taken yet."""
        rest = replace(self.page, customers=self.page.customers[self.taken :]) if self.taken else self.page
        self.taken = len(self.page)
        return rest

    @property
    def is_used_up(self) -> bool:
        """Whether all of it was taken."""
        return self.taken >= len(self.page.customers)

    @property
    def position(self) -> Position | None:
        """
        Where another run is to go on after what was taken; `None` at the end of the list.

        That is this page, even when all of it was taken: if the list changes in between, it shows on a page that is known.
        """
        if self.is_used_up and self.page.cursor is None:
            return None

        return _advanced(self.start, self.page.customers[: self.taken])


class PageReader:
    """Reads one list, page by page. A step that failed or was cancelled can be taken again."""

    def __init__(self, fetch: Fetch, query: CustomersQuery, start: Position | None) -> None:
        """Go on from *start*; `None` is the end of the list."""
        self.query = query
        self._fetch = fetch
        self._start = start  # of the next buffer
        self._cursor = start.cursor if start else None  # of the next page
        self._may_reappear = start.yielded if start else ()  # what was yielded and may come again
        self._overlap_confirmed = not self._may_reappear  # whether what came again shows that it is the list of before
        # Each cursor with the number of pages that had customers by then: a position needs only the last of them.
        self._asked: dict[bytes | None, int] = {_digest(start.loop_cursor): -1} if start and start.loop_cursor else {}
        self._filled = 0

    async def step(self) -> PageBuffer | None:
        """
        Fetch the next page; return `None` after the last.

        Raises:
            CursorLoopError: The server sends the walk round in a loop_cursor.
            ListChangedError: The page in which an earlier run stopped holds nothing any more of what that run yielded.
            CustomersError: The page could not be had.
        """
        while self._start is not None:
            page = await self._fetch_new()
            buffer = self._accept(page, self._start)
            if buffer.page or not page or page.cursor is None:  # else an earlier run has yielded all of it
                return buffer

        return None

    async def _fetch_new(self) -> CustomerPage:
        if _digest(self._cursor) in self._asked:
            raise CursorLoopError(
                f"the server gave a cursor a second time, within {len(self._asked)} pages; to follow it would never end",
                corporation_id=self.query.corporation_id,
                cursor=self._cursor,
            )

        try:
            return await self._fetch(self.query, self._cursor)
        except StopAsyncIteration as exc:
            # From a hook or a token provider. Here it would be the end of the list, as in a generator it is not (PEP 479).
            raise RuntimeError("StopAsyncIteration was raised while a page was fetched") from exc

    def _accept(self, page: CustomerPage, start: Position) -> PageBuffer:
        """Take in a page that came, and go on to the next."""
        rest, seen = _without(page, self._may_reappear)
        if not self._overlap_confirmed and not seen and (page or page.cursor is None):
            raise self._list_changed()

        if page:
            self._overlap_confirmed = True
            self._filled += 1
            # Who was pushed off a page is not far behind it; who was removed never comes.
            unseen = tuple((Counter(self._may_reappear) - Counter(seen)).elements())[-self.query.selection.limit :]
            start = start.model_copy(update={"cursor": self._cursor, "yielded": unseen + seen})
            self._may_reappear = unseen
        self._asked[_digest(self._cursor)] = self._filled
        if page.cursor is not None and self._asked.get(_digest(page.cursor), self._filled) < self._filled:
            start = start.model_copy(update={"loop_cursor": page.cursor})
        self._start = None if page.cursor is None else _advanced(start, rest.customers)
        self._cursor = page.cursor
        return PageBuffer(rest, start)

    def _list_changed(self) -> ListChangedError:
        return ListChangedError(
            f"the page in which the reading stopped no longer holds any of the {len(self._may_reappear)} customers already "
            "yielded from it, so others may have been missed; read the corporation from its beginning: Checkpoint.without()",
            corporation_id=self.query.corporation_id,
            cursor=self._cursor,
        )


def _advanced(start: Position, customers: Sequence[Customer]) -> Position:
    """Return the position after *customers* of the page at *start*."""
    taken = tuple(customer.id for customer in customers)
    return start.model_copy(update={"yielded": start.yielded + taken, "customers": start.customers + len(taken)})


def _without(page: CustomerPage, yielded: tuple[str, ...]) -> tuple[CustomerPage, tuple[str, ...]]:
    """
    Leave out what was yielded already. Return what is left of *page*, and what of *yielded* was on it.

    A customer is known by its id, and left out as often as it was yielded, so that it does not matter if customers were
    inserted or removed in between. One that was pushed off its page by others comes on a later one.
    """
    if not yielded:
        return page, yielded

    unseen = Counter(yielded)
    rest: list[Customer] = []
    seen: list[str] = []
    for customer in page:
        if unseen[customer.id]:
            unseen[customer.id] -= 1
            seen.append(customer.id)
        else:
            rest.append(customer)

    return replace(page, customers=tuple(rest)), tuple(seen)


def _digest(cursor: str | None) -> bytes | None:
    """Return what stands for *cursor* among very many: some servers write kilobytes into each."""
    return None if cursor is None else blake2b(cursor.encode(), digest_size=16).digest()
