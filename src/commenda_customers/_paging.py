"""
The walk from cursor to cursor through the list of one corporation.

It knows nothing of HTTP: it is given a function that fetches the page at a cursor.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, TypeVar

from ._iteration import Walk
from .checkpoint import Checkpoint, Position, check_resume, corporation_key
from .errors import CursorLoopError, ListChangedError
from .models import Customer, CustomerPage
from .query import CustomersQuery, check_cursor

__all__ = ["CustomerList"]

Fetch = Callable[[CustomersQuery, str | None], Awaitable[CustomerPage]]
"""Returns the page of a query at a cursor; `None` is the first page."""

T = TypeVar("T")


@dataclass(slots=True)
class Portion:
    """
    A page on its way to the user.

    Attributes:
        page: What of it is to be yielded: without what an earlier run has yielded.
        start: The position at which it was fetched.
        taken: How many of its customers were yielded.
    """

    page: CustomerPage
    start: Position
    taken: int = 0

    def next(self) -> Customer | None:
        """Take a customer; `None` after the last."""
        customers = self.page.customers
        if self.taken >= len(customers):
            return None

        self.taken += 1
        return customers[self.taken - 1]

    def rest(self) -> CustomerPage:
        """Take what was not taken yet."""
        page = replace(self.page, customers=self.page.customers[self.taken :]) if self.taken else self.page
        self.taken = len(self.page)
        return page

    @property
    def position(self) -> Position | None:
        """Where to go on after what was taken; `None` at the end of the list."""
        taken = self.page.customers[: self.taken]
        if len(taken) == len(self.page):
            return self.following

        yielded = (*self.start.yielded, *(customer.id for customer in taken))
        return self.start.model_copy(update={"yielded": yielded, "customers": self.start.customers + len(taken)})

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


class PageWalk:
    """The walk through one list, page by page. A step that failed or was cancelled can be taken again."""

    def __init__(self, fetch: Fetch, query: CustomersQuery, start: Position | None) -> None:
        """Go on from *start*; `None` is the end of the list."""
        self.query = query
        self.position = start
        self._fetch = fetch
        self._asked: set[bytes | None] = set()

    async def step(self) -> Portion:
        """
        Fetch the next page; raise `StopAsyncIteration` after the last.

        Raises:
            CursorLoopError: The server sends the walk round in a circle.
            ListChangedError: The page in which an earlier run stopped holds nothing any more of what that run yielded.
            CustomersError: The page could not be had.
        """
        start = self.position
        if start is None:
            raise StopAsyncIteration
        asked = None if start.cursor is None else _digest(start.cursor)
        if asked in self._asked:
            raise CursorLoopError(
                f"the server gave a cursor a second time, within {len(self._asked)} pages; to follow it would never end",
                corporation_id=self.query.corporation_id,
                cursor=start.cursor,
            )

        try:
            page = await self._fetch(self.query, start.cursor)
        except StopAsyncIteration as exc:
            # From a hook or a token provider. Here it would be the end of the list, as in a generator it is not (PEP 479).
            raise RuntimeError("StopAsyncIteration was raised while a page was fetched") from exc

        portion = Portion(_without_yielded(page, start), start)
        self._asked.add(asked)
        self.position = portion.following
        return portion


class CustomerList:
    """
    The customers of one corporation: iterate over it, take it by `pages()`, or await its first page.

        async for customer in api.list("corp_123"): ...
        async for page in api.list("corp_123").pages(): ...
        page = await api.list("corp_123", limit=20)

    Nothing is requested before one of the three is used. Each use starts afresh, and may go on while another does.
    """

    def __init__(self, fetch: Fetch, query: CustomersQuery, start: Position | None) -> None:
        self._fetch = fetch
        self._query = query
        self._start = start

    def __repr__(self) -> str:
        return f"CustomerList({self._query!r}, {self._start!r})"

    def __aiter__(self) -> Walk[Customer]:
        """
        Iterate over all customers, in the server's order.

        Raises:
            CursorLoopError: The server sends the walk round in a circle. All customers up to there were yielded.
            CustomersError: A page could not be had. With its `checkpoint` another list continues.
        """
        return _Customers(self._walk())

    def pages(self) -> Walk[CustomerPage]:
        """Iterate over all pages, empty ones included. Raises what iterating over customers raises."""
        return _Pages(self._walk())

    def __await__(self) -> Generator[Any, Any, CustomerPage]:
        """
        Fetch the first page only: one request. Of a list that a checkpoint says is finished, there is only an empty page.

        Raises:
            CustomersError: The page could not be had.
        """
        return self._first_page().__await__()

    async def _first_page(self) -> CustomerPage:
        return await anext(self.pages(), CustomerPage(self._query.corporation_id, ()))

    def _walk(self) -> PageWalk:
        return PageWalk(self._fetch, self._query, self._start)


class _ListWalk(Walk[T]):
    """What walks over customers and over pages have in common: which part of the list was yielded."""

    def __init__(self, walk: PageWalk) -> None:
        super().__init__()
        self._walk = walk
        self._start = walk.position
        self._portion: Portion | None = None

    def checkpoint(self) -> Checkpoint:
        query = self._walk.query
        position = self._portion.position if self._portion else self._start
        if position is None:
            return Checkpoint(query=query.selection.fingerprint, finished=corporation_key(query.corporation_id))

        return Checkpoint(query=query.selection.fingerprint, positions=(position,))


class _Pages(_ListWalk[CustomerPage]):
    async def step(self) -> CustomerPage:
        self._portion = await self._walk.step()
        return self._portion.rest()


class _Customers(_ListWalk[Customer]):
    async def step(self) -> Customer:
        while self._portion is None or (customer := self._portion.next()) is None:
            self._portion = await self._walk.step()

        return customer


def start_of(query: CustomersQuery, cursor: str | None, resume: Checkpoint | None) -> Position | None:
    """
    Return where a list begins; `None` if it was read to its end.

    Raises:
        ValueError: There is a cursor as well as a checkpoint, or the checkpoint is of another list.
    """
    corporation_id = query.corporation_id
    if resume is None:
        return Position(corporation_id=corporation_id, cursor=check_cursor(cursor))
    if cursor is not None:
        raise ValueError("cursor: cannot be given together with resume, which has a cursor of its own")

    check_resume(resume, query.selection.fingerprint)
    for position in resume.positions:
        if position.corporation_id == corporation_id:
            return position
    if corporation_key(corporation_id) in resume.finished_keys():
        return None

    raise ValueError(f"resume: the checkpoint knows nothing of corporation {corporation_id!r}")


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
            f"the page in which the reading stopped holds none of the {len(start.yielded)} customers that it had yielded of "
            "it, so that others may have been missed; read the corporation from its beginning, as with Checkpoint.without()",
            corporation_id=start.corporation_id,
            cursor=start.cursor,
        )

    return replace(page, customers=tuple(rest))


def _digest(cursor: str) -> bytes:
    """Return what stands for *cursor* among very many: some servers write kilobytes into each."""
    return blake2b(cursor.encode(), digest_size=16).digest()
