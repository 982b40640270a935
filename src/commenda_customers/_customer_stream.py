"""The customers of many corporations as one stream: bounded, fair and resumable."""

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Literal, Self

import anyio
from anyio.lowlevel import checkpoint as let_others_run

from ._cancellation import ChildTasks, check_stack, is_cancellation
from ._event_loops import NotCopyable
from ._fan_out import FanOut
from ._iteration import RESUME_ADVICE, Iteration, ResumableIterator
from ._pages import Fetch, PageBuffer, PageReader
from .checkpoint import Checkpoint, CheckpointBuilder, corporation_key
from .errors import AuthenticationError, CustomersError, TokenError, chain
from .events import Event
from .models import Customer, CustomerPage, share_field_names
from .progress import CorporationProgress, CorporationState, StreamProgress
from .query import CustomersQuery, Selection

__all__ = ["CustomerStream"]

_MOST_AT_ONCE = 1000
"""Customers of a large page whose memory is reduced in one step. Other tasks run between two steps."""


class CustomerStream(NotCopyable):
    """
    The customers of many corporations; made by `AsyncCustomersAPI.stream`.

        async with api.stream(corporation_ids) as stream:
            async for customer in stream: ...   # or: async for page in stream.pages()

    Within a corporation customers come in the server's order; the stream alternates between corporations, page by page. A
    stream can be used only once. After you leave a loop, another loop resumes where it stopped.
    """

    _advice = RESUME_ADVICE

    def __init__(
        self,
        fetch: Fetch,
        selection: Selection,
        corporation_ids: Iterable[str] | AsyncIterable[str],
        emit: Callable[[Event], None],
        *,
        concurrency: int,
        errors: Literal["raise", "collect"],
        max_failures: int | None = None,
        resume: Checkpoint | None,
    ) -> None:
        builder = CheckpointBuilder(selection.fingerprint, resume)
        readers = _Readers(corporation_ids, fetch, selection, builder)
        self._fan_out = FanOut(readers, concurrency=concurrency, collect=errors == "collect")
        self._iteration = _StreamIteration(self._fan_out, builder, emit, max_failures)
        self._tasks: ChildTasks | None = None

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("a stream can be used only once; call api.stream() again")

        check_stack()
        self._tasks = ChildTasks()
        tasks = await self._tasks.__aenter__()
        tasks.start_soon(self._fan_out.run)
        self._iteration.is_open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None  # noqa: S101 - it was entered
        self._iteration.close()
        self._fan_out.cancel()
        try:
            # The task group is not told about the exception of the block: it would put it into a group.
            await self._tasks.__aexit__(None, None, None)
        except BaseException as cancellation:
            # A cancelled scope raises its cancellation again at the next await, so here it must not hide an exception of the
            # block. `asyncio.Task.cancel` raises it only once.
            is_raised_again = anyio.current_effective_deadline() == -math.inf
            if exc is None or not is_raised_again or not is_cancellation(cancellation):
                raise
        if exc is None:
            self._fan_out.raise_pending_failure()

    def __aiter__(self) -> ResumableIterator[Customer]:
        """
        Iterate over all customers.

        Raises:
            CustomersError: A corporation failed, and `errors` is `"raise"`; or more corporations than `max_failures`
                failed. Another stream resumes from the error's `checkpoint`.
            AuthenticationError: The server refused the token, whatever `errors` is: no other corporation can be read.
            TokenError: The token provider failed, whatever `errors` is.
            ValueError: The id of a corporation is given twice, or breaks a rule of the API page.
            TypeError: The id of a corporation is not a `str`.
        """
        return ResumableIterator(self._iteration.next_customer, self._iteration.checkpoint, self._iteration.take_ready)

    def pages(self) -> ResumableIterator[CustomerPage]:
        """
        Iterate over all pages, empty ones included. Raises the same errors as iterating over customers.

        The first page of a corporation that resumes in the middle of a page holds the rest of its customers only.
        """
        return ResumableIterator(self._iteration.next_page, self._iteration.checkpoint)

    @property
    def progress(self) -> StreamProgress:
        """What was yielded so far, in numbers. The object stays the same and always has the latest numbers."""
        return self._iteration.progress

    @property
    def failures(self) -> Mapping[str, CustomersError]:
        """
        The corporations that failed, with their errors.

        An error that was collected has a checkpoint of its corporation alone, from which a list can resume. An error that
        was raised has the checkpoint of the stream.
        """
        return MappingProxyType(self._iteration.failures)

    def checkpoint(self) -> Checkpoint:
        """
        Return a record of exactly what was yielded, to pass as `resume=`.

        A corporation that failed is in it, and is tried again by the stream that resumes.
        """
        return self._iteration.checkpoint()


