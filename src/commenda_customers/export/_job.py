"""
`export`: streams pages into a sink, and commits the checkpoint with the data.

Theory of operation. A commit saves pages together with `stream.checkpoint()`, the exact position after these pages. So the
next call always resumes after the last commit. The output is complete when every corporation was read to its end.
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
"""Timeout in seconds for the last commit of a cancelled export, and for each close of a sink."""


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

    If the sink holds an unfinished run with the same filters, the export resumes it. It skips finished corporations, and
    resumes the others after the last commit. If the server refuses a cursor, or the list has changed too much to resume,
    the export discards the corporation, and reads it again from the beginning. If the export fails or is cancelled, it
    commits all pages that it has written.

    Args:
        api: The client.
        corporation_ids: The corporations. Each id may appear only once.
        sink: The output, such as `SQLiteDatabase("customers.db")`.
        concurrency: Number of corporations to read at the same time.
        commit_every: Pages between two commits. After a kill, the next call requests at most this number of pages again,
            and two more for each corporation in flight: the page that was ready, and the page that it compares.
        on_progress: The export calls this after each page, with the progress of the stream.
        errors: `"collect"`: if a corporation fails, the others continue, and `Summary.failures` has the error. `"raise"`:
            the first failure ends the export. An `AuthenticationError` or a `TokenError` always ends it.
        max_failures: With `errors="collect"`, the number of corporations that may fail. One more failure ends the export.
            `None`: no limit.
        limit: Customers per page, 1 to 100.
        invalid_customers: `"collect"`: invalid rows go into a separate table or file. `"raise"`: an invalid row makes its
            corporation fail.
        **filters: As for `AsyncCustomersAPI.list`. A call that resumes a run must have the same filters.

    Returns:
        The result, and what is missing. If `is_complete` is false, call `export` again.

    Raises:
        ValueError: An argument breaks a rule. Nothing was opened. Exception: the export checks an id only when
            its turn comes.
        TypeError: An argument has a wrong type. Nothing was opened.
        OutputRefusedError: The output is in use, complete or damaged, or belongs to a run with other filters or another
            format. Nothing was changed.
        OutputError: The sink could not write.
        OSError: The sink could not write, for example because the disk is full.
        CustomersError: The export ended early, because of the token or of too many failures. Call it again to resume.
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
    """One call of `export`. Call `summary` at any time for the result so far."""

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
        self._is_in_step = False  # whether the sink has every page that the stream has yielded
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
        """Export. This takes the arguments of `AsyncCustomersAPI.stream`, and raises the errors of `export`."""
        self._began = anyio.current_time()
        query = self._api.stream(corporation_ids, max_failures=max_failures, **options).checkpoint().query
        if id(self._sink) in _in_use:
            raise OutputRefusedError(f"{self._sink}: another export is writing to it")

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
        """Return the result so far: what is committed, and what is missing."""
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
        """Open the sink, and commit before the first request. So a sink that cannot write fails early."""
        found = await self._sink.open()
        if found is not None and found.query != query:
            raise OutputRefusedError(f"{self._sink}: holds an unfinished run with other filters; {START_AGAIN}")
        self._first = found or Checkpoint(query=query)
        await self._commit(self._first)

    async def _read(self, corporation_ids: Iterable[str] | AsyncIterable[str], **options: Any) -> None:
        """Read the missing pages of some corporations."""
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
        except Exception:  # a cancellation is not caught: after it, the sink can commit again
            self._is_in_step = False
            raise
        self._committed = checkpoint

    async def _discard_rejected(self) -> list[str]:
        """Discard the corporations that can never resume, and return them. A refused cursor stays refused."""
        for_ever = CursorRejectedError | ListChangedError
        rejected = [name for name, error in self._failures.items() if isinstance(error, for_ever)]
        return rejected if await self._discard(rejected) else []

    async def _discard(self, corporation_ids: Sequence[str]) -> bool:
        """Discard the customers of some corporations. Return whether the sink supports this."""
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
        """Commit the pages since the last commit, although the export fails or is cancelled."""
        if self._stream is None or not self._is_in_step:
            return

        try:
            with anyio.move_on_after(_LONGEST_LAST_CALL, shield=True):
                await self._commit(self._stream.checkpoint())
                await self._discard_rejected()  # otherwise the next call would fail at the same cursor
        except Exception as exc:  # noqa: BLE001 - the caller raises the first exception
            cause.add_note(f"the last pages could not be saved: {exc}")
