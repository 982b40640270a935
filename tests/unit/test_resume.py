"""Resumed runs: together they yield every customer once, wherever each was interrupted."""

import functools
import types
from collections.abc import Coroutine, Generator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from commenda_customers import (
    Checkpoint,
    CustomerList,
    CustomersError,
    InvalidCustomerReceived,
    ServerError,
)
from lists import SELECTION, Lists, Pages, again, equal


def listed(lists: Lists, corporation: str, *, resume: Checkpoint | None = None, cursor: str | None = None) -> CustomerList:
    """Return what `api.list` returns."""
    return CustomerList(lists.fetch, SELECTION.of(corporation), lists.events.append, cursor=cursor, resume=resume)


class OwnError(Exception):
    """What the program itself raises. One of Python's own would hide mistakes of the same class."""


@st.composite
def servers(draw: st.DrawFn) -> tuple[dict[str, Pages], dict[tuple[str, int], int], dict[str, float]]:
    """Draw corporations with pages of any sizes, empty ones too, with invalid rows, and which pages fail how often."""
    rows = st.lists(st.sampled_from(["", "", "", "!", "?"]), max_size=4)  # valid, invalid with an id, without one
    corporations = draw(st.lists(st.lists(rows, min_size=1, max_size=4), max_size=6))
    pages: dict[str, Pages] = {
        f"c{number}": [
            [kind if kind == "?" else f"{kind}{number}.{index}.{row}" for row, kind in enumerate(kinds)]
            for index, kinds in enumerate(parts)
        ]
        for number, parts in enumerate(corporations)
    }
    places = [(name, index) for name, rows in pages.items() for index in range(len(rows))]
    failures = draw(st.dictionaries(st.sampled_from(places), st.integers(1, 2), max_size=4)) if places else {}
    latencies = {name: draw(st.sampled_from([0.0, 0.1, 0.25])) for name in pages}
    return pages, failures, latencies


INTERRUPTIONS = st.lists(
    st.tuples(st.sampled_from(["break", "raise", "timeout"]), st.integers(0, 6), st.booleans()), max_size=6
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(server=servers(), plan=INTERRUPTIONS, in_pages=st.booleans(), concurrency=st.integers(1, 5), collects=st.booleans())
def test_all_runs_together_yield_everything_once(
    backend: str,
    *,
    server: tuple[dict[str, Pages], dict[tuple[str, int], int], dict[str, float]],
    plan: list[tuple[str, int, bool]],
    in_pages: bool,
    concurrency: int,
    collects: bool,
) -> None:
    """
    All runs together yield what the server holds, once and in order, whatever faults and interruptions there are.

    Each invalid row that has an id is reported once, and each other one at least once.
    """
    pages, failures, latencies = server
    lists = Lists(pages, latency=lambda name, _number: latencies[name], failures=failures)
    runs = [*plan, *[("none", 0, in_pages)] * (sum(failures.values()) + 1)]
    seen: list[tuple[str, str]] = []

    async def run_all() -> None:
        checkpoint: Checkpoint | None = None
        for way, after, by_page in runs:
            stream = lists.stream(concurrency=concurrency, errors="collect" if collects else "raise", resume=checkpoint)
            try:
                await interrupted(stream, way, after, by_page)
                exact = stream.checkpoint()
            except CustomersError as error:
                exact = error.checkpoint
            assert exact == stream.checkpoint()
            checkpoint = again(exact)
            assert lists.in_flight == 0
            progress = stream.progress
            assert progress.customers_before + progress.customers == len(seen)
            assert progress.finished_before + progress.finished == len(checkpoint.finished) / 12
        assert checkpoint is not None
        assert checkpoint.positions == ()
        # Rows without an id may be reported again, but each counts once.
        assert checkpoint.invalid_customers == sum(
            row[0] in "!?" for each in pages.values() for page in each for row in page
        )

    async def interrupted(stream: Any, way: str, after: int, by_page: bool) -> None:
        count = 0
        try:
            with anyio.move_on_after(after * 0.05 if way == "timeout" else None):
                async with stream:
                    async for item in stream.pages() if by_page else stream:
                        seen.extend((each.corporation_id, each.id) for each in (item if by_page else [item]))
                        count += 1
                        if way == "break" and count > after:
                            break
                        if way == "raise" and count > after:
                            raise OwnError  # noqa: TRY301 - as the program's own code would
        except OwnError:
            pass

    virtual_time.run(run_all, backend)
    reported = [(e.corporation_id, e.customer.id) for e in lists.events if isinstance(e, InvalidCustomerReceived)]
    for name in pages:
        rows = [row for page in pages[name] for row in page]
        assert [row for corporation, row in seen if corporation == name] == [row for row in rows if row[0] not in "!?"]
        ids = [row for corporation, row in reported if corporation == name and row is not None]
        assert ids == [row[1:] for row in rows if row[0] == "!"]
        assert reported.count((name, None)) >= rows.count("?")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), stops=st.lists(st.integers(0, 5), max_size=5))
