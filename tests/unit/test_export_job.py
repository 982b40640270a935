"""How an export uses a sink: its commits, the last commit when it is stopped, and corporations that it reads again."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from commenda_customers import (
    AuthenticationError,
    Checkpoint,
    CursorLoopError,
    CursorRejectedError,
    CustomerPage,
    CustomersError,
    Event,
    InvalidCustomerReceived,
    NotFoundError,
    RetryPolicy,
    StreamProgress,
)
from commenda_customers.export import OutputRefusedError, Summary, export
from commenda_customers.testing import Emulator, faults
from emulated import connected

pytestmark = pytest.mark.anyio

SIZES = {"a": 25, "b": 12, "c": 0, "d": 30}


class Plain:
    """A sink with only the four required methods. It works like a database in memory."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.saved: Checkpoint | None = None
        self.ids: dict[str, list[str]] = {}
        self.invalid = 0
        self.is_finished = False
        self._rest: list[CustomerPage] = []

    async def open(self) -> Checkpoint | None:
        self.calls.append("open")
        self._rest.clear()
        return self.saved

    async def write(self, page: CustomerPage) -> None:
        self.calls.append("write")
        self._rest.append(page)

    async def commit(self, checkpoint: Checkpoint) -> None:
        self.calls.append("commit")
        await anyio.sleep(0.01)
        for page in self._rest:
            self.ids.setdefault(page.corporation_id, []).extend(customer.id for customer in page)
            self.invalid += len(page.invalid_customers)
        self._rest.clear()
        self.saved = checkpoint

    async def finish(self) -> None:
        self.calls.append("finish")
        self.saved, self.is_finished = None, True


class Full(Plain):
    """A sink with all methods, including the optional ones."""

    failures: Mapping[str, CustomersError] | None = None

    async def restart(self, corporation_id: str) -> None:
        self.calls.append(f"restart {corporation_id}")
        self.ids.pop(corporation_id, None)

    async def end_with_failures(self, failures: Mapping[str, CustomersError]) -> None:
        self.failures = failures

    async def aclose(self) -> None:
        self.calls.append("aclose")


async def run(server: Emulator, sink: Plain, *ids: str, **options: Any) -> Summary:
    """Export, by default all corporations, with small pages and commits."""
    async with connected(server) as api:
        return await export(api, ids or tuple(server.corporations), sink, **{"limit": 5, "commit_every": 3, **options})


def held_rows(corporation_id: str, number: int) -> list[Any]:
    return [{"id": str(each), "corporation_id": corporation_id} for each in range(number)]


def held(server: Emulator, *ids: str) -> dict[str, list[str]]:
    """Return the ids that the server has."""
    return {name: [row["id"] for row in server.customers(name)] for name in ids or server.corporations}


def corporations_asked(server: Emulator, since: int) -> set[str]:
    return {request.params["corporation_id"] for request in server.requests[since:]}


async def test_every_customer_is_written_and_committed() -> None:
    """Each customer is written once. Commits come before the first request, every `commit_every` pages, and at the end."""
    server, sink = Emulator(SIZES), Plain()
    summary = await run(server, sink)
    assert sink.ids == held(server)
    pages = sink.calls.count("write")
    assert sink.calls[:2] == ["open", "commit"]
    assert "".join(call[0] for call in sink.calls[2:]) == "wwwc" * (pages // 3) + "w" * (pages % 3) + "cf"
    assert (summary.customers, summary.customers_before, summary.corporations, summary.pages) == (67, 0, 4, pages)
    assert (summary.failures, summary.is_complete) == ({}, True)


@pytest.mark.parametrize("sink", ["customers.db", None, object()])
async def test_a_sink_must_be_one(sink: Any) -> None:
    """A path instead of a sink is refused, and the error names the argument."""
    with pytest.raises(TypeError, match="sink: expected Sink, got "):
        await run(Emulator(SIZES), sink)


async def test_a_sink_that_cannot_write_costs_no_request() -> None:
    """If the first commit fails, the export sends no request, and closes the sink."""

    class ReadOnly(Full):
        async def commit(self, checkpoint: Checkpoint) -> None:
            raise PermissionError("read-only")

    server, sink = Emulator(SIZES), ReadOnly()
    with pytest.raises(PermissionError):
        await run(server, sink)
    assert (server.requests, sink.calls) == ([], ["open", "aclose"])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"commit_every": 0}, ValueError),
        ({"commit_every": 1.5}, TypeError),
        ({"concurrency": 0}, ValueError),
        ({"limit": 101}, ValueError),
        ({"on_progress": 5}, TypeError),
        ({"on_progress": anyio.sleep}, TypeError),
        ({"nonsense": 5}, TypeError),
    ],
)
async def test_wrong_arguments_open_nothing(wrong: dict[str, Any], error: type[Exception]) -> None:
    """The export checks its arguments before it opens the sink. The error names the argument."""
    server, sink = Emulator(SIZES), Full()
    with pytest.raises(error, match=next(iter(wrong))):
        await run(server, sink, **wrong)
    assert (server.requests, sink.calls) == ([], [])


