"""What the limiter itself costs: CPU time, in real time and without a network."""

import statistics
import time
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

from commenda_customers import AdaptiveLimiter, Feedback
from commenda_customers.limits import Permit

ROUNDS, REQUESTS, TASKS = 40, 2000, 20
ANSWERED, PERMIT = Feedback(is_answered=True), Permit(0.0, 1)


class Limiter(Protocol):
    async def acquire(self) -> Permit: ...

    def release(self, permit: Permit, feedback: Feedback) -> None: ...


class Bare:
    """No limiter: what the loop itself costs."""

    async def acquire(self) -> Permit:
        return PERMIT

    def release(self, permit: Permit, feedback: Feedback) -> None:
        pass


async def one_by_one(limiter: Limiter) -> None:
    """Make requests that need not wait."""
    for _ in range(REQUESTS):
        limiter.release(await limiter.acquire(), ANSWERED)


async def in_line(limiter: Limiter) -> None:
    """Make requests that wait for their turn, each in a queue of others."""

    async def task() -> None:
        for _ in range(REQUESTS // TASKS):
            permit = await limiter.acquire()
            await checkpoint()
            limiter.release(permit, ANSWERED)

    async with anyio.create_task_group() as tasks:
        for _ in range(TASKS):
            tasks.start_soon(task)


async def cpu_per_request() -> tuple[float, float]:
    """Return the microseconds of `acquire` and `release` without a wait and with one, beyond those of a bare loop."""
    medians: list[float] = []
    for make_requests in (one_by_one, in_line):
        rounds: list[float] = []
        for _ in range(ROUNDS):
            began = time.process_time()
            await make_requests(Bare())
            between = time.process_time()
            await make_requests(AdaptiveLimiter(max_in_flight=1))
            rounds.append((time.process_time() - between) - (between - began))
        medians.append(1e6 * statistics.median(rounds) / REQUESTS)
    return medians[0], medians[1]
