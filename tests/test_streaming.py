"""Many corporations as one stream, over a function in place of a network and in virtual time."""

import asyncio
import contextlib
import gc
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from commenda_customers import AsyncCustomersAPI, Checkpoint, CorporationState, CustomerList, CustomersError, ServerError
from lists import SELECTION, Lists, equal

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


async def test_every_customer_comes_once_and_in_order() -> None:
    """A stream yields each customer of each corporation once; within a corporation in the server's order."""
    lists = Lists({"a": [["1", "2"], [], ["3"]], "b": [[]], "c": [["1"]], "d": [[f"{number}"] for number in range(20)]})
    async with lists.stream(concurrency=2) as stream:
        seen = [(customer.corporation_id, customer.id) async for customer in stream]
    assert sorted(seen, key=lambda pair: pair[0]) == lists.everyone()
    assert len(lists.asked) == len(set(lists.asked)) == 25


async def test_pages_come_as_they_are() -> None:
    """`pages()` yields every page, empty ones too, and each knows its corporation."""
    lists = Lists({"a": [["1", "2"], [], ["3"]]})
    async with lists.stream() as stream:
        pages = [(page.corporation_id, len(page), page.cursor) async for page in stream.pages()]
    assert pages == [("a", 2, "1"), ("a", 0, "2"), ("a", 1, None)]


@pytest.mark.parametrize("errors", ["raise", "collect"])
async def test_corporations_without_customers_are_a_page(errors: Any) -> None:
    """An empty last page is handed over like any other, and counts once, whether all of a list or behind others."""
    lists = Lists({"c0": [["1"], []], "c1": [[]], "c2": [["2"]]})
    async with lists.stream(errors=errors) as stream:
        pages = [(page.corporation_id, len(page)) async for page in stream.pages()]
    assert sorted(pages) == [("c0", 0), ("c0", 1), ("c1", 0), ("c2", 1)]
    assert (stream.progress.pages, stream.progress.finished, stream.progress.reading) == (4, 3, 0)
    assert stream.checkpoint().positions == ()


async def test_no_corporations_are_no_customers() -> None:
    """A stream of nothing is at its end at once."""
    async with Lists({}).stream() as stream:
        assert [page async for page in stream.pages()] == []
    assert stream.checkpoint().positions == ()


async def test_the_next_page_is_fetched_meanwhile() -> None:
    """While the program works on a page, the next is in flight: 20 pages of 50 ms and 50 ms of work take 1.05 s, not 2."""
    lists = Lists(equal(1, 20), latency=lambda *_: 0.05)
    began = anyio.current_time()
    async with lists.stream() as stream:
        async for _page in stream.pages():
            await anyio.sleep(0.05)
    assert anyio.current_time() - began == pytest.approx(1.05)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
async def test_a_program_that_stops_stops_the_requests(concurrency: int) -> None:
    """Of each corporation in flight at most one page is ahead of the program, however long it does not ask for more."""
    lists = Lists(equal(30, 5))
    taken = 0
    async with lists.stream(concurrency=concurrency) as stream:
        async for _page in stream.pages():
            taken += 1
            await anyio.sleep(10)
            assert len(lists.asked) - taken <= concurrency
    assert taken == 150


async def test_ids_are_read_when_they_are_needed() -> None:
    """No id is read before its corporation can begin."""
    read: list[str] = []

    def ids() -> Iterator[str]:
        for name in lists.pages:
            read.append(name)
            yield name

    lists, finished = Lists(equal(50, 2)), 0
    async with lists.stream(ids(), concurrency=3) as stream:
        async for _page in stream.pages():
            await anyio.sleep(1)
            assert len(read) <= stream.progress.finished + 1 + 3
            finished = stream.progress.finished
    assert finished >= 48
    assert len(read) == 50


async def test_ids_may_come_asynchronously() -> None:
    """Ids of an async generator are waited for, one at a time, while others are read; at the end it is closed."""
    closed = False

    async def ids() -> AsyncIterator[str]:
        nonlocal closed
        try:
            for name in lists.pages:
                await anyio.sleep(1)
                yield name
        finally:
            await anyio.sleep(0.1)
            closed = True

    lists = Lists(equal(4, 3), latency=lambda *_: 0.1)
    began = anyio.current_time()
    async with lists.stream(ids()) as stream:
        assert len([page async for page in stream.pages()]) == 12
    assert anyio.current_time() - began == pytest.approx(4.3, abs=0.01)
    assert closed

    closed = False
    async with lists.stream(ids(), concurrency=1) as stream:
        async for _page in stream.pages():
            break
    assert closed


