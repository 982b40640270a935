"""
A fleet: several processes that read from one simulated server through one quota, all in virtual time.

What one process knows reaches the others only through the log, and takes time. Nothing else is shared. A run with the same
seed comes out the same every time: also the names of the processes, and their clocks, which are all wrong.
"""

import random
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace

import anyio
import trio.testing
from trio._core import _run as scheduler

from commenda_customers import AdaptiveLimiter
from commenda_customers.limits import _shared
from commenda_customers.limits._shared import SharedLimiter

from .contenders import Limited, RetryAfterEach
from .memory_log import EPOCH, MemoryLog, Store
from .network import CORPORATIONS, Client, Network, Setting
from .servers import SCENARIOS, Known

SHARED, APART, TOLD = "RedisLimiter", "AdaptiveLimiter in each", "told the limit"
"""The contenders: learn together; know nothing of each other; share a token bucket at the documented rate."""

IN_FLIGHT = 64
"""Requests of all processes that may be in flight at once, however many processes there are."""

CLOCKS = 60.0
"""Seconds by which the clock of a machine is wrong at most."""


@dataclass(frozen=True, kw_only=True)
class Events:
    """
    What happens to a fleet. All times are seconds after its beginning.

    Attributes:
        deaths: When processes are killed.
        dead: So many of them.
        outage: When the log goes away, and for how long.
        joins_at: When the last process joins.
        slow_way: What a call of the log takes the last process one way.
        modest: Requests per second that the last process wants; the others want as many as they get.
    """

    deaths: float | None = None
    dead: int = 1
    outage: tuple[float, float] | None = None
    joins_at: float = 0.0
    slow_way: float | None = None
    modest: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    A run of a fleet.

    Attributes:
        server: The server, by its name.
        processes: How many.
        contender: What they do about the limit.
        seconds: For how long.
        round_trip: Seconds from a request to its answer.
        delay: Seconds from a process to the log.
        events: What happens meanwhile.
        seed: What it draws its random numbers from.
    """

    server: str
    processes: int
    contender: str = SHARED
    seconds: float = 120.0
    round_trip: float = 0.15
    delay: float = 0.0005
    events: Events = Events()
    seed: int = 0


@dataclass
class Traffic:
    """
    What came of a run. All times are seconds after its beginning.

    Attributes:
        pages: When each process got its pages.
        waits: What the pages took that the modest process asked for.
        admitted: When the server let requests pass.
        refused: When it refused them.
        calls: Calls of the log.
        characters: What went through it.
    """

    pages: list[list[float]]
    waits: list[float] = field(default_factory=list[float])
    admitted: list[float] = field(default_factory=list[float])
    refused: list[float] = field(default_factory=list[float])
    calls: int = 0
    characters: int = 0

    def refused_part(self) -> float:
        """Return the part of the requests that were refused."""
        return len(self.refused) / max(1, len(self.refused) + len(self.admitted))

    def evenness(self) -> float:
        """Return what the slowest process got for each page of the fastest."""
        pages = [len(times) for times in self.pages]
        return min(pages) / max(pages)


class TokenBucket:
    """One bucket for all processes, without any delay: the best that a rate limiter in Redis with a fixed rate can be."""

    def __init__(self, known: Known) -> None:
        self._interval, self._burst = known.per / known.limit, known.limit
        self._next = 0.0

    async def take(self) -> None:
        """Wait for a token."""
        now = anyio.current_time()
        self._next = max(self._next, now - (self._burst - 1) * self._interval)
        begins, self._next = self._next, self._next + self._interval
        await anyio.sleep_until(max(now, begins))


class Told(RetryAfterEach):
    """A program that takes a token for each request, and waits by itself where a request is refused nevertheless."""

    def __init__(self, network: Network, bucket: TokenBucket) -> None:
        super().__init__(network)
        self._bucket = bucket

    async def wait_for_all(self) -> None:
        await self._bucket.take()


class Fleet:
    """Runs a plan once."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.scenario = plan, SCENARIOS[plan.server]
        self.limiters: dict[int, SharedLimiter] = {}
        at_once = max(1, IN_FLIGHT // plan.processes)
        self.network = Network(self.scenario, Setting(at_once=at_once, round_trip=plan.round_trip), plan.seed)
        self.store = Store()
        self.traffic = Traffic([[] for _ in range(plan.processes)])
        self._bucket = TokenBucket(self.network.server.known())
        self._began = 0.0
        self._logs: dict[int, MemoryLog] = {}
        self._scopes = [anyio.CancelScope() for _ in range(plan.processes)]

    async def run(self) -> Traffic:
        """Run it."""
        self._began = anyio.current_time()
        with _seeded(self.plan.seed), anyio.move_on_after(self.plan.seconds):
            async with anyio.create_task_group() as tasks:
                for happens in (self._change, self._kill, self._go_away):
                    tasks.start_soon(happens)
                for number in range(self.plan.processes):
                    tasks.start_soon(self._process, number)
        run, traffic = self.network.run, self.traffic
        traffic.admitted, traffic.refused = ([at - self._began for at in times] for times in (run.admitted, run.refused))
        traffic.calls, traffic.characters = self.store.calls, self.store.characters
        return traffic

    async def _process(self, number: int) -> None:
        is_last, events = number == self.plan.processes - 1, self.plan.events
        if is_last:
            await self._until(events.joins_at)
        with self._scopes[number]:
            async with self._open(number) as client, anyio.create_task_group() as tasks:
                if is_last and events.modest is not None:
                    await self._read_now_and_then(number, client, events.modest)
                for corporation in range(number, CORPORATIONS, self.plan.processes):
                    tasks.start_soon(self._read, number, client, corporation)

    def _open(self, number: int) -> AbstractAsyncContextManager[Client]:
        makers = {SHARED: self._shared, APART: self._apart, TOLD: self._told}
        return makers[self.plan.contender](number)

    @asynccontextmanager
    async def _shared(self, number: int) -> AsyncGenerator[Client]:
        slow_way, is_last = self.plan.events.slow_way, number == self.plan.processes - 1
        log = MemoryLog(self.store, slow_way if is_last and slow_way is not None else self.plan.delay)
        self._logs[number] = log
        limiter = SharedLimiter(log, name="simulated", max_in_flight=self.network.setting.at_once)
        async with limiter:
            self.limiters[number] = limiter
            yield Limited(self.network, limiter)

    @asynccontextmanager
    async def _apart(self, _number: int) -> AsyncGenerator[Client]:
        yield Limited(self.network, AdaptiveLimiter(max_in_flight=self.network.setting.at_once))

    @asynccontextmanager
    async def _told(self, _number: int) -> AsyncGenerator[Client]:
        yield Told(self.network, self._bucket)

    async def _read(self, number: int, client: Client, corporation: int) -> None:
        """Read an endless list."""
        while True:
            await client.fetch(corporation)
            self.traffic.pages[number].append(anyio.current_time() - self._began)

    async def _read_now_and_then(self, number: int, client: Client, rate: float) -> None:
        """Ask for so many pages per second, whether those before have come or not."""

        async def fetch(asked: float) -> None:
            await client.fetch(0)
            now = anyio.current_time()
            self.traffic.pages[number].append(now - self._began)
            self.traffic.waits.append(now - asked)

        async with anyio.create_task_group() as tasks:
            for asked in count(anyio.current_time(), 1 / rate):
                await anyio.sleep_until(asked)
                tasks.start_soon(fetch, asked)

    async def _change(self) -> None:
        for when, factor in self.scenario.changes:
            await self._until(when)
            self.network.server.change(anyio.current_time(), factor)

    async def _kill(self) -> None:
        """Kill processes. None of them says goodbye."""
        if self.plan.events.deaths is None:
            return
        await self._until(self.plan.events.deaths)
        for number in range(self.plan.events.dead):
            self._logs[number].die()
            self._scopes[number].cancel()

    async def _go_away(self) -> None:
        """Let the log hang for a while."""
        if self.plan.events.outage is None:
            return
        when, seconds = self.plan.events.outage
        await self._until(when)
        self.store.is_away = True
        await anyio.sleep(seconds)
        self.store.is_away = False

    async def _until(self, seconds: float) -> None:
        await anyio.sleep_until(self._began + seconds)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let a run come out the same every time: draw names from the seed, and have clocks that are wrong by as much."""
    draw, state = random.Random(seed), random.getstate()
    token_hex, machine, is_fixed = secrets.token_hex, _shared.time, scheduler._ALLOW_DETERMINISTIC_SCHEDULING

    def wrong() -> float:
        return EPOCH + anyio.current_time() + draw.uniform(-CLOCKS, CLOCKS)

    random.seed(seed)
    # Trio runs tasks in a random order. Nothing public makes that come out the same; pytest-trio does it like this.
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(seed)
    secrets.token_hex = lambda size=None: draw.randbytes(size or 6).hex()  # type: ignore[assignment]
    _shared.time = SimpleNamespace(time=wrong)  # type: ignore[assignment]
    try:
        yield
    finally:
        random.setstate(state)
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = is_fixed  # type: ignore[misc]
        secrets.token_hex, _shared.time = token_hex, machine


def run(plan: Plan) -> Traffic:
    """Run a plan, without waiting for it."""
    options = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return anyio.run(_run, plan, backend="trio", backend_options=options)


async def _run(plan: Plan) -> Traffic:
    return await Fleet(plan).run()
