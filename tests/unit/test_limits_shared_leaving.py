"""Shared limiters that are cancelled after one step of the event loop, after two, and so on to their end."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

import virtual_time
from cancelling import WAYS, Cancel
from commenda_customers import Feedback
from commenda_customers.limits._shared import SharedLimiter
from memory_log import MemoryLog, Store

OK = Feedback(is_answered=True)


class SteppingLog(MemoryLog):
    """A log whose calls take several steps."""

    async def _come_back(self) -> None:
        for _ in range(3):
            await checkpoint()


@pytest.mark.parametrize("hangs", ["", "open", "read", "exchange"])
@pytest.mark.parametrize(("backend", "cancel"), WAYS)
def test_it_can_be_cancelled_at_each_step(backend: str, cancel: Cancel, hangs: str) -> None:
    """Cancelled at any step, it ends as itself, leaves nothing open and no task, and can be entered again."""

    async def main() -> None:
        outcomes: list[bool] = []
        while len(outcomes) < 60 or (any(outcomes[-10:]) and not hangs):
            store = Store()
            limiter = SharedLimiter(SteppingLog(store), name="prod")
            log = limiter._log
            assert isinstance(log, MemoryLog)
            log.hangs = {hangs}
            before = {task.id for task in anyio.get_running_tasks()}

            async def block(limiter: SharedLimiter = limiter) -> None:
                async with limiter:
                    for _ in range(3):
                        limiter.release(await limiter.acquire(), OK)
                        await checkpoint()

            with anyio.fail_after(5):
                outcomes.append(await cancel(block, len(outcomes)))
            for _ in range(3):
                await checkpoint()
            assert {task.id for task in anyio.get_running_tasks()} <= before
            assert not log.is_open
            assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0

            log.hangs = set()
            async with limiter, SharedLimiter(SteppingLog(store), name="prod") as other:
                limiter.release(await limiter.acquire(), OK)
                await anyio.sleep(4.5)
                assert "shared with 1 other" in repr(other)
        assert any(outcomes)
        assert hangs or not all(outcomes)

    virtual_time.run(main, backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_beat_can_be_cancelled_at_each_step(backend: str) -> None:
    """Cancelled while messages are exchanged, it tells the others that it leaves."""

    async def main() -> None:
        for steps in range(40):
            store = Store()
            async with SharedLimiter(SteppingLog(store), name="prod") as other:
                async with SharedLimiter(SteppingLog(store), name="prod") as limiter:
                    limiter.release(await limiter.acquire(), OK)
                    await anyio.sleep(0.25)
                    for _ in range(steps):
                        await checkpoint()
                await anyio.sleep(1.1)
                assert "shared with 0 other" in repr(other)

    virtual_time.run(main, backend)
