"""`commenda-customers demo`: the main job, against an emulated API that fails on purpose, with proof at the end."""

from collections import Counter

import anyio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ..client import AsyncCustomersAPI
from ..errors import CustomersError
from ..events import Event, RequestSent, RetryScheduled
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


class _Tally:
    """What has come so far. Receives the events of the client."""

    def __init__(self) -> None:
        self.ids: dict[str, list[str]] = {}
        self.pages = 0
        self.requests = 0
        self.retries: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestSent):
            self.requests += 1
        elif isinstance(event, RetryScheduled):
            self.retries[type(event.error).__name__] += 1

    @property
    def customers(self) -> int:
        return sum(map(len, self.ids.values()))

    @property
    def in_short(self) -> str:
        return f"{self.pages} pages, {self.requests} requests, {self.retries.total()} retries"


async def demonstrate(*, corporations: int, customers: int, rate: float, seed: int) -> int:
    """Run the demo; return the exit code: 0 if everything came, once and in order."""
    console = Console()
    tally = _Tally()
    emulator = Emulator(
        {f"corp_{number}": customers for number in range(1, corporations + 1)},
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
            f"{rate:g} requests per second, and one request in seven goes wrong.",
            highlight=False,
            soft_wrap=True,
        )
        began = anyio.current_time()
        await _read_all(api, emulator, tally, console)
        elapsed = anyio.current_time() - began
        learned = f"{_learned(api)} learned, {rate:g} is true"

    return 0 if _report(emulator, tally, elapsed, learned, console) else 1


def _learned(api: AsyncCustomersAPI) -> str:
    """Say what the limiter has found out about the server."""
    rate = api.rate_limit and api.rate_limit.snapshot().rate
    return f"{rate:.0f} requests/s" if rate else "no limit met yet"


async def _read_all(api: AsyncCustomersAPI, emulator: Emulator, tally: _Tally, console: Console) -> None:
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, disable=not console.is_terminal
    )
    summary = progress.add_task("", total=sum(emulator.corporations.values()))
    failures: list[CustomersError] = []
    bars = {name: progress.add_task(name, total=size) for name, size in emulator.corporations.items()}

    async def read(corporation_id: str) -> None:
        ids = tally.ids.setdefault(corporation_id, [])
        try:
            async for page in api.list(corporation_id).pages():
                ids.extend(customer.id for customer in page)
                tally.pages += 1
                progress.update(bars[corporation_id], completed=len(ids))
                progress.update(summary, completed=tally.customers, description=f"{tally.in_short}, {_learned(api)}")
        except CustomersError as error:
            failures.append(error)
            reading.cancel_scope.cancel()

    async def print_lines() -> None:
        while not console.is_terminal:
            await anyio.sleep(_SECONDS_PER_LINE)
            console.print(f"  {tally.customers:,} customers, {tally.in_short}, {_learned(api)}", highlight=False)

    with progress:
        async with anyio.create_task_group() as reporting:
            reporting.start_soon(print_lines)
            async with anyio.create_task_group() as reading:
                for corporation_id in emulator.corporations:
                    reading.start_soon(read, corporation_id)
            reporting.cancel_scope.cancel()
    if failures:
        raise failures[0]


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
