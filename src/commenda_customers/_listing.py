"""The list of one corporation, as something to iterate over or to await."""

from collections.abc import Generator
from typing import Any, TypeVar

from ._iteration import Walk
from ._paging import Fetch, PageReader, Portion
from .checkpoint import Checkpoint, Ledger, Position, check_resume, corporation_key, finished_keys
from .models import Customer, CustomerPage
from .query import CustomersQuery, check_cursor

__all__ = ["CustomerList"]

T = TypeVar("T")


class CustomerList:
    """
    The customers of one corporation: iterate over it, take it by `pages()`, or await its first page.

        async for customer in api.list("corp_123"): ...
        async for page in api.list("corp_123").pages(): ...
        page = await api.list("corp_123", limit=20)

    Nothing is requested before one of the three is used. Each use starts afresh, and may go on while another does.
    """

    def __init__(
        self, fetch: Fetch, query: CustomersQuery, *, cursor: str | None = None, resume: Checkpoint | None = None
    ) -> None:
        """
        Ask nothing yet.

        Raises:
            ValueError: There is a cursor as well as a checkpoint, or the checkpoint is of another list.
        """
        self._fetch = fetch
        self._query = query
        self._start = _start_of(query, cursor, resume)
        self._resume = resume

    def __repr__(self) -> str:
        return f"CustomerList({self._query!r}, {self._start!r})"

    def __aiter__(self) -> Walk[Customer]:
        """
        Iterate over all customers, in the server's order.

        Raises:
            CursorLoopError: The server sends the walk round in a circle. All customers up to there were yielded.
            CustomersError: A page could not be had. With its `checkpoint` another list continues.
        """
        return _Customers(*self._begin())

    def pages(self) -> Walk[CustomerPage]:
        """Iterate over all pages, empty ones included. Raises what iterating over customers raises."""
        return _Pages(*self._begin())

    def __await__(self) -> Generator[Any, Any, CustomerPage]:
        """
        Fetch the first page only: one request, or another one if a checkpoint says that all of that page was yielded. Of a
        list that it says is finished, there is only an empty page.

        Raises:
            CustomersError: The page could not be had.
        """
        return self._first_page().__await__()

    async def _first_page(self) -> CustomerPage:
        return await anext(self.pages(), CustomerPage(self._query.corporation_id, ()))

    def _begin(self) -> tuple[PageReader, Ledger]:
        # What a checkpoint says of other corporations goes on into the checkpoints of this list.
        ledger = Ledger(self._query.selection.fingerprint, self._resume)
        ledger.record(self._query.corporation_id, self._start)
        return PageReader(self._fetch, self._query, self._start), ledger


class _ListWalk(Walk[T]):
    """What walks over customers and over pages have in common: which part of the list was yielded."""

    def __init__(self, reader: PageReader, ledger: Ledger) -> None:
        super().__init__()
        self._reader = reader
        self._ledger = ledger
        self._portion: Portion | None = None

    def checkpoint(self) -> Checkpoint:
        if self._portion is not None:
            self._ledger.record(self._reader.query.corporation_id, self._portion.position)
        return self._ledger.checkpoint()

    async def _next_portion(self) -> Portion:
        portion = await self._reader.step()
        if portion is None:
            raise StopAsyncIteration

        self._portion = portion
        return portion


class _Pages(_ListWalk[CustomerPage]):
    async def _step(self) -> CustomerPage:
        return (await self._next_portion()).take_rest()


class _Customers(_ListWalk[Customer]):
    async def _step(self) -> Customer:
        while self._portion is None or (customer := self._portion.take_one()) is None:
            await self._next_portion()

        return customer


def _start_of(query: CustomersQuery, cursor: str | None, resume: Checkpoint | None) -> Position | None:
    """Return where a list begins; `None` if it was read to its end."""
    corporation_id = query.corporation_id
    if resume is None:
        return Position(corporation_id=corporation_id, cursor=check_cursor(cursor))
    if cursor is not None:
        raise ValueError("cursor: cannot be given together with resume, which has a cursor of its own")

    check_resume(resume, query.selection.fingerprint)
    for position in resume.positions:
        if position.corporation_id == corporation_id:
            return position
    if corporation_key(corporation_id) in finished_keys(resume):
        return None

    raise ValueError(f"resume: the checkpoint knows nothing of corporation {corporation_id!r}")
