"""
How much of a limit does the client use behind a real proxy?

Two contenders read the same customers at the same time, each through a proxy and an emulator of its own: the client as it
is, and the client without a limiter, in which each request backs off by itself, as often as necessary. The table has:

- the share: the requests that the proxy let pass, divided by those that the limit allows in the same time. A rate allows its
  burst, and then so many per second. N requests at once allow N in each latency of the emulator, which takes no notice of
  what the proxy and the client need themselves: a client that keeps N in flight reaches about 94 %;
- refused: the part of all requests that got no page. The client counts them, so they include closed connections;
- the seconds from the first request to the last customer;
- customers: "exact" if both contenders got every customer once, complete and in the order of the emulator.

A job has 512 pages: at 50 requests per second, a little more than ten seconds. In a shorter one, the burst and the time that
it takes to learn the limit would be most of what is measured. `--times 4` shows what happens after that.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
from simulation.markdown import percent, table

from commenda_customers import AsyncCustomersAPI, RetryPolicy
from commenda_customers.events import Event, PageFetched, RequestSent
from emulated import TOKEN

from .jobs import Held, Job, held_by_emulator, proxied_emulator, verdict
from .limit_setups import LATENCY, Setup

CORPORATIONS, PAGES = 32, 16
"""Corporations, and pages of each."""

LONGEST_JOB, LONGEST_RUN = 40.0, 170.0
"""Seconds for a job, and for all jobs."""

OURS = "AdaptiveLimiter"
CONTENDERS: Mapping[str, Callable[..., AsyncCustomersAPI]] = {
    OURS: AsyncCustomersAPI,
    "no limiter": partial(
        AsyncCustomersAPI, rate_limit=None, retry=RetryPolicy(max_attempts=None, deadline=None, max_wait=8.0)
    ),
}


@dataclass
class LimitedJob(Job):
    """
    What a contender did behind a limit. It is also a hook of the client.

    Attributes:
        setup: The proxy.
        passed: Requests that got a page.
    """

    setup: Setup = field(kw_only=True)
    passed: int = 0

    def __call__(self, event: Event) -> None:
        self.sent += isinstance(event, RequestSent)
        self.passed += isinstance(event, PageFetched)

    def __str__(self) -> str:
        if not self.sent:
            return "-"
        allowed = self.setup.burst + self.setup.rate * self.seconds
        return f"{percent(self.passed / allowed)} / {percent(1 - self.passed / self.sent)} / {self.seconds:.1f} s"

    async def run(self, contender: Callable[..., AsyncCustomersAPI], held: Held, longest: float) -> None:
        """Read all customers, in at most so many seconds."""
        async with (
            proxied_emulator(self.setup.proxy, held, LATENCY) as servers,
            contender(TOKEN, base_url=servers.base_url("http"), hooks=[self]) as api,
        ):
            await self.read(api, held, longest)


async def measure(setups: Sequence[Setup], times: int) -> tuple[str, bool]:
    """Run the contenders side by side; return a table, and whether the client with its limiter was exact each time."""
    held = held_by_emulator(CORPORATIONS, times * PAGES)
    jobs = {setup: {name: LimitedJob(setup=setup) for name in CONTENDERS} for setup in setups}
    with anyio.move_on_after(times * LONGEST_RUN):
        for number, (setup, contest) in enumerate(jobs.items(), 1):
            print(f"{number} of {len(jobs)} limits: {setup.name}", file=sys.stderr)
            async with anyio.create_task_group() as both:
                for name, job in contest.items():
                    both.start_soon(job.run, CONTENDERS[name], held, times * LONGEST_JOB)
    is_exact = all(contest[OURS].customers == "exact" for contest in jobs.values())
    rows = [[setup.name, *map(str, contest.values()), verdict(contest)] for setup, contest in jobs.items()]
    return table([["proxy and limit", *CONTENDERS, "customers"], *rows]), is_exact
