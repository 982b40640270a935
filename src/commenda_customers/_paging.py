"""
The walk from cursor to cursor through the list of one corporation.

It knows nothing of HTTP: it is given a function that fetches the page at a cursor.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from hashlib import blake2b
from types import TracebackType
from typing import Any, TypeVar

from .errors import CursorLoopError
from .models import Customer, CustomerPage
from .query import CustomersQuery

__all__ = ["CustomerList"]

Fetch = Callable[[CustomersQuery, str | None], Awaitable[CustomerPage]]
"""Returns the page of a query at a cursor; `None` is the first page."""

T = TypeVar("T")


class CustomerList:
    """
    The customers of one corporation: iterate over it, take it by `pages()`, or await its first page.

        async for customer in api.list("corp_123"): ...
        async for page in api.list("corp_123").pages(): ...
        page = await api.list("corp_123", limit=20)

    Nothing is requested before one of the three is used. Each use starts afresh, and may go on while another does.
    """

    def __init__(self, fetch: Fetch, query: CustomersQuery, cursor: str | None) -> None:
        self._fetch = fetch
        self._query = query
        self._cursor = cursor

    def __repr__(self) -> str:
        return f"CustomerList({self._query!r}, cursor={self._cursor!r})"

    def __aiter__(self) -> AsyncGenerator[Customer, None]:
        """
        Iterate over all customers, in the server's order.

        Raises:
            CursorLoopError: The server sends the walk round in a circle. All customers up to there were yielded.
            CustomersError: A page could not be had. Its `cursor` is where to go on.
        """
        return _Customers(self.pages())

    def pages(self) -> AsyncGenerator[CustomerPage, None]:
        """Iterate over all pages, empty ones included. Raises what iterating over customers raises."""
        return _Pages(self._fetch, self._query, self._cursor)

    def __await__(self) -> Generator[Any, Any, CustomerPage]:
        """
        Fetch the first page only: one request.

        Raises:
            CustomersError: The page could not be had.
        """
        return self._fetch(self._query, self._cursor).__await__()


class _Walk(AsyncGenerator[T, None]):
    """
    An async generator, written out as a class.

    A generator function that is left by `break` waits for the garbage collector, and trio warns of each. One that was cut
    by a timeout is at its end, as if the list were. This one holds nothing between two steps that would have to be closed,
    and a step that failed or was cancelled can be taken again.
    """

    def __init__(self) -> None:
        self._is_running = False
        self._is_closed = False

    @abstractmethod
    async def step(self) -> T:
        """Return the next item; raise `StopAsyncIteration` after the last."""

    async def asend(self, value: None, /) -> T:  # noqa: ARG002 - part of the abstract class's signature
        if self._is_running:
            raise RuntimeError("this iteration is already waiting for its next item in another task")
        if self._is_closed:
            raise StopAsyncIteration

        self._is_running = True
        try:
            return await self.step()
        finally:
            self._is_running = False

    # The signature is that of the abstract class, whose method raises what it is given.
    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> T:
        self._is_closed = True
        return await super().athrow(typ, val, tb)  # type: ignore[arg-type]


class _Pages(_Walk[CustomerPage]):
    def __init__(self, fetch: Fetch, query: CustomersQuery, cursor: str | None) -> None:
        super().__init__()
        self._fetch = fetch
        self._query = query
        self._cursor = cursor
        self._asked: set[bytes | None] = set()
        self._was_last = False

    async def step(self) -> CustomerPage:
        if self._was_last:
            raise StopAsyncIteration
        asked = None if self._cursor is None else _digest(self._cursor)
        if asked in self._asked:
            raise CursorLoopError(
                f"the server gave a cursor a second time, within {len(self._asked)} pages; to follow it would never end",
                corporation_id=self._query.corporation_id,
                cursor=self._cursor,
            )

        try:
            page = await self._fetch(self._query, self._cursor)
        except StopAsyncIteration as exc:
            # From a hook or a token provider. Here it would be the end of the list, as in a generator it is not (PEP 479).
            raise RuntimeError("StopAsyncIteration was raised while a page was fetched") from exc

        self._asked.add(asked)
        self._cursor = page.cursor
        self._was_last = page.cursor is None
        return page


def _digest(cursor: str) -> bytes:
    """Return what stands for *cursor* among very many: some servers write kilobytes into each."""
    return blake2b(cursor.encode(), digest_size=16).digest()


class _Customers(_Walk[Customer]):
    def __init__(self, pages: AsyncGenerator[CustomerPage, None]) -> None:
        super().__init__()
        self._pages = pages
        self._rows: Iterator[Customer] = iter(())

    async def step(self) -> Customer:
        while (customer := next(self._rows, None)) is None:
            self._rows = iter(await anext(self._pages))

        return customer
