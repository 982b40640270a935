"""Processes that all stand still, as if their machine was suspended."""

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
@pytest.mark.parametrize("loses", ["entries", "answers"])
async def test_a_pause_outlives_the_log(loses: str) -> None:
    """If the server asked to wait for an hour, no process sends a request because the log was lost."""
    store = Store()
    async with (
        SharedLimiter(MemoryLog(store), name="prod") as one,
        SharedLimiter(MemoryLog(store), name="prod") as other,
    ):
        for wait in [None] * 40 + [3600.0] * 5:
            with anyio.move_on_after(1):
                permit = await one.acquire()
                one.release(permit, Feedback(is_answered=True, is_throttled=wait is not None, wait=wait))
        await anyio.sleep(1)
        assert min(one.snapshot().paused_for, other.snapshot().paused_for) > 3500
        if loses == "entries":
            store.clear()
        else:
            store.is_away = True
            await anyio.sleep(30)
            store.is_away = False
        await anyio.sleep(10)
        assert "shared with 1 other process" in repr(one)
        assert min(one.snapshot().paused_for, other.snapshot().paused_for) > 3500