class Queue:
    """Ids of an async iterator that has nothing to close."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids

    def __aiter__(self) -> "Queue":
        return self

    async def __anext__(self) -> str:
        await anyio.sleep(0.1)
        if not self.ids:
            raise StopAsyncIteration
        return self.ids.pop(0)


async def test_ids_may_come_from_any_async_iterator() -> None:
    """What the ids come from need not be a generator. What a stream that is left has not read is still there."""
    lists, queue = Lists(equal(5, 1)), Queue(["c0", "c1", "c2", "c3", "c4"])
    async with lists.stream(queue, concurrency=2) as stream:
        async for _page in stream.pages():
            break
    assert queue.ids == ["c1", "c2", "c3", "c4"]
    async with lists.stream(queue) as stream:
        assert len([page async for page in stream.pages()]) == 4


@pytest.mark.parametrize("work", [0.0, 0.02, 0.5])
async def test_equal_lists_stay_level(work: float) -> None:
    """Whether the server or the program is the slower, no corporation falls more than two pages behind another."""
    lists = Lists(equal(16, 30), latency=lambda _corporation, number: 0.1 + 0.001 * (number % 7))
    counts = Counter(dict.fromkeys(lists.pages, 0))
    async with lists.stream(concurrency=16) as stream:
        async for page in stream.pages():
            counts[page.corporation_id] += 1
            assert max(counts.values()) - min(counts.values()) <= 2
            await anyio.sleep(work)


async def test_a_slow_corporation_holds_up_nobody() -> None:
    """Corporations whose pages are ready do not wait for one that is slow."""
    lists = Lists(equal(4, 10), latency=lambda corporation, _number: 10.0 if corporation == "c0" else 0.1)
    moments: dict[str, float] = {}
    began = anyio.current_time()
    async with lists.stream() as stream:
        async for page in stream.pages():
            moments[page.corporation_id] = anyio.current_time() - began
    assert moments["c0"] == pytest.approx(100)
    assert max(moments[name] for name in ("c1", "c2", "c3")) == pytest.approx(1)


async def test_loops_may_follow_each_other() -> None:
    """A loop that was left is continued by the next, over customers or over pages: the rest of a page is a page."""
    lists = Lists(equal(1, 3, size=3))
    async with lists.stream() as stream:
        async for first in stream:
            assert first.id == "0.0.0"
            break
        async for page in stream.pages():
            assert [customer.id for customer in page] == ["0.0.1", "0.0.2"]
            break
        assert [customer.id async for customer in stream] == ["0.1.0", "0.1.1", "0.1.2", "0.2.0", "0.2.1", "0.2.2"]


async def test_the_first_failure_is_raised_as_itself() -> None:
    """A corporation that cannot be read ends the stream: the others are cancelled, and its error comes in no group."""
    lists = Lists(equal(6, 4), latency=lambda corporation, _number: 1.0 if corporation == "c1" else 100.0)
    lists.failures["c1", 2] = 1
    with pytest.raises(ServerError) as caught:
        async with lists.stream() as stream:
            async for _customer in stream:
                pass
    assert (caught.value.corporation_id, caught.value.cursor, lists.in_flight) == ("c1", "2", 0)
    assert caught.value.checkpoint == stream.checkpoint()
    assert lists.asked == [("c1", 0), ("c1", 1)]


async def test_a_failure_stays() -> None:
    """A stream that has failed does not end quietly when it is asked again."""
    lists = Lists(equal(3, 2), failures={("c0", 0): 1})
    async with lists.stream() as stream:
        for _ in range(2):
            with pytest.raises(ServerError):
                [page async for page in stream.pages()]


async def test_what_is_raised_again_does_not_grow() -> None:
    """A program that asks a failed stream again and again gets the same error, with the same traceback each time."""
    lists = Lists(equal(1, 1), failures={("c0", 0): 1})
    lengths: set[int] = set()
    async with lists.stream() as stream:
        for _ in range(3):
            with pytest.raises(ServerError) as caught:
                await anext(stream.pages())
            lengths.add(len(caught.traceback))
    assert len(lengths) == 1


async def test_failures_can_be_collected() -> None:
    """With `errors="collect"` all others are read to their end, and the failures tell which were not, and why."""
    lists = Lists(equal(6, 4), failures={("c1", 2): 1, ("c4", 0): 1})
    async with lists.stream(errors="collect") as stream:
        seen = [customer.id async for customer in stream]
    assert {name: (error.cursor, type(error)) for name, error in stream.failures.items()} == {
        "c1": ("2", ServerError),
        "c4": (None, ServerError),
    }
    assert len(seen) == len(set(seen)) == 4 * 8 + 4
    assert (stream.progress.finished, stream.progress.failed, stream.progress.reading) == (4, 2, 0)
    assert stream.progress.corporations["c1"].state is CorporationState.FAILED


async def test_what_is_collected_is_little_and_enough() -> None:
    """Of many failures each keeps its own position and no answer: with it, a list of that corporation goes on."""
    lists = Lists(equal(50, 3), failures={(f"c{number}", number % 3): 1 for number in range(50)})
    seen: list[str] = []
    async with lists.stream(errors="collect") as stream:
        seen += [customer.id async for customer in stream]
    assert len(stream.failures) == 50
    for name, error in stream.failures.items():
        assert error.__traceback__ is None
        assert error.checkpoint is not None
        assert [position.corporation_id for position in error.checkpoint.positions] == [name]
        seen += [customer.id async for customer in CustomerList(lists.fetch, SELECTION.of(name), resume=error.checkpoint)]
    assert sorted(seen) == sorted(row for _, row in lists.everyone())


async def test_a_failure_counts_from_where_it_was_resumed() -> None:
    """A corporation that fails at once when it is resumed has in its progress what was yielded of it before."""
    lists = Lists(equal(1, 3), failures={("c0", 1): 2})
    for mode in ("raise", "collect"):
        resume: Checkpoint | None = None
        lists.failures["c0", 1] = 1
        with contextlib.suppress(ServerError):
            async with lists.stream(errors=mode) as stream:
                [customer async for customer in stream]
        resume = stream.checkpoint()
        lists.failures["c0", 0] = 1
        with contextlib.suppress(ServerError):
            async with lists.stream(errors=mode, resume=resume) as stream:
                [customer async for customer in stream]
        assert list(stream.failures) == ["c0"]
        mine = stream.progress.corporations["c0"]
        assert (mine.customers_before, mine.customers, mine.state) == (2, 0, CorporationState.FAILED)
        assert (stream.progress.failed, stream.progress.reading) == (1, 0)


async def test_an_error_of_elsewhere_is_no_failure_of_a_corporation() -> None:
    """If what makes the ids reads another list, and that fails, the error arrives and no corporation is blamed."""

    async def ids() -> AsyncIterator[str]:
        yield "c0"
        raise ServerError("of the ids", corporation_id="elsewhere")

    async with Lists(equal(1, 50), latency=lambda *_: 1.0).stream(ids()) as stream:
        with pytest.raises(ServerError, match="of the ids"):
            [customer async for customer in stream]
        assert stream.failures == {}


async def test_mistakes_are_not_collected() -> None:
    """Only what the API or the network did is collected. What a hook raises, say, ends the stream."""
    lists = Lists({"a": [["1"]]})

    async def fetch(*_: Any) -> Any:
        raise KeyError("hook")

    lists.fetch = fetch
    with pytest.raises(KeyError, match="hook"):
        async with lists.stream(errors="collect") as stream:
            [customer async for customer in stream]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["c0", "c1", "c0"], ValueError, "corporation_ids: 'c0' comes a second time"),
        (["c0", ""], ValueError, r"corporation_ids\[1\]: must not be empty"),
        (["c0", 7], TypeError, r"corporation_ids\[1\]: expected a str, got int"),
    ],
)
@pytest.mark.parametrize("errors", ["raise", "collect"])
async def test_bad_ids_are_errors(ids: list[Any], error: type[Exception], message: str, errors: str) -> None:
    """An id that comes twice, or is none, ends the stream with an error that says so."""
    lists = Lists(equal(2, 2), latency=lambda *_: 5.0)
    with pytest.raises(error, match=message):
        async with lists.stream(ids, errors=errors) as stream:
            [customer async for customer in stream]
    assert lists.in_flight == 0


async def test_ids_may_fail() -> None:
    """What the iterator of ids raises reaches the program as itself."""

    def ids() -> Iterator[str]:
        yield "c0"
        raise LookupError("database")

    with pytest.raises(LookupError, match="database"):
        async with Lists(equal(1, 5), latency=lambda *_: 1.0).stream(ids()) as stream:
            [customer async for customer in stream]


async def test_the_programs_own_exception_arrives_as_itself() -> None:
    """An exception of the block is not wrapped, keeps its cause, and stops everything."""
    cause, lists = KeyError("cause"), Lists(equal(8, 8), latency=lambda *_: 1.0)
    with pytest.raises(ValueError, match="mine") as caught:
        async with lists.stream() as stream:
            async for _customer in stream:
                raise ValueError("mine") from cause
    assert caught.value.__cause__ is cause
    assert lists.in_flight == 0


def slow_to_end(latency: float, seconds: float) -> Lists:
    """Return lists whose second pages take some time, and whose requests take *seconds* to end when they are cancelled."""
    lists = Lists(equal(2, 2), latency=lambda _name, number: latency * number)
    fetch = lists.fetch

    async def ending(query: Any, cursor: str | None) -> Any:
        try:
            return await fetch(query, cursor)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)

    lists.fetch = ending
    return lists


@pytest.mark.parametrize("way", ["in the block", "while it is left"])
async def test_the_programs_own_exception_survives_a_cancellation(way: str) -> None:
    """An exception of the block is not lost behind a timeout, be it over before or run out while requests are ended."""
    lists = slow_to_end(5.0, 1.0)
    with pytest.raises(ValueError, match="mine") as caught, anyio.move_on_after(1.5) as scope:
        async with lists.stream() as stream:
            async for _customer in stream:
                if way == "in the block":
                    scope.cancel()
                raise ValueError("mine") from KeyError("cause")
    assert isinstance(caught.value.__cause__, KeyError)
    assert scope.cancel_called
    assert lists.in_flight == 0


class FalsyError(Exception):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("mistake", [SystemExit(3), FalsyError("hook")])
async def test_no_mistake_is_lost_by_leaving_early(mistake: BaseException) -> None:
    """What a hook raises while the program works on a page arrives, at the latest when the block is left."""
    lists = Lists(equal(2, 2))
    fetch = lists.fetch

    async def failing(query: Any, cursor: str | None) -> Any:
        if cursor is not None:
            raise mistake
        return await fetch(query, cursor)

    lists.fetch = failing
    with pytest.raises(type(mistake)):
        async with lists.stream() as stream:
            async for _page in stream.pages():
                await anyio.sleep(1)
                break


async def test_a_mistake_is_raised_once() -> None:
    """What the program has caught inside of the block is not raised again when the block is left."""
    async with Lists(equal(1, 1)).stream(["c0", "c0"]) as stream:
        with pytest.raises(ValueError, match="a second time"):
            [page async for page in stream.pages()]


async def test_a_failure_is_not_raised_by_leaving_early() -> None:
    """A program that has had enough does not hear of a corporation that failed meanwhile."""
    lists = Lists(equal(2, 2), failures={("c0", 1): 1, ("c1", 1): 1})
    async with lists.stream() as stream:
        async for _page in stream.pages():
            await anyio.sleep(1)
            break


async def test_the_end_of_the_ids_may_fail() -> None:
    """What the clean-up of a generator of ids raises is not lost; one that hangs is given up after five seconds."""

    async def failing() -> AsyncIterator[str]:
        try:
            yield "c0"
            yield "c1"
        finally:
            raise OSError("database")

    async def hanging() -> AsyncIterator[str]:
        try:
            yield "c0"
            yield "c1"
        finally:
            await anyio.sleep(3600)

    lists = Lists(equal(2, 2))
    with pytest.raises(OSError, match="database"):
        async with lists.stream(failing(), concurrency=1) as stream:
            async for _page in stream.pages():
                break
    began = anyio.current_time()
    with anyio.move_on_after(1):
        async with lists.stream(hanging(), concurrency=1) as stream:
            async for _page in stream.pages():
                await anyio.sleep(3)
    assert anyio.current_time() - began == pytest.approx(6)


async def test_ids_that_had_begun_are_closed() -> None:
    """A generator of ids from which the program itself has read is closed, even if the stream reads nothing of it."""
    closed: list[str] = []

    async def ids() -> AsyncIterator[str]:
        try:
            for number in range(5):
                yield f"c{number}"
        finally:
            closed.append("closed")

    generator = ids()
    await anext(generator)
    async with Lists(equal(5, 2)).stream(generator):
        pass
    assert closed == ["closed"]


async def test_a_reader_in_another_task_is_told_that_the_stream_is_closed() -> None:
    """If the block is left while another task waits for a page, that task is not cancelled: it gets an error."""
    lists, outcomes = Lists(equal(1, 1), latency=lambda *_: 100.0), list[str]()

    async def read(stream: Any) -> None:
        with pytest.raises(RuntimeError, match="this stream was closed, by another task"):
            await anext(stream.pages())
        await anyio.sleep(1)
        outcomes.append("not cancelled")

    async with anyio.create_task_group() as tasks, lists.stream() as stream:
        tasks.start_soon(read, stream)
        await anyio.sleep(1)
    assert outcomes == ["not cancelled"]


async def test_finished_corporations_do_not_hold_up_other_tasks() -> None:
    """While a stream leaves out very many corporations that are finished, other tasks go on."""
    lists = Lists({f"c{number}": [["x"]] for number in range(5000)})
    async with lists.stream(concurrency=100) as stream:
        [customer async for customer in stream]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        async with lists.stream(resume=stream.checkpoint()) as rest:
            assert [customer async for customer in rest] == []
        tasks.cancel_scope.cancel()
    assert turns > 1000


async def test_few_pages_are_in_memory() -> None:
    """However many customers there are, no more pages exist than one for each corporation in flight, and the program's."""
    lists = Lists({f"in memory {number}": [["x"]] * 20 for number in range(40)})
    async with lists.stream(concurrency=8) as stream:
        async for page in stream.pages():
            await anyio.sleep(1)
            if stream.progress.pages % 200 == 0:
                gc.collect()
                alive = [
                    each for each in gc.get_objects() if type(each) is type(page) and "in memory" in each.corporation_id
                ]
                assert len(alive) <= 8 + 2
                del alive