@pytest.mark.parametrize("after", [0, 1, 2, 5, 8, 13])
async def test_a_cancelled_export_commits_what_came(after: int) -> None:
    """A cancelled export commits all pages that it has written, and closes the sink. The next call writes only the rest."""
    server, sink = Emulator(SIZES, latency=0.05), Full()
    with anyio.CancelScope() as scope:

        def stop(progress: StreamProgress) -> None:
            if progress.pages > after:
                scope.cancel()

        await run(server, sink, on_progress=stop)
    assert scope.cancelled_caught
    written = sum(map(len, sink.ids.values()))
    assert sink.calls[-2:] == ["commit", "aclose"]
    assert sink.saved is not None
    summary = await run(server, sink)
    assert sink.ids == held(server)
    assert (summary.customers_before, summary.customers) == (written, 67)


async def test_a_cancellation_at_any_time_loses_nothing() -> None:
    """Cancelled at any moment, even within a commit, and called again until it is complete, it has each customer once."""
    server, sink = Emulator(SIZES, latency=0.01), Full()
    cancelled = 0
    while not sink.is_finished:
        with anyio.move_on_after(0.013 + 0.0037 * cancelled) as scope:
            await run(server, sink)
        cancelled += scope.cancelled_caught
    assert cancelled > 3
    assert sink.ids == held(server)


async def test_an_exception_of_the_callback_loses_nothing() -> None:
    """If `on_progress` raises, the export commits all written pages, and raises the same exception."""

    def fail(progress: StreamProgress) -> None:
        if progress.pages == 5:
            raise RuntimeError("mine")

    server, sink = Emulator(SIZES), Full()
    with pytest.raises(RuntimeError, match="mine"):
        await run(server, sink, on_progress=fail)
    assert sink.calls.count("write") == 5
    await run(server, sink)
    assert sink.ids == held(server)


async def test_an_exception_of_a_hook_loses_no_invalid_row() -> None:
    """If a hook raises at an invalid row, the next call still writes this row, and those before it on its page."""
    fails = True

    def fail(event: Event) -> None:
        if fails and isinstance(event, InvalidCustomerReceived) and event.customer.id == "bad 1":
            raise RuntimeError("mine")

    rows = [{"id": f"bad {number}", "corporation_id": "a", "name": number} for number in range(3)]
    server, sink = Emulator({"a": [*held_rows("a", 6), *rows], "b": 5}), Full()
    async with connected(server, hooks=[fail]) as api:
        with pytest.raises(RuntimeError, match="mine"):
            await export(api, ["a", "b"], sink, limit=4)
        fails = False
        summary = await export(api, ["a", "b"], sink, limit=4)
    assert (sink.invalid, summary.invalid_customers, summary.is_complete) == (3, 3, True)


@pytest.mark.parametrize("call", ["write", "commit"])
async def test_a_sink_that_fails_is_not_asked_again(call: str) -> None:
    """After `write` or `commit` has failed, the export does not commit again: the sink might have half of a page."""

    class Breaks(Full):
        is_full = True

        async def write(self, page: CustomerPage) -> None:
            await super().write(page)
            if self.is_full and call == "write" and self.calls.count("write") == 5:
                raise OSError("disk full")

        async def commit(self, checkpoint: Checkpoint) -> None:
            if self.is_full and call == "commit" and self.calls.count("commit") == 2:
                raise OSError("disk full")
            await super().commit(checkpoint)

    server, sink = Emulator(SIZES), Breaks()
    with pytest.raises(OSError, match="disk full"):
        await run(server, sink)
    assert sink.calls[-2:] == ["write", "aclose"]
    sink.is_full = False
    await run(server, sink)
    assert sink.ids == held(server)


