"""Many corporations as one stream: bounded, fair, and to be continued from whatever was yielded."""

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Literal, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint as let_others_run

from ._fan_out import FanOut
from ._pages import Fetch, PageBuffer, PageReader
from ._reading import ResumableIterator
from .checkpoint import Checkpoint, CheckpointBuilder, corporation_key
from .errors import CustomersError, chain
from .models import Customer, CustomerPage
from .progress import CorporationProgress, CorporationState, StreamProgress
from .query import Selection

__all__ = ["CustomerStream"]


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
        builder = CheckpointBuilder(selection.fingerprint, resume)
        readers = _Readers(corporation_ids, fetch, selection, builder)
        self._fan_out = FanOut(readers, concurrency=concurrency, collect=errors == "collect")
        self._consumer = _Consumer(self._fan_out, builder)
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("a stream can be used once; call api.stream() again")

        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._fan_out.run)
        self._consumer.is_open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None  # noqa: S101 - it was entered
        self._consumer.is_open = False
        self._fan_out.cancel()
        cancelled = anyio.get_cancelled_exc_class()
        try:
            # It is not told of the exception of the block: it would put it into a group.
            await self._tasks.__aexit__(None, None, None)
        except cancelled:
            # An exception of the block is not to be lost behind the cancellation of a scope, which comes again. That of
            # `asyncio.Task.cancel` comes once.
            if exc is None or isinstance(exc, cancelled) or anyio.current_effective_deadline() != -math.inf:
                raise
        if exc is None:
            self._fan_out.raise_mistake()

    def __aiter__(self) -> ResumableIterator[Customer]:
        """
        Iterate over all customers.

        Raises:
            CustomersError: A corporation's list could not be read on, unless such errors are collected. With the error's
                `checkpoint` another stream continues.
            ValueError: A corporation's id comes a second time, or breaks a rule of the API page.
            TypeError: A corporation's id is no `str`.
        """
        return ResumableIterator(self._consumer.next_customer, self._consumer.checkpoint)

    def pages(self) -> ResumableIterator[CustomerPage]:
        """
        Iterate over all pages, empty ones included. Raises what iterating over customers raises.

        The first page of a corporation that is continued in the middle of a page has the rest of its customers only.
        """
        return ResumableIterator(self._consumer.next_page, self._consumer.checkpoint)

    @property
    def progress(self) -> StreamProgress:
        """How far it has come. The object stays the same, and always has the latest numbers."""
        return self._consumer.progress

    @property
    def failures(self) -> Mapping[str, CustomersError]:
        """
        The corporations that failed, with the reason.

        Each error that was collected has a checkpoint of its corporation alone, for a list to go on; one that was raised has
        that of the stream.
        """
        return MappingProxyType(self._consumer.failures)

    def checkpoint(self) -> Checkpoint:
        """
        Return a record of exactly what was yielded, to pass as `resume=`.

        A corporation that failed is in it with where it failed, and is tried again by the stream that continues.
        """
        return self._consumer.checkpoint()


