"""
`export`: streams pages into a sink, and commits the checkpoint with the data.

Theory of operation. A commit saves pages together with `stream.checkpoint()`, which says exactly what these pages hold. So
whatever happens, the next call resumes after the last commit. The output is complete when each corporation was read to its
end.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any, Literal, Unpack

import anyio

from .._checks import check_not_async, check_positive, check_type
from .._customer_stream import CustomerStream
from ..checkpoint import Checkpoint, totals
from ..client import AsyncCustomersAPI
from ..errors import CursorRejectedError, CustomersError, ListChangedError
from ..events import Event, InvalidCustomerReceived, PageFailed, PageFetched, RetryScheduled
from ..models import CustomerPage
from ..progress import StreamProgress
from ..query import CustomerFilters
from .base import START_AGAIN, OutputRefusedError, Sink, SupportsClose, SupportsFailures, SupportsRestart
from .summary import Summary

_in_use: set[int] = set()
"""The sinks of the exports that run. A sink cannot tell two of them apart."""

_LONGEST_LAST_CALL = 30.0
"""Seconds that the last commit of a cancelled export may take, and the close of the sink."""


async def export(
    api: AsyncCustomersAPI,
    corporation_ids: Iterable[str] | AsyncIterable[str],
    sink: Sink,
    *,
    concurrency: int = 16,
    commit_every: int = 32,
    on_progress: Callable[[StreamProgress], None] | None = None,
    errors: Literal["raise", "collect"] = "collect",
    max_failures: int | None = None,
    limit: int = 100,
    invalid_customers: Literal["raise", "collect"] = "collect",
    **filters: Unpack[CustomerFilters],
) -> Summary:
    """
    Write all customers of some corporations to a sink, each exactly once.

    If the sink holds an unfinished run with the same filters, the export resumes it: finished corporations are skipped, and
    the others go on after the last commit. If the server refuses a cursor of the earlier call, the corporation is read again
    from its beginning. If the export fails or is cancelled, it commits what it has written.

    Args:
        api: The client.
        corporation_ids: The corporations, each once.
        sink: Where the customers go, such as `SQLiteDatabase("customers.db")`.
        concurrency: Corporations that are read at the same time.
        commit_every: Pages between two commits. If the program is killed, the next call requests at most so many pages
            again, and two more for each corporation in flight: the one that was ready, and the one that it compares.
        on_progress: Is called after each page with the progress of the stream.
        errors: `"collect"`: if a corporation fails, the others continue, and `Summary.failures` has the error. `"raise"`:
            the first failure ends the export. An `AuthenticationError` or a `TokenError` always ends it.
        max_failures: With `errors="collect"`, the number of corporations that may fail. `None`: no limit.
        limit: Customers per page, 1 to 100.
        invalid_customers: `"collect"`: rows that are not valid customers go into a table or a file of their own. `"raise"`:
            they are a failure of their corporation.
        **filters: As for `AsyncCustomersAPI.list`. The calls that resume a run must have the same filters.

    Returns:
        What was written, and what is missing. If `is_complete` is false, call `export` again.

    Raises:
        ValueError: An argument breaks a rule. Nothing was opened. But an id is checked only when its turn comes.
        TypeError: An argument has a wrong type. Nothing was opened.
        OutputRefusedError: The output is in use, is complete, or belongs to another run. Nothing was changed.
        OutputError: The sink could not write.
        OSError: The sink could not write, for example because the disk is full.
        CustomersError: The export ended early: the token, or more failures than `max_failures`. Call it again to resume.
    """
    check_type("commit_every", commit_every, int)
    check_positive("commit_every", commit_every)
    check_type("sink", sink, Sink)
    if on_progress is not None:
        check_type("on_progress", on_progress, Callable)
        check_not_async("on_progress", on_progress)
    job = ExportJob(api, sink, commit_every=commit_every, on_progress=on_progress)
    return await job.run(
        corporation_ids,
        concurrency=concurrency,
        errors=errors,
        max_failures=max_failures,
        limit=limit,
        invalid_customers=invalid_customers,
        **filters,
    )


class ExportJob:
    """One call of `export`. `summary` says at any time what was committed."""

    def __init__(
        self,
        api: AsyncCustomersAPI,
        sink: Sink,
        *,
        commit_every: int,
        on_progress: Callable[[StreamProgress], None] | None,
    ) -> None:
        # Before the other hooks: one of them may raise.
        self._api = api.with_options(hooks=(self._note, *api.hooks))
        self._sink = sink
        self._commit_every = commit_every
        self._on_progress = on_progress
        self._stream: CustomerStream | None = None
        self._is_in_step = False  # whether the sink has all that the stream has yielded
        self._pages = self._retries = 0
        self._waited = 0.0
        self._began = 0.0
        self._first = self._committed = Checkpoint(query="")
        self._failures: dict[str, CustomersError] = {}
        self._shortfalls: dict[str, int] = {}
        self._restarted: tuple[str, ...] = ()
        self._dropped: tuple[str, ...] = ()
        self._is_complete = False

    async def run(
        self, corporation_ids: Iterable[str] | AsyncIterable[str], *, max_failures: int | None, **options: Any
    ) -> Summary:
        """Export; raises as `export` does. Takes the arguments of `AsyncCustomersAPI.stream`."""
        self._began = anyio.current_time()
        query = self._api.stream(corporation_ids, max_failures=max_failures, **options).checkpoint().query
        if id(self._sink) in _in_use:
            raise OutputRefusedError(f"{self._sink}: another export writes to it")

        _in_use.add(id(self._sink))
        try:
            await self._begin(query)
            await self._read(corporation_ids, max_failures=max_failures, **options)
            if rejected := await self._discard_rejected():
                for name in rejected:
                    del self._failures[name]
                self._restarted = tuple(rejected)
                left = None if max_failures is None else max_failures - len(self._failures)
                await self._read(rejected, max_failures=left, **options)
            await self._end()
        except BaseException as exc:
            await self._save_rest(exc)
            raise
        finally:
            try:
                if isinstance(self._sink, SupportsClose):
                    with anyio.move_on_after(_LONGEST_LAST_CALL, shield=True):
                        await self._sink.aclose()
            finally:
                _in_use.discard(id(self._sink))

        return self.summary()

    def summary(self) -> Summary:
        """Return what was committed so far, and what is missing."""
        return Summary(
            **totals(self._committed)._asdict(),
            customers_before=totals(self._first).customers,
            failures=dict(self._failures),
            shortfalls=dict(self._shortfalls),
            restarted=self._restarted,
            dropped=self._dropped,
            pages=self._pages,
            retries=self._retries,
            waited=self._waited,
            elapsed=anyio.current_time() - self._began,
            is_complete=self._is_complete,
        )

    def _note(self, event: Event) -> None:
        """Count what the progress of a stream does not say. A hook."""
        if isinstance(event, RetryScheduled):
            self._retries += 1
        elif isinstance(event, PageFetched | PageFailed):
            self._waited += event.waited
        elif isinstance(event, InvalidCustomerReceived):
            self._is_in_step = False  # the checkpoint has this row by now, but its page is yet to be written

    async def _begin(self, query: str) -> None:
        """Open the sink. The first commit comes before the first request: it shows whether the sink can write."""
        found = await self._sink.open()
        if found is not None and found.query != query:
            raise OutputRefusedError(f"{self._sink}: holds an unfinished run with other filters; {START_AGAIN}")
        self._first = found or Checkpoint(query=query)
        await self._commit(self._first)

    async def _read(self, corporation_ids: Iterable[str] | AsyncIterable[str], **options: Any) -> None:
        """Read what is missing of some corporations."""
        self._stream = stream = self._api.stream(corporation_ids, resume=self._committed, **options)
        self._is_in_step = True
        try:
            async with stream:
                async for page in stream.pages():
                    await self._write(page, stream)
            await self._commit(stream.checkpoint())
            self._stream = None
        finally:
            self._failures |= stream.failures
            progress = stream.progress.corporations
            self._shortfalls |= {name: each.shortfall for name, each in progress.items() if each.shortfall}

    async def _write(self, page: CustomerPage, stream: CustomerStream) -> None:
        self._is_in_step = False
        await self._sink.write(page)
        self._is_in_step = True
        self._pages += 1
        if self._pages % self._commit_every == 0:
            await self._commit(stream.checkpoint())
        if self._on_progress is not None:
            self._on_progress(stream.progress)

    async def _commit(self, checkpoint: Checkpoint) -> None:
        try:
            await self._sink.commit(checkpoint)
        except Exception:  # not a cancellation: after that, the sink can commit again
            self._is_in_step = False
            raise
        self._committed = checkpoint

    async def _discard_rejected(self) -> list[str]:
        """Discard the corporations that can never be resumed, and return them: a refused cursor stays refused."""
        for_ever = CursorRejectedError | ListChangedError
        rejected = [name for name, error in self._failures.items() if isinstance(error, for_ever)]
        return rejected if await self._discard(rejected) else []

    async def _discard(self, corporation_ids: Sequence[str]) -> bool:
        """Discard what was written of some corporations, and return whether the sink can do that."""
        if not isinstance(self._sink, SupportsRestart):
            return False

        checkpoint = self._committed
        for name in corporation_ids:
            await self._sink.restart(name)
            checkpoint = checkpoint.without(name)
        if corporation_ids:
            await self._commit(checkpoint)
        return True

    async def _end(self) -> None:
        """Finish the output if all corporations are complete."""
        left = [each for each in self._committed.positions if each.corporation_id not in self._failures]
        if await self._discard([each.corporation_id for each in left]):
            self._dropped = tuple(each.corporation_id for each in left if each.customers or each.invalid_customers)
        if not self._failures:
            await self._sink.finish()
            self._is_complete = True
        elif isinstance(self._sink, SupportsFailures):
            await self._sink.end_with_failures(self._failures)

    async def _save_rest(self, cause: BaseException) -> None:
        """Commit what came after the last commit, although the export fails or is cancelled."""
        if self._stream is None or not self._is_in_step:
            return

        try:
            with anyio.move_on_after(_LONGEST_LAST_CALL, shield=True):
                await self._commit(self._stream.checkpoint())
                await self._discard_rejected()  # otherwise the next call would fail at the same cursor
        except Exception as exc:  # noqa: BLE001 - the first exception is the one to raise
            cause.add_note(f"the last pages could not be saved: {exc}")
