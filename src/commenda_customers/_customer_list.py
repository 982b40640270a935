"""The customers of one corporation, to iterate over or to await."""

from collections.abc import Callable, Generator
from typing import Any

from ._event_loops import NotCopyable
from ._iteration import RESUME_ADVICE, Iteration, ResumableIterator
from ._pages import Fetch, PageBuffer, PageReader
from .checkpoint import Checkpoint, CheckpointBuilder, Position, check_resume
from .events import Event
from .models import Customer, CustomerPage
from .query import CustomersQuery, check_cursor

__all__ = ["CustomerList"]


class CustomerList(NotCopyable):
    """
    The customers of one corporation: iterate over it, iterate over its `pages()`, or await its first page.

        async for customer in api.list("corp_123"): ...
        async for page in api.list("corp_123").pages(): ...
        page = await api.list("corp_123", limit=20)

    Nothing is requested before one of the three is used. Each use starts from the beginning. Several may run at once.
    """

    _advice = RESUME_ADVICE

    def __init__(
        self,
        fetch: Fetch,
        query: CustomersQuery,
        emit: Callable[[Event], None],
        *,
        cursor: str | None = None,
        resume: Checkpoint | None = None,
    ) -> None:
        """
        Nothing is requested before it is used.

        Raises:
            ValueError: *cursor* and *resume* are both given, or the checkpoint belongs to a list with other filters.
        """
        self._fetch = fetch
        self._query = query
        self._emit = emit
        self._start = _start_of(query, cursor, resume)
        self._resume = resume

    def __repr__(self) -> str:
        return f"CustomerList({self._query!r}, {self._start!r})"

    def __aiter__(self) -> ResumableIterator[Customer]:
        """
        Iterate over all customers, in the server's order.

        Raises:
            CursorLoopError: The server's cursors form a loop. All customers before it were yielded.
            CustomersError: A page could not be fetched. Another list resumes from the error's `checkpoint`.
        """
        iteration = self._begin()
        return ResumableIterator(iteration.next_customer, iteration.checkpoint, iteration.take_ready)

    def pages(self) -> ResumableIterator[CustomerPage]:
        """Iterate over all pages, empty ones included. Raises the same errors as iterating over customers."""
        iteration = self._begin()
        return ResumableIterator(iteration.next_page, iteration.checkpoint)

    def __await__(self) -> Generator[Any, Any, CustomerPage]:
        """
        Fetch the first page only, with one request.

        If the list resumes from a checkpoint and all of that page was already yielded, the next page is fetched. If the
        checkpoint says that the list is finished, the page is empty.

        Raises:
            CustomersError: The page could not be fetched.
        """
        return self._first_page().__await__()

    async def _first_page(self) -> CustomerPage:
        return await anext(self.pages(), CustomerPage(self._query.corporation_id, ()))

    def _begin(self) -> "_ListIteration":
        # A checkpoint of this list also keeps what the checkpoint in `resume` says about other corporations.
        builder = CheckpointBuilder(self._query.selection.fingerprint, self._resume)
        if self._start is not None:
            builder.record(self._start)
        return _ListIteration(PageReader(self._fetch, self._query, self._start), builder, self._emit)


class _ListIteration(Iteration):
    def __init__(self, reader: PageReader, builder: CheckpointBuilder, emit: Callable[[Event], None]) -> None:
        super().__init__(builder, emit)
        self._reader = reader

    async def _fetch_buffer(self) -> PageBuffer:
        buffer = await self._reader.step()
        if buffer is None:
            raise StopAsyncIteration

        self._buffer = buffer
        return buffer

    def _count(self, customers: int, *, invalid: int = 0) -> None:
        """A list has no progress to keep."""


def _start_of(query: CustomersQuery, cursor: str | None, resume: Checkpoint | None) -> Position | None:
    """Return where a list begins; `None` if an earlier run has finished it."""
    if resume is None:
        return Position(corporation_id=query.corporation_id, cursor=check_cursor(cursor))
    if cursor is not None:
        raise ValueError("cursor: cannot be combined with resume, which has a cursor of its own")

    check_resume(resume, query.selection.fingerprint)
    return CheckpointBuilder(query.selection.fingerprint, resume).start(query.corporation_id)