class _Consumer:
    """What was yielded of a stream, and what is next."""

    def __init__(self, fan_out: FanOut, builder: CheckpointBuilder) -> None:
        self.is_open = False
        self.failures: dict[str, CustomersError] = {}
        self._fan_out = fan_out
        self._builder = builder
        self._is_waiting = False
        self._buffer: PageBuffer | None = None
        self._corporations: dict[str, CorporationProgress] = {}
        self._reading: dict[str, CorporationProgress] = {}
        self.progress = StreamProgress(MappingProxyType(self._corporations), self._reading)

    async def next_customer(self) -> Customer:
        """Return the next customer; raise `StopAsyncIteration` after the last."""
        self._check_open()
        buffer = self._buffer
        while buffer is None or (customer := buffer.take_one()) is None:
            buffer = await self._next_buffer()

        self._count(buffer, 1)
        return customer

    async def next_page(self) -> CustomerPage:
        """Return the next page, or what is left of the present one; raise `StopAsyncIteration` after the last."""
        self._check_open()
        buffer = self._buffer
        if buffer is None or buffer.is_used_up:
            buffer = await self._next_buffer()

        page = buffer.take_rest()
        self._count(buffer, len(page))
        return page

    def checkpoint(self) -> Checkpoint:
        """Return a record of what was yielded."""
        self._record()
        return self._builder.checkpoint()

    def _check_open(self) -> None:
        if not self.is_open:
            raise RuntimeError("a stream is read inside of its block: async with api.stream(...) as stream")

    async def _next_buffer(self) -> PageBuffer:
        if self._is_waiting:
            raise RuntimeError("this stream is already waiting for its next page in another task")

        self._is_waiting = True
        try:
            while (delivery := await self._fan_out.take()) is not None:
                self._record()
                if isinstance(delivery.outcome, PageBuffer):
                    return self._begin(delivery.outcome)
                self._fail(delivery.corporation_id, delivery.outcome)
                for link in chain(delivery.outcome):
                    link.__traceback__ = None  # its frames hold the answer, of up to max_response_bytes
        except CustomersError as error:
            self._record()
            failed = error.corporation_id
            if failed is not None and failed not in self.failures and self._builder.has_started(failed):
                self._fail(failed, error)
            raise
        finally:
            self._is_waiting = False

        raise StopAsyncIteration

    def _begin(self, buffer: PageBuffer) -> PageBuffer:
        """Go over to the next page."""
        self._buffer = buffer
        mine = self._progress_of(buffer.start.corporation_id)
        mine.pages += 1
        self.progress.pages += 1
        if buffer.page.total_customers is not None:
            mine.total_customers = buffer.page.total_customers
        self._count(buffer, 0)
        return buffer

    def _count(self, buffer: PageBuffer, customers: int) -> None:
        corporation_id = buffer.start.corporation_id
        self._corporations[corporation_id].customers += customers
        self.progress.customers += customers
        # An empty last page has already been counted, and ended its corporation, when it came.
        if self._buffer is buffer and buffer.is_used_up and buffer.page.cursor is None:
            self._buffer = None
            self._builder.record(corporation_id, None)
            self._end(corporation_id, CorporationState.FINISHED)
            self.progress.finished += 1

    def _record(self) -> None:
        """Bring the builder up to what was yielded of the present page."""
        if self._buffer is not None:
            self._builder.record(self._buffer.start.corporation_id, self._buffer.position)

    def _fail(self, corporation_id: str, error: CustomersError) -> None:
        # One of all corporations for each that failed would be too much to keep.
        error.checkpoint = self._builder.checkpoint_of(corporation_id)
        self.failures[corporation_id] = error
        self._progress_of(corporation_id)
        self._end(corporation_id, CorporationState.FAILED)
        self.progress.failed += 1

    def _progress_of(self, corporation_id: str) -> CorporationProgress:
        mine = self._corporations.get(corporation_id)
        if mine is None:
            before = self._builder.position_of(corporation_id).customers
            mine = self._corporations[corporation_id] = CorporationProgress(customers_before=before)
            self._reading[corporation_id] = mine
        return mine

    def _end(self, corporation_id: str, state: CorporationState) -> None:
        self._corporations[corporation_id].state = state
        del self._reading[corporation_id]


class _Readers:
    """The reader of each corporation that is not finished, to begin where the builder says."""

    def __init__(
        self,
        corporation_ids: Iterable[str] | AsyncIterable[str],
        fetch: Fetch,
        selection: Selection,
        builder: CheckpointBuilder,
    ) -> None:
        self._ids = _one_by_one(corporation_ids)
        self._fetch = fetch
        self._selection = selection
        self._builder = builder
        self._seen: set[str] = set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PageReader:
        async for corporation_id in self._ids:
            query = self._selection.of(corporation_id, name=f"corporation_ids[{len(self._seen)}]")
            key = corporation_key(corporation_id)
            if key in self._seen:
                raise ValueError(f"corporation_ids: {corporation_id!r} comes a second time")
            self._seen.add(key)
            start = self._builder.start(corporation_id)
            if start is not None:
                return PageReader(self._fetch, query, start)

        raise StopAsyncIteration

    async def aclose(self) -> None:
        await _close(self._ids)


def _one_by_one(corporation_ids: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    return aiter(corporation_ids) if isinstance(corporation_ids, AsyncIterable) else _each(corporation_ids)


async def _each(corporation_ids: Iterable[str]) -> AsyncGenerator[str, None]:
    for corporation_id in corporation_ids:
        await let_others_run()  # those that are finished are read without a pause
        yield corporation_id


async def _close(ids: AsyncIterator[str]) -> None:
    if isinstance(ids, AsyncGenerator):
        await ids.aclose()
