"""
How much of a server's rate limit is used, and how many requests are refused? In virtual time, so that hours take seconds.

The real `AdaptiveLimiter` with its real waiting, and what programs do without one, read 200 corporations of 50 pages from
simulated servers. *Share* is the time of an ideal client, which a server keeps in a queue instead of refusing it, divided by
the time of the contender; *refused* is the part of the requests that were answered with 429.

    python benchmarks/limits.py [--plot docs/rate-limits.svg]
"""

import argparse
import math
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio
import trio.testing

from commenda_customers import AdaptiveLimiter, Feedback

CORPORATIONS, PAGES, AT_ONCE = 200, 50, 32
LATENCY = 0.02
"""Median seconds to the server, and back."""
SERVICE = 0.1
"""Median seconds in which the server answers."""


class Server:
    """What a server counts. `factor` is the part of its limit that is left to us."""

    factor = 1.0

    def admits(self, now: float) -> bool:
        """Count a request, if there is room for it."""
        raise NotImplementedError

    def wait(self, now: float) -> float:
        """Return the seconds until there may be room."""
        raise NotImplementedError

    def done(self) -> None:
        """Take note that a request was answered."""


class Bucket(Server):
    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, burst, 0.0

    def wait(self, now: float) -> float:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate * self.factor)
        self.at = now
        return max(0.0, (1 - self.tokens) / (self.rate * self.factor))

    def admits(self, now: float) -> bool:
        if self.wait(now):
            return False
        self.tokens -= 1
        return True


class Window(Server):
    def __init__(self, quota: int, per: float, *, slides: bool = False) -> None:
        self.quota, self.per, self.slides = quota, per, slides
        self.log: deque[float] = deque()

    def wait(self, now: float) -> float:
        begin = now - self.per if self.slides else now // self.per * self.per
        while self.log and self.log[0] <= begin - (0 if self.slides else 1e-9):
            self.log.popleft()
        if len(self.log) < self.quota * self.factor:
            return 0.0
        return (self.log[0] if self.slides else begin) + self.per - now

    def admits(self, now: float) -> bool:
        if self.wait(now) > 0:
            return False
        self.log.append(now)
        return True


class InFlight(Server):
    def __init__(self, limit: int) -> None:
        self.limit, self.active = limit, 0

    def wait(self, now: float) -> float:  # noqa: ARG002 - nobody can know
        return 0.0 if self.active < self.limit else 0.002

    def admits(self, now: float) -> bool:
        if self.wait(now):
            return False
        self.active += 1
        return True

    def done(self) -> None:
        self.active -= 1


@dataclass
class Scenario:
    """A server, whether its 429s have a `Retry-After`, and how its limit changes: (when, to which part)."""

    make: Callable[[], Server]
    says_when: bool = False
    changes: tuple[tuple[float, float], ...] = ()


SCENARIOS = {
    "bucket 50/s, burst 50": Scenario(lambda: Bucket(50, 50)),
    "bucket 50/s, burst 10, Retry-After": Scenario(lambda: Bucket(50, 10), says_when=True),
    "bucket 5/s, burst 5, Retry-After": Scenario(lambda: Bucket(5, 5), says_when=True),
    "bucket 150/s, burst 30": Scenario(lambda: Bucket(150, 30)),
    "bucket 50/s that halves": Scenario(lambda: Bucket(50, 50), changes=((30, 0.5),)),
    "bucket 50/s with a rival": Scenario(lambda: Bucket(50, 50), says_when=True, changes=((20, 0.5), (50, 1.0))),
    "window of 50 per 1 s": Scenario(lambda: Window(50, 1)),
    "window of 3000 per 60 s, Retry-After": Scenario(lambda: Window(3000, 60), says_when=True),
    "sliding 500 per 10 s": Scenario(lambda: Window(500, 10, slides=True)),
    "10 requests in flight": Scenario(lambda: InFlight(10)),
    "no limit in reach": Scenario(lambda: Bucket(1000, 1000)),
}


@dataclass
class Run:
    """What came of a run: its length, and the moments at which requests were admitted and refused."""

    seconds: float = 0.0
    admitted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)


class Network:
    """The way to a server and back."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.server = scenario.make()
        self.says_when = scenario.says_when
        self.draw = random.Random(seed)
        self.turn = anyio.Lock()
        self.run = Run()

    async def send(self, *, queues: bool = False) -> Feedback:
        """Send a request and return what a client learns from its answer. Who *queues* is never refused."""
        await anyio.sleep(self.draw.lognormvariate(math.log(LATENCY), 0.25))
        if queues:
            async with self.turn:
                while not self.server.admits(anyio.current_time()):  # noqa: ASYNC110 - what is waited for is the clock
                    await anyio.sleep(max(0.001, self.server.wait(anyio.current_time())))
        elif not self.server.admits(anyio.current_time()):
            self.run.refused.append(anyio.current_time())
            wait = max(1, math.ceil(self.server.wait(anyio.current_time()))) if self.says_when else None
            await anyio.sleep(0.005 + self.draw.lognormvariate(math.log(LATENCY), 0.25))
            return Feedback(is_answered=True, is_throttled=True, wait=wait)

        self.run.admitted.append(anyio.current_time())
        await anyio.sleep(self.draw.lognormvariate(math.log(SERVICE), 0.5))
        self.server.done()
        await anyio.sleep(self.draw.lognormvariate(math.log(LATENCY), 0.25))
        return Feedback(is_answered=True)


class Ideal:
    """Queues at the server."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.slots = anyio.Semaphore(AT_ONCE)

    async def fetch(self) -> None:
        """Fetch a page."""
        async with self.slots:
            await self.network.send(queues=True)


