"""
The walk from cursor to cursor through the list of one corporation.

It knows nothing of HTTP: it is given a function that fetches the page at a cursor.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import blake2b

from .checkpoint import Position
from .errors import CursorLoopError, ListChangedError
from .models import Customer, CustomerPage
from .query import CustomersQuery

Fetch = Callable[[CustomersQuery, str | None], Awaitable[CustomerPage]]
"""Returns the page of a query at a cursor; `None` is the first page."""


@dataclass(slots=True)
class Portion:
    """
    A page on its way to the user.

    Attributes:
        page: What of it is to be yielded: without what an earlier run has yielded.
        start: The position at which it was fetched.
        leads_back: Whether its cursor leads to where the walk has been.
        taken: How many of its customers were yielded.
    """

    page: CustomerPage
    start: Position
    leads_back: bool = False
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
        if self.is_used_up and (self.page.cursor is None or not self._is_landmark):
            return self.following

        taken = tuple(customer.id for customer in self.page.customers[: self.taken])
        return Position(
            corporation_id=self.start.corporation_id,
            cursor=self.start.cursor,
            yielded=self.start.yielded + taken,
            customers=self.start.customers + len(taken),
            circle=self.page.cursor if self.leads_back else None,
        )

    @property
    def following(self) -> Position | None:
        """Where the next page begins; `None` after the last."""
        if self.page.cursor is None:
            return None

        return Position(
            corporation_id=self.start.corporation_id,
            cursor=self.page.cursor,
            customers=self.start.customers + len(self.page),
        )

    @property
    def _is_landmark(self) -> bool:
        """Whether there is anything about it that another run has to know."""
        return self.leads_back or bool(self.page.customers or self.start.yielded)


class PageReader:
    """Reads one list, page by page. A step that failed or was cancelled can be taken again."""

    def __init__(self, fetch: Fetch, query: CustomersQuery, start: Position | None) -> None:
        """Go on from *start*; `None` is the end of the list."""
        self.query = query
        self.position = start
        self._fetch = fetch
        self._asked: set[bytes | None] = {_digest(start.circle)} if start and start.circle else set()

    async def step(self) -> Portion | None:
        """
        Fetch the next page; return `None` after the last.

        Raises:
            CursorLoopError: The server sends the walk round in a circle.
            ListChangedError: The page in which an earlier run stopped holds nothing any more of what that run yielded.
            CustomersError: The page could not be had.
        """
        while (start := self.position) is not None:
            page = await self._fetch_new(start.cursor)
            if start.yielded and not page and page.cursor is not None:
                # There is nothing to compare. Servers that filter send such pages, and not always in the same places.
                self.position = start.model_copy(update={"cursor": page.cursor})
                continue
            leads_back = page.cursor is not None and _digest(page.cursor) in self._asked
            portion = Portion(_without_yielded(page, start), start, leads_back)
            self.position = portion.following
            was_yielded = start.yielded and not portion.page
            if not was_yielded or self.position is None:
                return portion

        return None

    async def _fetch_new(self, cursor: str | None) -> CustomerPage:
        asked = None if cursor is None else _digest(cursor)
        if asked in self._asked:
            raise CursorLoopError(
                f"the server gave a cursor a second time, within {len(self._asked)} pages; to follow it would never end",
                corporation_id=self.query.corporation_id,
                cursor=cursor,
            )

        try:
            page = await self._fetch(self.query, cursor)
        except StopAsyncIteration as exc:
            # From a hook or a token provider. Here it would be the end of the list, as in a generator it is not (PEP 479).
            raise RuntimeError("StopAsyncIteration was raised while a page was fetched") from exc

        self._asked.add(asked)
        return page


def _without_yielded(page: CustomerPage, start: Position) -> CustomerPage:
    """
    Leave out what an earlier run has yielded of *page*.

    It is known by its id, each as often as it was yielded, so that it does not matter if customers were inserted or removed
    in between. If nothing of it is there any more, nobody can tell what else has moved to where it is never read.
    """
    if not start.yielded:
        return page

    left_out = Counter(start.yielded)
    rest: list[Customer] = []
    for customer in page:
        if left_out[customer.id]:
            left_out[customer.id] -= 1
        else:
            rest.append(customer)
    if len(rest) == len(page):
        raise ListChangedError(
            f"the page in which the reading stopped no longer holds any of the {len(start.yielded)} customers already "
            "yielded from it, so others may have been missed; read the corporation from its beginning: Checkpoint.without()",
            corporation_id=start.corporation_id,
            cursor=start.cursor,
        )

    return replace(page, customers=tuple(rest))


def _digest(cursor: str) -> bytes:
    """Return what stands for *cursor* among very many: some servers write kilobytes into each."""
    return blake2b(cursor.encode(), digest_size=16).digest()
