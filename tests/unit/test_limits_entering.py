"""Where a shared limiter may be entered, used and left."""

import anyio
import pytest

import virtual_time
from commenda_customers import Feedback
from commenda_customers.limits._shared import SharedLimiter
from memory_log import MemoryLog, Store

OK = Feedback(is_answered=True)


def make() -> SharedLimiter:
    """Return a limiter that is the only one with its log."""
    return SharedLimiter(MemoryLog(Store()), name="prod")


async def request(limiter: SharedLimiter) -> None:
    """Send a request that takes a hundredth of a second."""
    permit = await limiter.acquire()
    await anyio.sleep(0.01)
    limiter.release(permit, OK)


@pytest.mark.anyio
async def test_requests_that_wait_go_on_when_it_is_left() -> None:
    """A request does not wait for messages that will never come."""
    limiter = make()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, limiter:
            for _ in range(20):
                tasks.start_soon(request, limiter)
            await anyio.sleep(0.015)  # the first ones have ended, and the others do not know yet

    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0


@pytest.mark.anyio
async def test_only_one_task_can_enter_it() -> None:
    """A second task is refused, also while the first one still connects."""
    limiter, refused = make(), list[str]()

    async def enter() -> None:
        try:
            async with limiter:
                await anyio.sleep(1)
        except RuntimeError as exc:
            refused.append(str(exc))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        tasks.start_soon(enter)

    assert refused == ["this limiter is in use already; enter it once, around all clients that share it"]


def test_each_event_loop_has_to_enter_it() -> None:
    """If an event loop ends inside of the block, as after a fork, the limiter has to be entered again."""
    limiter = make()

    async def go_on() -> None:
        with pytest.raises(RuntimeError, match="not open here"):
            await limiter.acquire()
        async with limiter:
            await request(limiter)

    virtual_time.run(limiter.__aenter__, "asyncio")
    virtual_time.run(go_on, "asyncio")
