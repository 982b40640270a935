"""Many corporations as one stream, over a function in place of a network."""

import gc
from collections import Counter
from typing import Any

import anyio
import pytest

from commenda_customers import AsyncCustomersAPI
from lists import Lists, equal

pytestmark = pytest.mark.anyio


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
    """An empty last page is yielded like any other, and counts once."""
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


async def test_a_page_that_waits_is_small() -> None:
    """The customers of a stream share equal sets of field names, else half of their memory. A large page is no exception."""
    lists = Lists({"a": [[f"{number}" for number in range(2500)]]})
    async with lists.stream() as stream:
        customers = [customer async for customer in stream]
    assert [customer.id for customer in customers] == lists.pages["a"][0]
    assert len({id(customer.model_fields_set) for customer in customers}) <= 3
    assert all(customer.model_fields_set == {"id", "corporation_id"} for customer in customers)


async def test_the_next_page_is_prefetched() -> None:
    """The next page is in flight while the program works on a page: 20 pages take 1.05 s, not 2."""
    lists = Lists(equal(1, 20), latency=lambda *_: 0.05)
    began = anyio.current_time()
    async with lists.stream() as stream:
        async for _page in stream.pages():
            await anyio.sleep(0.05)
    assert anyio.current_time() - began == pytest.approx(1.05)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
async def test_a_slow_program_slows_the_requests(concurrency: int) -> None:
    """At most one page of each corporation is ahead of the program (back-pressure)."""
    lists = Lists(equal(30, 5))
    taken = 0
    async with lists.stream(concurrency=concurrency) as stream:
        async for _page in stream.pages():
            taken += 1
            await anyio.sleep(10)
            assert len(lists.asked) - taken <= concurrency
    assert taken == 150


@pytest.mark.parametrize("work", [0.0, 0.02, 0.5])
async def test_equal_lists_stay_level(work: float) -> None:
    """No corporation falls more than two pages behind another, whether the server or the program is the slower."""
    lists = Lists(equal(16, 30), latency=lambda _corporation, number: 0.1 + 0.001 * (number % 7))
    counts = Counter(dict.fromkeys(lists.pages, 0))
    async with lists.stream(concurrency=16) as stream:
        async for page in stream.pages():
            counts[page.corporation_id] += 1
            assert max(counts.values()) - min(counts.values()) <= 2
            await anyio.sleep(work)


async def test_a_slow_corporation_delays_nobody() -> None:
    """Corporations whose pages are ready do not wait for one that is slow."""
    lists = Lists(equal(4, 10), latency=lambda corporation, _number: 10.0 if corporation == "c0" else 0.1)
    moments: dict[str, float] = {}
    began = anyio.current_time()
    async with lists.stream() as stream:
        async for page in stream.pages():
            moments[page.corporation_id] = anyio.current_time() - began
    assert moments["c0"] == pytest.approx(100)
    assert max(moments[name] for name in ("c1", "c2", "c3")) == pytest.approx(1)


async def test_a_second_loop_resumes() -> None:
    """A second loop, over customers or pages, resumes where the first was left."""
    lists = Lists(equal(1, 3, size=3))
    async with lists.stream() as stream:
        async for first in stream:
            assert first.id == "0.0.0"
            break
        async for page in stream.pages():
            assert [customer.id for customer in page] == ["0.0.1", "0.0.2"]
            break
        assert [customer.id async for customer in stream] == ["0.1.0", "0.1.1", "0.1.2", "0.2.0", "0.2.1", "0.2.2"]


async def test_skipping_finished_corporations_lets_other_tasks_run() -> None:
    """Other tasks run while a stream skips very many corporations that are finished."""
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
    """Memory holds one page for each corporation in flight, and the program's, however many customers there are."""
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


async def test_it_is_used_inside_of_its_block_and_once() -> None:
    """A stream that is not open, or was used before, says what to write instead."""
    stream = Lists(equal(1, 1)).stream()
    with pytest.raises(RuntimeError, match="inside its block: async with"):
        await anext(aiter(stream))
    async with stream:
        pass
    with pytest.raises(RuntimeError, match="inside its block"):
        await anext(stream.pages())
    with pytest.raises(RuntimeError, match="used only once"):
        async with stream:
            pass

    async with Lists(equal(1, 2)).stream() as stream:
        await anext(aiter(stream))
    with pytest.raises(RuntimeError, match="inside its block"):
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


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"corporation_ids": "c0"}, TypeError, "corporation_ids: expected an iterable of ids, got str"),
        ({"corporation_ids": 7}, TypeError, "corporation_ids: expected .*Iterable.*, got int"),
        ({"concurrency": 0}, ValueError, "concurrency: must be above 0"),
        ({"concurrency": 1.5}, TypeError, "concurrency: expected int"),
        ({"concurrency": 10**400}, ValueError, "concurrency: is too large"),
        ({"errors": "ignore"}, ValueError, 'errors: must be "raise" or "collect", got \'ignore\''),
        ({"errors": ["raise"]}, ValueError, 'errors: must be "raise" or "collect"'),
        ({"source_platform_ids": ["x" * 99] * 700}, ValueError, "source_platform_ids: .* too long for a URL"),
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


def test_it_can_be_made_before_there_is_an_event_loop() -> None:
    """Like a list, a stream may be made in plain code, and is used later."""
    lists = Lists(equal(2, 2))
    stream = lists.stream()

    async def read() -> int:
        async with stream:
            return len([customer async for customer in stream])

    assert anyio.run(read) == 8
