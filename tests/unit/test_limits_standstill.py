"""Processes that all stand still, as if their machine was suspended; and a log whose clock is put forward."""

from contextlib import AsyncExitStack

import anyio
import pytest

from commenda_customers import Feedback
from commenda_customers.limits._log import Entry
from commenda_customers.limits._replica import Message, Replica
from commenda_customers.limits._shared import SharedLimiter
from memory_log import MemoryLog, Store


def entry(at: float, member: str, brings: float | None = None) -> Entry:
    """Return a message."""
    return Entry(f"{round(at * 1000)}-0", Message(member, at, wanted=50.0, brings=brings).text())


def test_what_was_known_holds_if_nobody_was_alone() -> None:
    """Members that continue without a rate of their own have learned nothing else in between."""
    replica = Replica()
    replica.apply([entry(100, "a", brings=30.0), entry(100.25, "b"), entry(105, "b"), entry(105.125, "a")])
    assert replica.controller.rate == 30
    assert set(replica.members) == {"a", "b"}
    replica.apply(entry(105.5 + second, "b") for second in range(4))
    assert set(replica.members) == {"b"}


@pytest.mark.parametrize("brings", [None, 20.0])
def test_what_was_known_does_not_hold_for_others(brings: float | None) -> None:
    """A member that was alone knows better, and a new one does not know whether the others were."""
    replica = Replica()
    replica.apply([entry(100, "a", brings=30.0), entry(100.25, "b"), entry(105, "b" if brings else "c", brings=brings)])
    assert replica.controller.is_limited == bool(brings)
    assert replica.controller.rate == brings or not brings
    assert len(replica.members) == 1


@pytest.mark.anyio
async def test_a_clock_that_is_put_forward() -> None:
    """The processes keep their rate, and share it."""
    store = Store()
    async with AsyncExitStack() as stack:
        limiters = [await stack.enter_async_context(SharedLimiter(MemoryLog(store), name="prod")) for _ in range(3)]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        level = 10.0

        async def fill() -> None:
            nonlocal level
            while True:
                await anyio.sleep(0.1)
                level = min(10, level + 5)

        async def use(limiter: SharedLimiter) -> None:
            nonlocal level
            while True:
                permit = await limiter.acquire()
                is_refused, level = level < 1, max(0, level - 1)
                await anyio.sleep(0.02)
                limiter.release(permit, Feedback(is_answered=True, is_throttled=is_refused))

        tasks.start_soon(fill)
        for limiter in limiters:
            for _ in range(4):
                tasks.start_soon(use, limiter)
        await anyio.sleep(10)
        before = sum(limiter.snapshot().rate or 0 for limiter in limiters)
        store.ahead += 60
        await anyio.sleep(2)
        after = sum(limiter.snapshot().rate or 0 for limiter in limiters)
        assert all("shared with 2 other processes" in repr(limiter) for limiter in limiters)
        tasks.cancel_scope.cancel()

    assert 30 < before < 80
    assert 0.7 * before < after < 1.5 * before