def test_a_list_is_resumed_likewise(backend: str, sizes: list[int], stops: list[int]) -> None:
    """A list that is left after any customer, or fails on any page, resumes with the next customer."""
    pages = {"c": [[f"{index}.{row}" for row in range(size)] for index, size in enumerate(sizes)]}
    lists = Lists(pages, failures={("c", len(sizes) - 1): 1})
    seen: list[str] = []

    async def run_all() -> None:
        checkpoint: Checkpoint | None = None
        for stop in [*stops, 100, 100]:
            iteration = aiter(listed(lists, "c", resume=checkpoint))
            try:
                for _ in range(stop):
                    seen.append((await anext(iteration)).id)
                exact = iteration.checkpoint()
            except StopAsyncIteration:
                exact = iteration.checkpoint()
            except ServerError as error:
                exact = error.checkpoint
            assert exact == iteration.checkpoint()
            checkpoint = again(exact)

    virtual_time.run(run_all, backend)
    assert seen == [row for page in pages["c"] for row in page]


@pytest.mark.anyio
async def test_a_page_that_was_yielded_is_no_empty_page() -> None:
    """A resumed run fetches the page where it stopped, but does not yield it if nothing of it is left. Empty pages come."""
    lists = Lists({"c": [["a", "!x"], ["b"], [], ["c"]]})
    pages = listed(lists, "c").pages()
    assert [customer.id for customer in await anext(pages)] == ["a"]
    rest = listed(lists, "c", resume=again(pages.checkpoint())).pages()
    assert [[customer.id for customer in page] async for page in rest] == [["b"], [], ["c"]]
    assert lists.asked == [("c", number) for number in (0, 0, 1, 2, 3)]


@types.coroutine
def cancelled_at(work: Coroutine[Any, Any, None], scope: anyio.CancelScope, point: int) -> Generator[Any, Any, None]:
    """Do *work*, cancelling *scope* where it waits for the *point*th time."""
    waits, send = 0, functools.partial(work.send, None)
    while True:
        try:
            waiting = send()
        except StopIteration:
            return
        waits += 1
        if waits == point:
            scope.cancel()
        try:
            value = yield waiting
            send = functools.partial(work.send, value)
        except BaseException as exc:  # noqa: BLE001 - it is passed on
            send = functools.partial(work.throw, exc)


@pytest.mark.anyio
@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("lead", [0, 1, 2, 3])
async def test_it_may_be_cancelled_at_every_await(collects: bool, lead: int) -> None:
    """A stream that is cancelled at any await ends as cancelled, leaves nothing in flight, and has an exact checkpoint."""
    point, came_so_far = 0, True
    while came_so_far:
        point += 1
        lists = Lists(equal(3, 3), latency=lambda name, number: 0.1 * ((int(name[1:]) + number) % 3))
        seen: list[tuple[str, str]] = []
        stream = lists.stream(concurrency=2, errors="collect" if collects else "raise")

        async def read(stream: Any = stream, seen: Any = seen) -> None:
            async with stream:
                async for customer in stream:
                    seen.append((customer.corporation_id, customer.id))
                    if len(seen) % 4 == lead:
                        await anyio.sleep(0.15)

        with anyio.CancelScope() as scope:
            await cancelled_at(read(), scope, point)
        came_so_far = scope.cancel_called
        assert lists.in_flight == 0
        async with lists.stream(resume=again(stream.checkpoint())) as rest:
            seen += [(customer.corporation_id, customer.id) async for customer in rest]
        assert sorted(seen) == sorted(lists.everyone())
        assert len(seen) == 18
    assert point > 15
