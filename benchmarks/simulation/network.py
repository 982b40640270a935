"""The way to a server and back, the job, and how long it takes in virtual time."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import anyio
import trio.testing

from .servers import Scenario, Server

CORPORATIONS = 200
GLANCE = 0.1
"""Seconds after which a queue at the server looks again, in case the limit has changed meanwhile."""


@dataclass(frozen=True)
class Setting:
    """
    How the job is done.

    Attributes:
        pages: Pages of each corporation, one after the other.
        at_once: Requests that may be in flight at once.
        round_trip: Seconds from a request to its answer, about.
    """

    pages: int = 50
    at_once: int = 32
    round_trip: float = 0.15


@dataclass(frozen=True)
class Answer:
    """What a client sees of an answer. If the connection was closed in place of one, the status is `CLOSED`."""

    status: int
    retry_after: int | None = None
    remaining: int | None = None


@dataclass
class Run:
    """What came of a run: the moments at which requests were admitted and refused, and the pages of each corporation."""

    seconds: float = 0.0
    admitted: list[float] = field(default_factory=list[float])
    refused: list[float] = field(default_factory=list[float])
    pages: Counter[int] = field(default_factory=Counter[int])
    pages_at_half_time: list[int] = field(default_factory=list[int])
    lost: int = 0

    def refused_part(self) -> float:
        """Return the part of the requests that were refused."""
        return len(self.refused) / (len(self.refused) + len(self.admitted))

    def fairness(self) -> float:
        """Return Jain's index of the pages at half time: 1 if all corporations have got as many, 1/n if one has got all."""
        pages = self.pages_at_half_time
        return sum(pages) ** 2 / (CORPORATIONS * sum(read**2 for read in pages)) if pages else 0.0


class Client(Protocol):
    """A program that fetches pages."""

    async def fetch(self, corporation: int) -> None:
        """Fetch a page of a corporation, however often it has to ask."""
        ...


class Network:
    """
    The way to a server and back, of which each takes a seventh of the round trip; the rest is the server's.

    All times are drawn from lognormal distributions, which have the long tail of real ones.
    """

    def __init__(self, scenario: Scenario, setting: Setting, seed: int) -> None:
        self.scenario, self.setting = scenario, setting
        self.draw = random.Random(seed)
        self.server = scenario.make(self.draw)
        self.own = [scenario.make_own(self.draw) for _ in range(CORPORATIONS)] if scenario.make_own else None
        self.turn = anyio.Lock()
        self.run = Run()
        self.requests = self.at_work = 0

    async def send(self, corporation: int, *, queues: bool = False) -> Answer:
        """Send a request and return its answer. Who *queues* is never refused."""
        await self._travel()
        self.requests += 1
        limits = [self.own[corporation], self.server] if self.own else [self.server]
        if queues:
            await self._queue_at_server(limits)
        elif self._is_unlucky() or not all(limit.admits(anyio.current_time()) for limit in limits):
            return await self._refuse(limits)

        self.run.admitted.append(anyio.current_time())
        remaining = self._remaining()
        await self._work()
        self.server.done()
        await self._travel(is_back=True)
        failed = self.draw.random() < self.scenario.failures
        return Answer(500 if failed else 200, remaining=remaining)

    def _is_unlucky(self) -> bool:
        """Return whether a request is refused although there is room for it."""
        scenario = self.scenario
        return self.requests in scenario.strays or (scenario.chance > 0 and self.draw.random() < scenario.chance)

    async def _work(self) -> None:
        """Let the server find the answer."""
        scenario = self.scenario
        if self.requests == 1:
            await anyio.sleep(scenario.first_takes)
        self.at_work += 1
        slowness = max(1.0, self.at_work / scenario.workers) ** scenario.congestion
        await self._pass(2 / 7 if scenario.is_jittery else 5 / 7, spread=0.5, slowness=slowness)
        self.at_work -= 1

    async def _travel(self, *, is_back: bool = False) -> None:
        if self.scenario.is_jittery and not is_back:
            await self._pass(4 / 7, spread=0.6)
        else:
            await self._pass(1 / 7, spread=0.25)

    async def _pass(self, part: float, *, spread: float, slowness: float = 1.0) -> None:
        """Let a part of the round trip pass, on average."""
        mean = math.log(part * self.setting.round_trip * slowness) - spread**2 / 2
        await anyio.sleep(self.draw.lognormvariate(mean, spread))

    async def _queue_at_server(self, limits: Sequence[Server]) -> None:
        *own, shared = limits
        for limit in own:  # each holds one request at a time, so it needs no queue
            await _admission(limit)
        async with self.turn:
            await _admission(shared)

    async def _refuse(self, limits: Sequence[Server]) -> Answer:
        now = anyio.current_time()
        self.run.refused.append(now)
        wait = max(limit.wait(now) for limit in limits)
        retry_after = max(1, math.ceil(wait)) if self.scenario.says_when else None
        remaining = self._remaining()
        self.server.refused(now)
        await anyio.sleep(self.setting.round_trip / 30)  # a refusal is little work
        await self._travel(is_back=True)
        return Answer(self.scenario.refuses_with, retry_after, remaining)

    def _remaining(self) -> int | None:
        return self.server.remaining() if self.scenario.says_remaining else None


async def _admission(limit: Server) -> None:
    """Wait until there is room."""
    while not limit.admits(anyio.current_time()):  # noqa: ASYNC110 - what is waited for is the clock
        await anyio.sleep(min(GLANCE, limit.wait(anyio.current_time())))


async def read_all(
    scenario: Scenario, make_client: Callable[[Network], Client], setting: Setting, seed: int, patience: float
) -> Run:
    """Read all corporations at the same time, each page by page. Those not read after *patience* seconds are lost."""
    network = Network(scenario, setting, seed)
    client, run = make_client(network), network.run
    until_half_time = count(CORPORATIONS * setting.pages // 2 - 1, -1)

    async def walk(corporation: int) -> None:
        for _ in range(setting.pages):
            await client.fetch(corporation)
            run.pages[corporation] += 1
            if next(until_half_time) == 0:
                run.pages_at_half_time = list(run.pages.values())
        run.seconds = anyio.current_time() - began

    async def change() -> None:
        for when, factor in scenario.changes:
            await anyio.sleep_until(began + when)
            network.server.change(anyio.current_time(), factor)

    began = anyio.current_time()
    with anyio.move_on_after(patience):
        async with anyio.create_task_group() as changing:
            changing.start_soon(change)
            async with anyio.create_task_group() as walking:
                for corporation in range(CORPORATIONS):
                    walking.start_soon(walk, corporation)
            changing.cancel_scope.cancel()
    run.lost = CORPORATIONS - sum(read == setting.pages for read in run.pages.values())
    return run


def in_virtual_time(
    scenario: Scenario,
    make_client: Callable[[Network], Client],
    setting: Setting,
    seed: int = 0,
    patience: float = math.inf,
) -> Run:
    """Let a contender do the job, without waiting for it."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    options = {"clock": clock}
    return anyio.run(read_all, scenario, make_client, setting, seed, patience, backend="trio", backend_options=options)