class Retrying:
    """Each request for itself: backs off with jitter, or waits as it was told, and tries again without an end."""

    obeys = False

    def __init__(self, network: Network) -> None:
        self.network = network
        self.slots = anyio.Semaphore(AT_ONCE)

    async def fetch(self) -> None:
        """Fetch a page."""
        for attempt in count():
            async with self.slots:
                feedback = await self.network.send()
            if not feedback.is_throttled:
                return
            backoff = self.network.draw.random() * min(8.0, 0.5 * 2.0 ** min(attempt, 9))
            await anyio.sleep(feedback.wait if self.obeys and feedback.wait else backoff)


class Obedient(Retrying):
    """The same, and obeys `Retry-After`."""

    obeys = True


class Limited:
    """Ours."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.limiter = AdaptiveLimiter(max_in_flight=AT_ONCE)

    async def fetch(self) -> None:
        """Fetch a page."""
        again = False
        while True:
            permit = await self.limiter.acquire(again=again)
            feedback = Feedback()
            try:
                feedback = await self.network.send()
            finally:
                self.limiter.release(permit, feedback)
            if not feedback.is_throttled:
                return
            again = True


CONTENDERS: dict[str, Callable[[Network], Ideal | Retrying | Limited]] = {
    "backoff": Retrying,
    "Retry-After each": Obedient,
    "AdaptiveLimiter": Limited,
}


async def read_all(scenario: Scenario, contender: Callable[[Network], Ideal | Retrying | Limited], seed: int) -> Run:
    """Read all corporations, each page by page."""
    network = Network(scenario, seed)
    client = contender(network)

    async def walk() -> None:
        for _ in range(PAGES):
            await client.fetch()

    async def change() -> None:
        for when, factor in scenario.changes:
            await anyio.sleep_until(began + when)
            network.server.factor = factor

    began = anyio.current_time()
    async with anyio.create_task_group() as changing:
        changing.start_soon(change)
        async with anyio.create_task_group() as walking:
            for _ in range(CORPORATIONS):
                walking.start_soon(walk)
        changing.cancel_scope.cancel()
    network.run.seconds = anyio.current_time() - began
    return network.run


def in_virtual_time(scenario: Scenario, contender: Callable[[Network], Ideal | Retrying | Limited], seed: int = 0) -> Run:
    """Run a contender against a server."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(read_all, scenario, contender, seed, backend="trio", backend_options={"clock": clock})


def race(seeds: int) -> None:
    """Print the table."""
    print(f"| {'server':38} | {' | '.join(f'{name:>18}' for name in CONTENDERS)} |")
    print(f"| {'-' * 38} | {' | '.join(['-' * 18] * len(CONTENDERS))} |")
    shares: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    parts: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for title, scenario in SCENARIOS.items():
        cells: list[str] = []
        ideal = [in_virtual_time(scenario, Ideal, seed).seconds for seed in range(seeds)]
        for name, contender in CONTENDERS.items():
            runs = [in_virtual_time(scenario, contender, seed) for seed in range(seeds)]
            share = statistics.mean(best / run.seconds for best, run in zip(ideal, runs, strict=True))
            refused = statistics.mean(len(run.refused) / (len(run.refused) + len(run.admitted)) for run in runs)
            shares[name].append(share)
            parts[name].append(refused)
            cells.append(f"{share:8.1%} / {refused:6.1%} ")
        print(f"| {title:38} | {' | '.join(cells)} |", flush=True)
    for title, choose in (("mean", (statistics.mean, statistics.mean)), ("worst", (min, max))):
        cells = [f"{choose[0](shares[name]):8.1%} / {choose[1](parts[name]):6.1%} " for name in CONTENDERS]
        print(f"| {title:38} | {' | '.join(cells)} |")


def plot(path: Path) -> None:
    """Draw the requests per second of two contenders against the limit of a server that changes."""
    scenario = SCENARIOS["bucket 50/s with a rival"]
    runs = {name: in_virtual_time(scenario, CONTENDERS[name]) for name in ("Retry-After each", "AdaptiveLimiter")}
    panels: list[str] = []
    for index, (name, run) in enumerate(runs.items()):
        top = 30 + index * 170
        bars: list[str] = []
        for second in range(140):
            admitted = sum(second <= at < second + 1 for at in run.admitted)
            refused = sum(second <= at < second + 1 for at in run.refused)
            x, high = 50 + 5 * second, min(admitted, 140)
            bars.append(f'<rect x="{x}" y="{top + 140 - high}" width="4" height="{high}" fill="#3a7"/>')
            low = min(refused, 140 - high)
            bars.append(f'<rect x="{x}" y="{top + 140 - high - low}" width="4" height="{low}" fill="#d55"/>')
        limit = f'<path d="M50 {top + 90}H150V{top + 115}H300V{top + 90}H750" fill="none" stroke="#000" stroke-width="1.5"/>'
        title = f'<text x="50" y="{top - 8}">{name}: {len(run.refused)} refused, {run.seconds:.0f} s</text>'
        scale = f'<text x="44" y="{top + 94}" text-anchor="end">50</text>'
        panels += [title, scale, *bars, limit]
    panels.append(
        '<text x="50" y="365">seconds 0 to 140; green: admitted, red: refused, black: the limit, per second</text>'
    )
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 380" font-family="sans-serif" font-size="13">'
    path.write_text(
        "\n".join([head, '<rect width="780" height="380" fill="#fff"/>', *panels, "</svg>", ""]), encoding="utf-8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="also write this SVG file")
    options = parser.parse_args()
    if options.plot is not None:
        plot(options.plot)
    race(options.seeds)


if __name__ == "__main__":
    main()