class _StreamIteration(Iteration):
    """Takes pages from the fan-out, counts what is yielded, and collects failures."""

    def __init__(
        self, fan_out: FanOut, builder: CheckpointBuilder, emit: Callable[[Event], None], max_failures: int | None
    ) -> None:
        super().__init__(builder, emit)
        self.is_open = False
        self._max_failures = math.inf if max_failures is None else max_failures
        self.failures: dict[str, CustomersError] = {}
        self._fan_out = fan_out
        self._is_waiting = False
        self._corporations: dict[str, CorporationProgress] = {}
        self._started: dict[str, CorporationProgress] = {}  # and not finished
        self.progress = StreamProgress(
            MappingProxyType(self._corporations),
            self._started,
            customers_before=builder.customers,
            invalid_before=builder.invalid_customers,
            finished_before=builder.finished,
        )

    def close(self) -> None:
        """Yield nothing more."""
        self._record()
        self._buffer = None
        self.is_open = False

    async def _fetch_buffer(self) -> PageBuffer:
        if not self.is_open:
            raise RuntimeError("a stream can be used only inside its block: async with api.stream(...) as stream")
        if self._is_waiting:
            raise RuntimeError("this stream is already waiting for its next page in another task")

        self._is_waiting = True
        try:
            while (delivery := await self._fan_out.take()) is not None:
                self._record()
                if isinstance(delivery.outcome, PageBuffer):
                    return self._begin(delivery.outcome)
                self._fail(delivery.corporation_id, delivery.outcome)
                if isinstance(delivery.outcome, AuthenticationError | TokenError) or len(self.failures) > self._max_failures:
                    self._fan_out.fail(delivery.outcome)
                    continue  # to where it is raised
                for link in chain(delivery.outcome):
                    link.__traceback__ = None  # its frames hold the response, of up to max_response_bytes
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
        """Make a page the current one."""
        self._buffer = buffer
        progress = self._progress_of(buffer.start.corporation_id)
        self._counters = (self.progress, progress)
        for counter in self._counters:
            counter.pages += 1
        if buffer.page.total_customers is not None:
            progress.total_customers = buffer.page.total_customers
        self._count(0)  # an empty last page ends its corporation
        return buffer

    def _count(self, customers: int, *, invalid: int = 0) -> None:
        """Count rows of the present page that are about to be yielded or reported."""
        buffer = self._buffer
        if buffer is None:
            return  # an empty last page, which was counted when it came

        for counter in self._counters:
            counter.customers += customers
            counter.invalid += invalid
        if buffer.is_used_up and buffer.page.cursor is None:
            self._buffer = None
            self._builder.finish(buffer.end)
            self._end(buffer.start.corporation_id, CorporationState.FINISHED)
            self.progress.finished += 1

    def _fail(self, corporation_id: str, error: CustomersError) -> None:
        # Not the checkpoint of all corporations: one for each failure would take too much memory.
        error.checkpoint = self._builder.checkpoint_of(corporation_id)
        self.failures[corporation_id] = error
        self._progress_of(corporation_id)
        self._end(corporation_id, CorporationState.FAILED)
        self.progress.failed += 1

    def _progress_of(self, corporation_id: str) -> CorporationProgress:
        progress = self._corporations.get(corporation_id)
        if progress is None:
            start = self._builder.position_of(corporation_id)
            progress = self._corporations[corporation_id] = CorporationProgress(
                customers_before=start.customers, invalid_before=start.invalid_customers
            )
            self._started[corporation_id] = progress
        return progress

    def _end(self, corporation_id: str, state: CorporationState) -> None:
        self._corporations[corporation_id].state = state
        del self._started[corporation_id]


class _Readers:
    """Produces a reader for each corporation that is not finished, at the position where an earlier run stopped."""

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
                raise ValueError(f"corporation_ids: {corporation_id!r} is given twice")
            self._seen.add(key)
            start = self._builder.start(corporation_id)
            if start is not None:
                return PageReader(self._fetch_small, query, start)

        raise StopAsyncIteration

    async def _fetch_small(self, query: CustomersQuery, cursor: str | None) -> CustomerPage:
        page = await self._fetch(query, cursor)
        for first in range(0, len(page), _MOST_AT_ONCE):
            if first:
                await let_others_run()
            share_field_names(page.customers[first : first + _MOST_AT_ONCE])
        return page

    async def aclose(self) -> None:
        await _close(self._ids)


def _one_by_one(corporation_ids: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    return aiter(corporation_ids) if isinstance(corporation_ids, AsyncIterable) else _each(corporation_ids)


async def _each(corporation_ids: Iterable[str]) -> AsyncGenerator[str, None]:
    for corporation_id in corporation_ids:
        await let_others_run()  # skipping very many finished corporations awaits nothing else
        yield corporation_id


async def _close(ids: AsyncIterator[str]) -> None:
    if isinstance(ids, AsyncGenerator):
        await ids.aclose()