@pytest.mark.parametrize("after", [number / 7 for number in range(30)])
async def test_a_timeout_leaves_nothing(after: float) -> None:
    """A stream that is cut anywhere has no request in flight when its block is left."""
    lists = Lists(equal(8, 3), latency=lambda corporation, number: 0.2 + 0.13 * ((int(corporation[1:]) + number) % 5))
    with anyio.move_on_after(after) as scope:
        async with lists.stream(concurrency=3) as stream:
            async for _customer in stream:
                await anyio.sleep(0.05)
    assert scope.cancelled_caught or len(lists.asked) == 24
    assert lists.in_flight == 0


async def test_leaving_early_leaves_nothing() -> None:
    """A `break` ends all that was in flight when the block is left, and nothing warns."""
    lists = Lists(equal(8, 8), latency=lambda *_: 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with lists.stream() as stream:
            async for _customer in stream:
                break
        assert lists.in_flight == 0
        gc.collect()
        await anyio.lowlevel.checkpoint()
    assert caught == []


async def test_it_is_used_inside_of_its_block_and_once() -> None:
    """A stream that is not open, or was used before, says what to write instead."""
    stream = Lists(equal(1, 1)).stream()
    with pytest.raises(RuntimeError, match="inside of its block: async with"):
        await anext(aiter(stream))
    async with stream:
        pass
    with pytest.raises(RuntimeError, match="inside of its block"):
        await anext(stream.pages())
    with pytest.raises(RuntimeError, match="used once"):
        async with stream:
            pass

    async with Lists(equal(1, 2)).stream() as stream:
        await anext(aiter(stream))
    with pytest.raises(RuntimeError, match="inside of its block"):
        await anext(aiter(stream))
    assert stream.progress.customers == 1


async def test_two_tasks_cannot_wait_for_the_same_page() -> None:
    """A second task that asks a stream that is waiting gets an error."""
    lists, outcomes = Lists(equal(1, 1), latency=lambda *_: 1.0), list[object]()

    async def take() -> None:
        try:
            outcomes.append(len(await anext(stream.pages())))
        except RuntimeError as exc:
            outcomes.append(str(exc))

    async with lists.stream() as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        tasks.start_soon(take)
    assert sorted(map(str, outcomes)) == ["2", "this stream is already waiting for its next page in another task"]


async def test_progress_is_live() -> None:
    """The numbers are those of what was yielded, in total and by corporation, with what remains as far as is known."""
    lists = Lists(equal(2, 3))
    async with lists.stream(concurrency=1) as stream:
        progress = stream.progress
        assert (progress.pages, progress.customers, progress.remaining) == (0, 0, None)
        seen = 0
        async for _customer in stream:
            seen += 1
            assert (progress.customers, progress.finished) == (seen, seen // 6)
            assert progress.remaining == (6 - seen % 6) % 6
    assert (progress.pages, progress.customers, progress.finished, progress.failed) == (6, 12, 2, 0)
    assert {name: (each.pages, each.customers, each.remaining) for name, each in progress.corporations.items()} == {
        "c0": (3, 6, 0),
        "c1": (3, 6, 0),
    }


async def test_what_remains_is_not_always_known() -> None:
    """A server that does not say how many customers there are leaves the estimate empty, and one that lied makes it 0."""
    lists = Lists(equal(1, 3))
    fetch = lists.fetch
    totals: list[int | None] = [None, 1, None]

    async def untold(query: Any, cursor: str | None) -> Any:
        from dataclasses import replace

        return replace(await fetch(query, cursor), total_customers=totals.pop(0))

    lists.fetch = untold
    async with lists.stream() as stream:
        remaining: list[int | None] = []
        async for _page in stream.pages():
            remaining.append(stream.progress.remaining)
    assert remaining == [None, 0, 0]
    assert stream.progress.corporations["c0"].total_customers == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"corporation_ids": "c0"}, TypeError, "corporation_ids: expected several ids, got str"),
        ({"corporation_ids": 7}, TypeError, "corporation_ids: expected .*Iterable.*, got int"),
        ({"concurrency": 0}, ValueError, "concurrency: must be above 0"),
        ({"concurrency": 1.5}, TypeError, "concurrency: expected int"),
        ({"concurrency": 10**400}, ValueError, "concurrency: is too large"),
        ({"errors": "ignore"}, ValueError, 'errors: must be "raise" or "collect", got \'ignore\''),
        ({"errors": ["raise"]}, ValueError, 'errors: must be "raise" or "collect"'),
        ({"source_platform_ids": ["x" * 99] * 700}, ValueError, "source_platform_ids: .* too many for one URL"),
        ({"limit": 101}, ValueError, "limit: must be from 1 to 100"),
        ({"names": ["x"]}, TypeError, "names: not a parameter"),
        ({"resume": "{}"}, TypeError, "resume: expected Checkpoint, got str"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """What is wrong is said where the stream is made, with the name of the argument."""
    api = AsyncCustomersAPI("token-0")
    with pytest.raises(error, match=message):
        api.stream(**{"corporation_ids": ["c0"], **arguments})


def test_errors_are_one_family() -> None:
    """Every error of the SDK has a place for its checkpoint; it is empty until a list or stream raises it."""
    assert CustomersError("x").checkpoint is None


def test_it_can_be_made_before_there_is_an_event_loop() -> None:
    """Like a list, a stream may be made in plain code, and is used later."""
    lists = Lists(equal(2, 2))
    stream = lists.stream()

    async def read() -> int:
        async with stream:
            return len([customer async for customer in stream])

    assert anyio.run(read) == 8


def test_a_native_cancellation_is_not_swallowed() -> None:
    """`Task.cancel` comes once: it ends the task also when it meets a block that is being left by an exception."""
    lists = slow_to_end(0.05, 0.2)
    leaving = asyncio.Event()

    async def program() -> None:
        with contextlib.suppress(ValueError):
            async with lists.stream() as stream:
                async for _customer in stream:
                    leaving.set()
                    raise ValueError("mine")

    async def main() -> None:
        task = asyncio.create_task(program())
        await leaving.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
