"""The list of one corporation, as something to iterate over or to await."""

from collections.abc import Generator
from typing import Any

from ._pages import Fetch, PageBuffer, PageReader
from ._reading import ResumableIterator
from .checkpoint import Checkpoint, CheckpointBuilder, Position, check_resume
from .models import Customer, CustomerPage
from .query import CustomersQuery, check_cursor

__all__ = ["CustomerList"]


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
            ValueError: There is a cursor as well as a checkpoint, or the checkpoint is of a list with other filters.
        """
        self._fetch = fetch
        self._query = query
        self._start = _start_of(query, cursor, resume)
        self._resume = resume

    def __repr__(self) -> str:
        return f"CustomerList({self._query!r}, {self._start!r})"

    def __aiter__(self) -> ResumableIterator[Customer]:
        """
        Iterate over all customers, in the server's order.

        Raises:
            CursorLoopError: The server sends the walk round in a circle. All customers up to there were yielded.
            CustomersError: A page could not be had. With its `checkpoint` another list continues.
        """
        reading = self._begin()
        return ResumableIterator(reading.next_customer, reading.checkpoint)

    def pages(self) -> ResumableIterator[CustomerPage]:
        """Iterate over all pages, empty ones included. Raises what iterating over customers raises."""
        reading = self._begin()
        return ResumableIterator(reading.next_page, reading.checkpoint)

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

    def _begin(self) -> "_Reading":
        # What a checkpoint says of other corporations goes on into the checkpoints of this list.
        builder = CheckpointBuilder(self._query.selection.fingerprint, self._resume)
        builder.record(self._query.corporation_id, self._start)
        return _Reading(PageReader(self._fetch, self._query, self._start), builder)


class _Reading:
    """What was yielded of a list, and what is next."""

    def __init__(self, reader: PageReader, builder: CheckpointBuilder) -> None:
        self._reader = reader
        self._builder = builder
        self._buffer: PageBuffer | None = None

    async def next_customer(self) -> Customer:
        """Return the next customer; raise `StopAsyncIteration` after the last."""
        buffer = self._buffer
        while buffer is None or (customer := buffer.take_one()) is None:
            buffer = await self._next_buffer()

        return customer

    async def next_page(self) -> CustomerPage:
        """Return the next page; raise `StopAsyncIteration` after the last."""
        return (await self._next_buffer()).take_rest()

    def checkpoint(self) -> Checkpoint:
        """Return a record of what was yielded."""
        if self._buffer is not None:
            self._builder.record(self._reader.query.corporation_id, self._buffer.position)
        return self._builder.checkpoint()

    async def _next_buffer(self) -> PageBuffer:
        buffer = await self._reader.step()
        if buffer is None:
            raise StopAsyncIteration

        self._buffer = buffer
        return buffer


def _start_of(query: CustomersQuery, cursor: str | None, resume: Checkpoint | None) -> Position | None:
    """Return where a list begins; `None` if it was read to its end."""
    if resume is None:
        return Position(corporation_id=query.corporation_id, cursor=check_cursor(cursor))
    if cursor is not None:
        raise ValueError("cursor: cannot be given together with resume, which has a cursor of its own")

    check_resume(resume, query.selection.fingerprint)
    return CheckpointBuilder(query.selection.fingerprint, resume).start(query.corporation_id)
