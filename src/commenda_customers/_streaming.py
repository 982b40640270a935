"""Many corporations as one stream: bounded, fair, and to be continued from whatever was yielded."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Literal, Self, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint as let_others_run

from ._fan_out import FanOut
from ._iteration import Walk
from ._paging import Fetch, PageWalk, Portion
from .checkpoint import Checkpoint, Ledger, corporation_key
from .errors import CustomersError
from .models import Customer, CustomerPage
from .progress import CorporationProgress, CorporationState, StreamProgress
from .query import Selection

__all__ = ["CustomerStream"]

T = TypeVar("T")


class CustomerStream:
    """
    The customers of many corporations; made by `AsyncCustomersAPI.stream`.

        async with api.stream(corporation_ids) as stream:
            async for customer in stream: ...   # or: async for page in stream.pages()

    Within a corporation customers come in the server's order; corporations take turns by the page. It can be used once. A
    loop that was left can be followed by another, which goes on where the first was.
    """

    def __init__(
        self,
        fetch: Fetch,
        selection: Selection,
        corporation_ids: Iterable[str] | AsyncIterable[str],
        *,
        concurrency: int,
        errors: Literal["raise", "collect"],
        resume: Checkpoint | None,
    ) -> None:
        self._ledger = Ledger(selection.fingerprint, resume)
        walks = _walks(_one_by_one(corporation_ids), fetch, selection, self._ledger)
        self._fan_out = FanOut(walks, concurrency=concurrency, collect=errors == "collect")
        self._tasks: TaskGroup | None = None
        self._is_open = False
        self._is_waiting = False
        self._portion: Portion | None = None
        self._current = CorporationProgress()
        self._failures: dict[str, CustomersError] = {}
        self._corporations: dict[str, CorporationProgress] = {}
        self._reading: dict[str, CorporationProgress] = {}
        self._progress = StreamProgress(MappingProxyType(self._corporations), self._reading)

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("a stream can be used once; call api.stream() again")

        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._fan_out.run)
        self._is_open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None  # noqa: S101 - it was entered
        self._is_open = False
        self._fan_out.cancel()
        # It is not told of the exception: it would put it into a group.
        await self._tasks.__aexit__(None, None, None)

    def __aiter__(self) -> Walk[Customer]:
        """
        Iterate over all customers.

        Raises:
            CustomersError: A corporation's list could not be read on, unless such errors are collected. With the error's
                `checkpoint` another stream continues.
            ValueError: A corporation's id comes a second time, or breaks a rule of the API page.
            TypeError: A corporation's id is no `str`.
        """
        return _StreamedCustomers(self)

    def pages(self) -> Walk[CustomerPage]:
        """
        Iterate over all pages, empty ones included. Raises what iterating over customers raises.

        The first page of a corporation that is continued in the middle of a page has the rest of its customers only.
        """
        return _StreamedPages(self)

    @property
    def progress(self) -> StreamProgress:
        """How far it has come. The object stays the same, and always has the latest numbers."""
        return self._progress

    @property
    def failures(self) -> Mapping[str, CustomersError]:
        """The corporations that failed, with the reason, if errors are collected."""
        return MappingProxyType(self._failures)

    def checkpoint(self) -> Checkpoint:
        """
        Return a record of exactly what was yielded, to pass as `resume=`.

        A corporation that failed is in it with where it failed, and is tried again by the stream that continues.
        """
        self._record()
        return self._ledger.checkpoint()

    async def next_customer(self) -> Customer:
        """Return the next customer; raise `StopAsyncIteration` after the last."""
        while self._portion is None or (customer := self._portion.next()) is None:
            self._begin(await self._take())

        self._count(1)
        return customer

    async def next_page(self) -> CustomerPage:
        """Return the next page, or what is left of the present one; raise `StopAsyncIteration` after the last."""
        page = self._portion.rest() if self._portion else None
        if not page:
            portion = await self._take()
            self._begin(portion)
            page = portion.rest()

        self._count(len(page))
        return page

    async def _take(self) -> Portion:
        if not self._is_open:
            raise RuntimeError("a stream is read inside of its block: async with api.stream(...) as stream")
        if self._is_waiting:
            raise RuntimeError("this stream is already waiting for its next page in another task")

        self._is_waiting = True
        try:
            while (delivery := await self._fan_out.take()) is not None:
                self._record()
                if isinstance(delivery.outcome, Portion):
                    return delivery.outcome
                self._fail(delivery.corporation_id, delivery.outcome)
        finally:
            self._is_waiting = False

        self._record()
        raise StopAsyncIteration

    def _begin(self, portion: Portion) -> None:
        """Go over to the next page."""
        start, total = portion.start, portion.page.total_customers
        self._portion = portion
        self._current = self._reading.setdefault(start.corporation_id, CorporationProgress(customers_before=start.customers))
        self._corporations[start.corporation_id] = self._current
        self._current.pages += 1
        self._progress.pages += 1
        if total is not None:
            self._current.total_customers = total

    def _count(self, customers: int) -> None:
        self._current.customers += customers
        self._progress.customers += customers

    def _record(self) -> None:
        """Bring the ledger up to what was yielded of the present page."""
        if self._portion is None:
            return

        corporation_id, position = self._portion.start.corporation_id, self._portion.position
        self._ledger.record(corporation_id, position)
        if position is None:
            self._portion = None
            self._reading.pop(corporation_id).state = CorporationState.FINISHED
            self._progress.finished += 1

    def _fail(self, corporation_id: str, error: CustomersError) -> None:
        error.checkpoint = self._ledger.checkpoint()
        self._failures[corporation_id] = error
        failed = self._reading.pop(corporation_id, CorporationProgress())
        failed.state = CorporationState.FAILED
        self._corporations[corporation_id] = failed
        self._progress.failed += 1


class _StreamWalk(Walk[T]):
    def __init__(self, stream: CustomerStream) -> None:
        super().__init__()
        self._stream = stream

    def checkpoint(self) -> Checkpoint:
        return self._stream.checkpoint()


class _StreamedCustomers(_StreamWalk[Customer]):
    async def step(self) -> Customer:
        return await self._stream.next_customer()


class _StreamedPages(_StreamWalk[CustomerPage]):
    async def step(self) -> CustomerPage:
        return await self._stream.next_page()


async def _walks(
    corporation_ids: AsyncIterator[str], fetch: Fetch, selection: Selection, ledger: Ledger
) -> AsyncGenerator[PageWalk, None]:
    """Yield the walk of each corporation that is not finished, begun where the ledger says."""
    seen: set[str] = set()
    try:
        async for corporation_id in corporation_ids:
            query = selection.of(corporation_id)
            key = corporation_key(corporation_id)
            if key in seen:
                raise ValueError(f"corporation_ids: {corporation_id!r} comes a second time")
            seen.add(key)
            start = ledger.start_of(corporation_id)
            if start is not None:
                yield PageWalk(fetch, query, start)
    finally:
        if isinstance(corporation_ids, AsyncGenerator):
            await corporation_ids.aclose()


def _one_by_one(corporation_ids: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    return aiter(corporation_ids) if isinstance(corporation_ids, AsyncIterable) else _each(corporation_ids)


async def _each(corporation_ids: Iterable[str]) -> AsyncGenerator[str, None]:
    for corporation_id in corporation_ids:
        await let_others_run()
        yield corporation_id