async def test_a_last_commit_that_fails_does_not_hide_why_it_stopped() -> None:
    """If an error stops the export and the last commit fails too, the export raises the first error, with a note."""

    class Breaks(Full):
        async def commit(self, checkpoint: Checkpoint) -> None:
            if self.calls.count("write"):
                raise OSError("disk full")
            await super().commit(checkpoint)

    server = Emulator(SIZES, faults=[faults.Status(401, at=[3])])
    with pytest.raises(AuthenticationError) as caught:
        await run(server, Breaks(), commit_every=100)
    assert caught.value.__notes__ == ["the last pages could not be saved: disk full"]


async def test_a_sink_that_hangs_does_not_hold_a_cancelled_export() -> None:
    """In a cancelled export, the last commit and the close take at most 30 seconds each."""

    class Hangs(Full):
        async def commit(self, checkpoint: Checkpoint) -> None:
            if self.calls.count("write"):
                await anyio.sleep_forever()
            await super().commit(checkpoint)

        async def aclose(self) -> None:
            await anyio.sleep_forever()

    began = anyio.current_time()
    with anyio.CancelScope() as scope:
        await run(Emulator(SIZES), Hangs(), commit_every=100, on_progress=lambda _progress: scope.cancel())
    assert 59 < anyio.current_time() - began < 61


async def test_a_dead_token_ends_the_export() -> None:
    """A refused token ends the export with its error. The earlier pages are committed, and the next call resumes."""
    server, sink = Emulator(SIZES), Full()
    revoked = faults.Status(401, at=range(6, 1000))
    server.faults.add(revoked)
    with pytest.raises(AuthenticationError):
        await run(server, sink, commit_every=100)
    assert 0 < sum(map(len, sink.ids.values())) < 67
    server.faults.remove(revoked)
    await run(server, sink)
    assert sink.ids == held(server)


async def test_only_what_is_missing_is_read_again() -> None:
    """A corporation that fails does not stop the others. The output is not complete. The next call reads only this one."""
    server, sink = Emulator(SIZES), Full()
    dead = faults.Status(404, corporation_id="b")
    server.faults.add(dead)
    summary = await run(server, sink)
    assert (list(summary.failures), summary.corporations, summary.is_complete) == (["b"], 3, False)
    assert isinstance(summary.failures["b"], NotFoundError)
    assert sink.failures == summary.failures
    assert not sink.is_finished
    server.faults.remove(dead)
    since = len(server.requests)
    assert (await run(server, sink)).is_complete
    assert corporations_asked(server, since) == {"b"}
    assert sink.ids == held(server)


async def test_too_many_failures_end_the_export() -> None:
    """If more than `max_failures` corporations fail, the export raises the last error. With "raise", it raises the first."""
    for options in ({"max_failures": 1}, {"errors": "raise"}):
        sink = Full()
        server = Emulator(SIZES, faults=[faults.Status(404, corporation_id=name) for name in "bd"])
        with pytest.raises(NotFoundError):
            await run(server, sink, **options)
        server.faults.clear()
        await run(server, sink)
        assert sink.ids == held(server)


async def test_a_list_whose_cursor_is_refused_begins_anew() -> None:
    """If the cursor of an earlier call has expired, the export discards the corporation, and reads it again."""
    server, sink = Emulator({"a": 100, "b": 10}, faults=[faults.ExpiredCursor(after=60)]), Full()
    with anyio.CancelScope() as scope:
        await run(server, sink, on_progress=lambda progress: scope.cancel() if progress.pages > 6 else None)
    await anyio.sleep(100)
    summary = await run(server, sink)
    assert sink.ids == held(server)
    assert (summary.restarted, summary.failures, summary.is_complete) == (("a",), {}, True)
    assert (summary.customers, summary.corporations) == (110, 2)


async def test_a_list_begins_anew_only_once_in_a_call() -> None:
    """If the server refuses a cursor again after the restart, the corporation fails. There is no second restart."""
    server, sink = Emulator({"a": 100}, faults=[faults.ExpiredCursor(after=-1)]), Full()
    summary = await run(server, sink)
    assert isinstance(summary.failures["a"], CursorRejectedError)
    assert len(server.requests) == 4
    assert sink.calls.count("restart a") == 1


async def test_a_loop_is_left_when_the_server_is_repaired() -> None:
    """If the cursors of a list form a loop, its corporation fails. When the server is repaired, the next call resumes."""
    server, sink = Emulator({"a": 40, "b": 10}, faults=[faults.RepeatedCursor(at=[3], corporation_id="a")]), Full()
    summary = await run(server, sink)
    assert isinstance(summary.failures["a"], CursorLoopError)
    assert (await run(server, sink)).is_complete
    assert sink.ids == held(server)


