"""`commenda-customers demo`: the main job against an emulated API that fails on purpose, and a check of the result."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial

import anyio
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ..checkpoint import Checkpoint
from ..client import AsyncCustomersAPI
from ..events import Event, RequestSent, RetryScheduled
from ..models import CustomerPage
from ..retry import RetryPolicy
from ..testing import Emulator, RateLimit, faults

_FAULTS = (
    faults.Drop(probability=0.03),
    faults.CutBody(probability=0.03),
    faults.Status(status=503, probability=0.03),
    faults.NotJSON(probability=0.02),
    faults.EmptyPage(probability=0.02),
    faults.ForeignCustomer(at=[50]),
    faults.Hang(probability=0.01),
)
_SECONDS_PER_LINE = 1.0


@click.command("demo", short_help="Stream from an emulated API that fails on purpose.")
@click.option("--corporations", type=click.IntRange(1, 100), default=8, show_default=True, help="Number of corporations.")
@click.option(
    "--customers",
    type=click.IntRange(0, 1_000_000),
    default=2750,
    show_default=True,
    help="Customers of each corporation.",
)
@click.option(
    "--rate", type=click.FloatRange(1), default=60, show_default=True, help="The server's limit, in requests per second."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of customers and faults.")
def demo_command(corporations: int, customers: int, rate: float, seed: int) -> int:
    """
    Stream several corporations from an emulated API that fails on purpose.

    Everything happens on this machine, over real HTTP. At the end the customers are compared with those of the server.
    """
    return anyio.run(partial(_demonstrate, corporations=corporations, customers=customers, rate=rate, seed=seed))


class _Tally:
    """Counts what has arrived. It is also a hook of the client."""

    def __init__(self, corporation_ids: Iterable[str]) -> None:
        self.ids: dict[str, list[str]] = {corporation_id: [] for corporation_id in corporation_ids}
        self.customers = 0
        self.pages = 0
        self.requests = 0
        self.retries: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestSent):
            self.requests += 1
        elif isinstance(event, RetryScheduled):
            self.retries[type(event.error).__name__] += 1

    def add(self, page: CustomerPage) -> None:
        self.ids[page.corporation_id].extend(customer.id for customer in page)
        self.customers += len(page)
        self.pages += 1

    @property
    def in_short(self) -> str:
        return f"{self.pages} pages, {self.requests} requests, {self.retries.total()} retries"


async def _demonstrate(*, corporations: int, customers: int, rate: float, seed: int) -> int:
    """Run the demo. The exit code is 0 if every customer came once and in order."""
    console = Console()
    sizes = {f"corp_{number}": customers for number in range(1, corporations + 1)}
    tally = _Tally(sizes)
    emulator = Emulator(
        sizes,
        seed=seed,
        faults=_FAULTS,
        rate_limit=RateLimit(rate=rate, burst=20),
        latency=0.01,
    )
    async with (
        emulator,
        AsyncCustomersAPI(
            token=emulator.token,
            base_url=emulator.base_url,
            timeout=1.0,
            retry=RetryPolicy(max_attempts=None),
            hooks=[tally],
        ) as api,
    ):
        console.print(
            f"An emulated API at {emulator.base_url}: {corporations} corporations of {customers:,} customers, "
            f"{rate:g} requests per second, and about one request in seven fails.",
            highlight=False,
            soft_wrap=True,
        )
        began = anyio.current_time()
        await _stream_all(api, sizes, tally, console)
        elapsed = anyio.current_time() - began
        learned = f"{_learned(api)}; the server allows {rate:g}"

    return 0 if _report(emulator, tally, elapsed, learned, console) else 1


def _learned(api: AsyncCustomersAPI) -> str:
    """Return what the limiter has learned about the server."""
    rate = api.rate_limit and api.rate_limit.snapshot().rate
    return f"limit learned: {rate:.0f} requests/s" if rate else "no limit learned yet"


class _Display:
    """Shows the progress: bars on a terminal, elsewhere a line every second."""

    def __init__(self, console: Console, api: AsyncCustomersAPI, sizes: Mapping[str, int], tally: _Tally) -> None:
        self.console, self.api, self.tally = console, api, tally
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.summary = self.bars.add_task("", total=sum(sizes.values()))
        self.bar_of = {name: self.bars.add_task(name, total=size) for name, size in sizes.items()}
        self.last_line = anyio.current_time()

    def show(self, corporation_id: str) -> None:
        tally, text = self.tally, f"{self.tally.in_short}, {_learned(self.api)}"
        self.bars.update(self.bar_of[corporation_id], completed=len(tally.ids[corporation_id]))
        self.bars.update(self.summary, completed=tally.customers, description=text)
        if not self.console.is_terminal and anyio.current_time() >= self.last_line + _SECONDS_PER_LINE:
            self.last_line = anyio.current_time()
            self.console.print(f"  {tally.customers:,} customers, {text}", highlight=False)


async def _stream_all(api: AsyncCustomersAPI, sizes: Mapping[str, int], tally: _Tally, console: Console) -> None:
    """Stream half of the customers, stop, and resume from the checkpoint as another run would."""
    total = sum(sizes.values())
    display = _Display(console, api, sizes, tally)
    with display.bars:
        checkpoint = await _stream(api, sizes, tally, display, until=total // 2)
        written = checkpoint.model_dump_json()
        console.print(
            f"Stopped after {tally.customers:,} customers. Resuming from the checkpoint of {len(written):,} bytes:",
            highlight=False,
            soft_wrap=True,
        )
        await _stream(api, sizes, tally, display, until=math.inf, resume=Checkpoint.model_validate_json(written))


async def _stream(
    api: AsyncCustomersAPI,
    sizes: Mapping[str, int],
    tally: _Tally,
    display: _Display,
    *,
    until: float,
    resume: Checkpoint | None = None,
) -> Checkpoint:
    async with api.stream(sizes, resume=resume) as stream:
        async for page in stream.pages():
            tally.add(page)
            display.show(page.corporation_id)
            if tally.customers >= until:
                break

    return stream.checkpoint()


def _report(emulator: Emulator, tally: _Tally, elapsed: float, learned: str, console: Console) -> bool:
    wrong = [
        corporation_id
        for corporation_id in emulator.corporations
        if tally.ids[corporation_id] != [customer["id"] for customer in emulator.customers(corporation_id)]
    ]
    causes = ", ".join(f"{count} {cause}" for cause, count in tally.retries.most_common()) or "none"
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (
        ("customers", f"{tally.customers:,} of {len(tally.ids)} corporations"),
        ("pages", str(tally.pages)),
        ("requests", str(tally.requests)),
        ("retries", f"{tally.retries.total()} ({causes})"),
        ("limit", learned),
        ("time", f"{elapsed:.1f} s"),
        ("complete", f"NO: {', '.join(wrong)} differ" if wrong else "yes: every customer once, in the server's order"),
    ):
        table.add_row(name, value)
    console.print()
    console.print(table)
    return not wrong
