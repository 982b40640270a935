"""Random stories of several processes that share one log."""

from random import Random

import anyio
import pytest

import virtual_time
from commenda_customers import Feedback
from commenda_customers.limits._shared import SharedLimiter
from memory_log import MemoryLog, Store

FEEDBACKS = [
    *[Feedback(is_answered=True)] * 12,
    *[Feedback(is_answered=True, is_throttled=True)] * 3,
    Feedback(is_answered=True, is_throttled=True, wait=2.0),
    Feedback(is_answered=True, is_failed=True),
    Feedback(is_failed=True),
    Feedback(is_rejected=True),
    Feedback(is_answered=True, remaining=0),
    Feedback(is_answered=True, remaining=5),
    Feedback(),
]
LONGEST_WAIT = 60.0
"""Seconds. Probes of a server that refuses are eight seconds apart, and a rate that many refusals have cut is slow."""


class Story:
    """Processes that come and go, requests that end in all ways or hang, and a log that has every trouble."""

    def __init__(self, seed: int) -> None:
        self.random, self.store = Random(seed), Store()
        self.limiters: list[SharedLimiter] = []
        self.longest = 0.0
        self.is_over = False

    async def process(self) -> None:
        random = self.random
        limiter = SharedLimiter(MemoryLog(self.store, random.choice([0.0, 0.002, 0.2])), name="prod", max_in_flight=8)
        self.limiters.append(limiter)
        async with limiter, anyio.create_task_group() as tasks:
            for _ in range(random.randint(1, 6)):
                tasks.start_soon(self.requests, limiter)
            with anyio.move_on_after(random.choice([1.0, 5.0, 20.0, 60.0])):
                while not self.is_over:
                    await anyio.sleep(1)
                    assert isinstance(limiter._log, MemoryLog)
                    limiter._log.is_cut = random.random() < 0.1
            tasks.cancel_scope.cancel()

    async def requests(self, limiter: SharedLimiter) -> None:
        random = self.random
        while True:
            await anyio.sleep(random.choice([0.0, 0.0, 0.1, 3.0]))
            began = anyio.current_time()
            with anyio.move_on_after(random.choice([0.5, 1000.0, 1000.0, 1000.0])):
                try:
                    permit = await limiter.acquire(again=random.random() < 0.2)
                finally:
                    self.longest = max(self.longest, anyio.current_time() - began)
                feedback = Feedback()
                try:
                    await anyio.sleep(random.choice([0.01, 0.1, 0.1, 0.1, 1.0, 30.0]))
                    feedback = random.choice(FEEDBACKS if self.is_bad else FEEDBACKS[:1])
                finally:
                    limiter.release(permit, feedback)

    @property
    def is_bad(self) -> bool:
        return int(anyio.current_time() / 5) % 2 == 0

    async def trouble(self) -> None:
        store, random = self.store, self.random
        while not self.is_over:
            await anyio.sleep(random.choice([0.5, 3.0, 5.0]))
            match random.randrange(7):
                case 0:
                    store.is_away = not store.is_away
                case 1:
                    store.is_refusing = not store.is_refusing
                case 2:
                    store.clear()
                case 3:
                    store.ahead += random.choice([-100.0, -3.0, 3.0, 100.0])
                case 4:
                    store.kept = random.choice([0, 3, 8000])
                case 5:
                    store.append("garbage")
                case _:
                    store.is_away = store.is_refusing = False

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.trouble)
            for _ in range(10):
                tasks.start_soon(self.process)
                await anyio.sleep(self.random.choice([0.0, 0.5, 6.0]))
            await anyio.sleep(30)
            self.is_over = True
        for limiter in self.limiters:
            snapshot = limiter.snapshot()
            assert (snapshot.in_flight, snapshot.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(10))
def test_every_request_begins(seed: int) -> None:
    """Whatever happens to the log, to the processes and to other requests, each request begins before long."""
    story = Story(seed)
    virtual_time.run(story.run, "asyncio" if seed % 2 else "trio")
    assert story.longest <= LONGEST_WAIT
