"""
How does the client do behind the limits of real proxies? The emulated API behind nginx and HAProxy, all on loopback.

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

It takes less than three minutes. The exit code is 0 if the client with its limiter read everything exactly, 1 if it did not,
and 2 if a program is missing.

    python benchmarks/proxies.py [--only nginx] [--times 1]
"""

import argparse
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from loopback.processes import HOST, find_programs, free_ports, serving
from loopback.setups import LATENCY, SETUPS, Setup
from simulation.markdown import percent, table

from commenda_customers import AsyncCustomersAPI, Customer, CustomersError, RetryPolicy
from commenda_customers.events import Event, PageFetched, RequestSent
from commenda_customers.testing import Emulator

Held = dict[str, list[Customer]]
"""Customers by corporation, in their order."""

TOKEN = "benchmark-token"
CORPORATIONS, PAGES, PAGE = 32, 16, 10
"""Corporations; pages of each; customers of a page, which are few so that the processors have little to do."""

CONCURRENCY = 16
"""Corporations at once."""

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
class Job:
    """
    What a contender did behind a proxy. It is also a hook of the client.

    Attributes:
        setup: The proxy.
        sent: Requests.
        passed: Requests that got a page.
        seconds: From the first request to the last customer.
        customers: What was read: "exact", or what is wrong.
    """

    setup: Setup
    sent: int = 0
    passed: int = 0
    seconds: float = 0.0
    customers: str = "not done"

    def __call__(self, event: Event) -> None:
        self.sent += isinstance(event, RequestSent)
        self.passed += isinstance(event, PageFetched)

    def __str__(self) -> str:
        if not self.sent:
            return "-"
        allowed = self.setup.burst + self.setup.rate * self.seconds
        return f"{percent(self.passed / allowed)} / {percent(1 - self.passed / self.sent)} / {self.seconds:.1f} s"

    async def run(self, contender: Callable[..., AsyncCustomersAPI], held: Held, longest: float) -> None:
        """Read all customers, in at most so many seconds, and compare them with those that the emulator has."""
        sizes = {corporation_id: len(customers) for corporation_id, customers in held.items()}
        async with proxied_emulator(self.setup, sizes) as url, contender(TOKEN, base_url=url, hooks=[self]) as api:
            began = anyio.current_time()
            try:
                with anyio.move_on_after(longest):
                    self.customers = "exact" if await read_all(api, held) == held else "NOT EXACT"
            except CustomersError as error:
                self.customers = f"FAILED with {error!r}"
            finally:
                self.seconds = anyio.current_time() - began


async def read_all(api: AsyncCustomersAPI, corporation_ids: Iterable[str]) -> Held:
    """Stream all customers."""
    came: Held = {corporation_id: [] for corporation_id in corporation_ids}
    async with api.stream(came, concurrency=CONCURRENCY, limit=PAGE) as stream:
        async for customer in stream:
            came[customer.corporation_id].append(customer)
    return came


@asynccontextmanager
async def proxied_emulator(setup: Setup, sizes: Mapping[str, int]) -> AsyncIterator[str]:
    """Run an emulator and a proxy before it, in processes of their own; yield the address of the proxy."""
    emulator, proxy = free_ports(2)
    command = [sys.executable, "-m", "commenda_customers", "emulate", "--port", str(emulator), "--token", TOKEN]
    command += ["--latency", str(LATENCY)]
    for corporation_id, size in sizes.items():
        command += ["--corporation", f"{corporation_id}={size}"]
    with TemporaryDirectory() as folder:
        config = anyio.Path(folder, "proxy.conf")
        await config.write_text(setup.config(folder=folder, emulator=emulator, proxy=proxy), encoding="utf-8")
        async with serving(command, emulator, folder), serving(setup.command(Path(config)), proxy, folder):
            yield f"http://{HOST}:{proxy}/api/v1"


async def run_all(jobs: Mapping[Setup, Mapping[str, Job]], times: int) -> None:
    """Run all jobs, the contenders side by side."""
    emulator = Emulator({f"corp_{number}": times * PAGES * PAGE for number in range(CORPORATIONS)})
    # This one serves nothing. Its customers depend on the seed alone, so those that serve have the same.
    held = {name: [Customer.model_validate(each) for each in emulator.customers(name)] for name in emulator.corporations}
    with anyio.move_on_after(times * LONGEST_RUN):
        for number, (setup, contest) in enumerate(jobs.items(), 1):
            print(f"{number} of {len(jobs)}: {setup.name}", file=sys.stderr)
            async with anyio.create_task_group() as both:
                for name, job in contest.items():
                    both.start_soon(job.run, CONTENDERS[name], held, times * LONGEST_JOB)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only limits with this text in their name")
    parser.add_argument("--times", type=int, default=1, help="jobs so many times as long, and so much more time for them")
    parser.add_argument("--also", default="/usr/sbin", help="a folder with programs, beside PATH (default: /usr/sbin)")
    options = parser.parse_args()
    jobs = {setup: {name: Job(setup) for name in CONTENDERS} for setup in SETUPS if options.only in setup.name}
    if not find_programs({setup.program for setup in jobs}, options.also):
        return 2

    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # so that all processes end, as at Ctrl-C
    try:
        anyio.run(run_all, jobs, options.times)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130

    print(table([["proxy and limit", *CONTENDERS, "customers"], *map(row, jobs, jobs.values())]))
    return 0 if all(contest[OURS].customers == "exact" for contest in jobs.values()) else 1


def row(setup: Setup, contest: Mapping[str, Job]) -> list[str]:
    """Return a row of the table."""
    wrong = [f"{name}: {job.customers}" for name, job in contest.items() if job.customers != "exact"]
    return [setup.name, *map(str, contest.values()), ", ".join(wrong) or "exact"]


if __name__ == "__main__":
    sys.exit(main())
