"""Where a stream gets its ids from: iterators, generators, queues."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from lists import Lists, equal

pytestmark = pytest.mark.anyio


async def test_ids_are_read_when_they_are_needed() -> None:
    """An id is read when its corporation can start, and not before."""
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


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["c0", "c1", "c0"], ValueError, "corporation_ids: 'c0' is given twice"),
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
    """What the iterator of ids raises reaches the program unchanged."""

    def ids() -> Iterator[str]:
        yield "c0"
        raise LookupError("database")

    with pytest.raises(LookupError, match="database"):
        async with Lists(equal(1, 5), latency=lambda *_: 1.0).stream(ids()) as stream:
            [customer async for customer in stream]


async def test_closing_the_ids_may_fail() -> None:
    """An exception of the generator's clean-up is raised; clean-up that hangs is abandoned after five seconds."""

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


async def test_a_started_generator_is_closed() -> None:
    """A generator of ids that the program has started is closed, even if the stream reads nothing of it."""
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