async def test_a_refused_cursor_that_ends_the_export_is_not_met_again() -> None:
    """If an expired cursor ends the export, the next call reads the list from the beginning."""
    server, sink = Emulator({"a": 100}, faults=[faults.ExpiredCursor(after=60)]), Full()
    with anyio.CancelScope() as scope:
        await run(server, sink, on_progress=lambda progress: scope.cancel() if progress.pages > 6 else None)
    await anyio.sleep(100)
    with pytest.raises(CursorRejectedError):
        await run(server, sink, errors="raise")
    assert (await run(server, sink, errors="raise")).is_complete
    assert sink.ids == held(server)


async def test_a_sink_that_cannot_discard_keeps_the_failure() -> None:
    """If the sink has no `restart`, an expired cursor makes its corporation fail."""
    server, sink = Emulator({"a": 100, "b": 10}, faults=[faults.ExpiredCursor(after=60)]), Plain()
    with anyio.CancelScope() as scope:
        await run(server, sink, on_progress=lambda progress: scope.cancel() if progress.pages > 6 else None)
    await anyio.sleep(100)
    summary = await run(server, sink)
    assert list(summary.failures) == ["a"]
    assert not sink.is_finished


@pytest.mark.parametrize("kind", [Plain, Full])
async def test_a_corporation_that_is_not_named_again_is_dropped(kind: type[Plain]) -> None:
    """If an earlier call began a corporation, and this call does not name it, it is discarded. The others are complete."""
    server, sink = Emulator(SIZES, faults=[faults.Status(404, corporation_id="d", pages=[3])]), kind()
    await run(server, sink)
    summary = await run(server, sink, "a", "b", "c")
    assert (summary.is_complete, sink.is_finished) == (True, True)
    if kind is Full:
        assert summary.dropped == ("d",)
        assert sink.ids == {**held(server, "a", "b"), "c": []}


async def test_a_run_with_other_filters_is_refused() -> None:
    """The export refuses an unfinished run with other filters before any write. With the same filters, it resumes."""
    server, sink = Emulator(SIZES), Full()
    with anyio.CancelScope() as scope:
        await run(server, sink, has_exemption=False, on_progress=lambda _progress: scope.cancel())
    kept, since = sink.saved, len(server.requests)
    sink.calls.clear()
    with pytest.raises(OutputRefusedError, match="holds an unfinished run with other filters"):
        await run(server, sink)
    assert (sink.calls, sink.saved, len(server.requests)) == (["open", "aclose"], kept, since)
    assert (await run(server, sink, has_exemption=False)).is_complete


async def test_the_summary_says_what_was_difficult() -> None:
    """The summary counts retries, invalid rows and shortfalls. The hooks of the client still get all events."""

    class CountsTooMany(faults.Fault):
        def change_listing(self, listing: Any, asked: str | None, again: str) -> Any:
            return {**listing, "total_customers": listing["total_customers"] + 7}

    rows = [{"id": str(number), "corporation_id": "b"} for number in range(12)]
    server = Emulator(
        {"a": 25, "b": [*rows, None, {"id": "x", "corporation_id": "b", "name": 5}]},
        faults=[faults.Status(503, at=[2, 4]), CountsTooMany(corporation_id="a")],
    )
    seen: list[object] = []
    sink = Plain()
    async with connected(server, hooks=[seen.append], retry=RetryPolicy(initial_wait=1)) as api:
        summary = await export(api, ["a", "b"], sink, limit=5)
    assert (summary.retries, summary.invalid_customers, sink.invalid, summary.shortfalls) == (2, 2, 2, {"a": 7})
    assert summary.elapsed > 0
    assert summary.waited >= 0
    assert len(seen) > 10


async def test_progress_is_told_after_each_page() -> None:
    """After each page, `on_progress` gets the progress of the stream, including the numbers of earlier calls."""
    server, sink, pages = Emulator(SIZES), Full(), list[tuple[int, int]]()
    with anyio.CancelScope() as scope:
        await run(server, sink, on_progress=lambda progress: scope.cancel() if progress.pages > 4 else None)
    await run(server, sink, on_progress=lambda progress: pages.append((progress.pages, progress.customers_before)))
    before = pages[0][1]
    assert before > 0
    assert pages == [(number, before) for number in range(1, len(pages) + 1)]
