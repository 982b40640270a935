"""How a stream ends early: break, exception, timeout, cancellation."""

import asyncio
import contextlib
import gc
import warnings
from typing import Any

import anyio
import pytest

import virtual_time
from lists import Lists, equal

pytestmark = pytest.mark.anyio


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
    """An exception of the block survives a timeout that is over already, or ends while requests are cancelled."""
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
async def test_no_exception_is_lost_by_leaving_early(mistake: BaseException) -> None:
    """An exception of a hook is raised at the latest when the block is left."""
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


async def test_a_failure_is_not_raised_by_leaving_early() -> None:
    """A failed corporation is not raised when a program leaves the block early."""
    lists = Lists(equal(2, 2), failures={("c0", 1): 1, ("c1", 1): 1})
    async with lists.stream() as stream:
        async for _page in stream.pages():
            await anyio.sleep(1)
            break


async def test_a_reader_in_another_task_is_told_that_the_stream_is_closed() -> None:
    """If the block is left while another task waits for a page, that task is not cancelled: it gets an error."""
    lists, outcomes = Lists(equal(1, 1), latency=lambda *_: 100.0), list[str]()

    async def read(stream: Any) -> None:
        message = "another task closed this stream while this task was waiting for its next page"
        with pytest.raises(RuntimeError, match=f"^{message}$"):
            await anext(stream.pages())
        await anyio.sleep(1)
        outcomes.append("not cancelled")

    async with anyio.create_task_group() as tasks, lists.stream() as stream:
        tasks.start_soon(read, stream)
        await anyio.sleep(1)
    assert outcomes == ["not cancelled"]


@pytest.mark.parametrize("after", [number / 7 for number in range(30)])
async def test_a_timeout_leaves_nothing(after: float) -> None:
    """A stream that a timeout ends anywhere has no request in flight after its block."""
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


def test_a_native_cancellation_is_not_swallowed() -> None:
    """`Task.cancel` comes once: it ends the task also when it meets a block that is being left by an exception."""
    lists = slow_to_end(5, 20)
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
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    virtual_time.run(main, "asyncio")


def test_a_cancellation_from_inside_is_not_raised_by_leaving_early() -> None:
    """A request that waited for a future that somebody cancelled does not cancel a program that leaves the block early."""
    lists = Lists(equal(2, 2))
    fetch = lists.fetch

    async def cancelled(query: Any, cursor: str | None) -> Any:
        if cursor is not None:
            raise asyncio.CancelledError
        return await fetch(query, cursor)

    async def main() -> str:
        lists.fetch = cancelled
        async with lists.stream() as stream:
            async for _page in stream.pages():
                await asyncio.sleep(1)
                break
        return "left"

    assert virtual_time.run(main, "asyncio") == "left"
