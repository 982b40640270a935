"""
Everything at once and at random, on a real socket.

`pytest --soak SECONDS` sets for how long there is trouble; `nox -s soak` makes it for two minutes.

`--soak-seed` repeats a run, as far as the timing of sockets and threads can be repeated.
"""

import gc
import logging
import os
import random
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from commenda_customers import AdaptiveLimiter, AsyncCustomersAPI
from commenda_customers.testing import Emulator, faults
from exports import KINDS
from soak import FAULTS, Ledger, Trouble, make_lists
from soak_programs import Clients, Exporter, ListReader, Program, StreamReader
from waiting import until

pytestmark = pytest.mark.anyio

MOST_CUSTOMERS = 200_000
CUSTOMERS_PER_SECOND = 4_000
"""With so many, a short soak ends soon after its time."""
READ = 56
"""Corporations that are iterated over. The others are exported."""

MOST_GROWTH = 32 << 20
"""Bytes."""
MOST_IN_FLIGHT = 32
"""Of each of the two clients. A connection is two sockets, because the server is in the same process."""


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--soak"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--soak-seed"))


class Meter:
    """Measures this process, where the system tells: file descriptors, and on Linux the memory that is in use."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self.memory: list[int] = []

    async def run(self) -> None:
        """Measure ten times a second, until it is cancelled."""
        while True:
            self.descriptors.append(open_files())
            self.memory.append(resident())
            await anyio.sleep(0.1)

    def growth(self) -> int:
        """Return by how many bytes the memory grew after the first half: from the most at its end to the most at the end."""
        half = len(self.memory) // 2
        return max(self.memory[half:]) - max(self.memory[: half + 1])


def open_files() -> int:
    return len(os.listdir("/dev/fd")) if Path("/dev/fd").is_dir() else 0


def resident() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def alive() -> Counter[str]:
    """Return how many objects of the SDK there are, by class."""
    gc.collect()
    classes = (type(each) for each in gc.get_objects())
    # A class may have a property of this name.
    return Counter(each.__name__ for each in classes if str(each.__module__).startswith("commenda_customers"))


@contextmanager
def repeatable(seconds: float, seed: int) -> Generator[None]:
    """Add to an error how to repeat the run."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"to repeat it: pytest tests/system/test_soak.py --soak {seconds:g} --soak-seed {seed}")
        raise


def report(figures: str, programs: Iterable[Program]) -> None:
    """Print what was done, for `pytest -s`."""
    each = (f"{type(program).__name__} {program.rounds}/{program.interruptions}" for program in programs)
    print(f"\n{figures}; rounds/interruptions: {', '.join(each)}")  # noqa: T201


def make_programs(clients: Clients, trouble: Trouble, ledger: Ledger, folder: Path, seed: int) -> list[Program]:
    """Give each program corporations of its own: two streams, four lists, and an export of two kinds."""
    draws = (random.Random(f"{seed}/{number}") for number in range(100))
    names = list(ledger.names)
    readers = [
        *(StreamReader(clients, trouble, next(draws), part, ledger) for part in (names[:24], names[24:44])),
        *(ListReader(clients, trouble, next(draws), names[first::4], ledger) for first in range(44, 48)),
    ]
    others = sorted(set(trouble.server.corporations) - set(names))
    kinds = [kind for kind in KINDS if kind.name in {"customers.jsonl.gz", "customers.db"}]
    exporters = [
        Exporter(
            clients, trouble, next(draws), others[first::2], (kind, folder / kind.name.replace(".", "_"), trouble.server)
        )
        for first, kind in enumerate(kinds)
    ]
    return [*readers, *exporters]


def test_a_soak_knows_all_faults() -> None:
    """No fault of the emulator is left out."""
    assert set(FAULTS) == set(faults.__all__) - {"Fault"}


async def test_everything_at_random_is_exact_and_leaves_nothing(
    seconds: float, seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Lists, streams and exports of 64 corporations are interrupted at random, while all faults, limits and tokens change.

    Every program gets every customer once, in order. The memory does not grow, and nothing is left: no connection, no task,
    no permit, no object.
    """
    caplog.set_level(logging.ERROR, "commenda_customers")  # otherwise pytest keeps all warnings
    with repeatable(seconds, seed), anyio.fail_after(20 * seconds + 300):
        before = open_files(), len(anyio.get_running_tasks()), alive()
        draw = random.Random(seed)
        lists = make_lists(draw, min(MOST_CUSTOMERS, int(CUSTOMERS_PER_SECOND * seconds)))
        # The others are exported: an export that is interrupted reads again what it has not committed.
        ledger = Ledger({name: lists[name] for name in draw.sample(list(lists), READ)})
        meter, limiters = Meter(), [AdaptiveLimiter(max_in_flight=MOST_IN_FLIGHT) for _ in range(2)]
        async with Emulator(lists, seed=seed, latency=0.001) as server:
            trouble = Trouble(server, draw)
            async with AsyncExitStack() as stack:
                options = {"base_url": server.base_url, "hooks": [ledger.note, trouble.hook]}
                apis = (AsyncCustomersAPI(trouble.provide, rate_limit=limiter, **options) for limiter in limiters)
                clients = Clients(*[await stack.enter_async_context(api) for api in apis])
                programs = make_programs(clients, trouble, ledger, tmp_path, seed)
                async with anyio.create_task_group() as measuring:
                    measuring.start_soon(meter.run)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(trouble.make, seconds)
                        for program in programs:
                            tasks.start_soon(program.run)
                    measuring.cancel_scope.cancel()
                assert [(now.in_flight, now.waiting) for now in (each.snapshot() for each in limiters)] == [(0, 0)] * 2
            requests = server.requests[-1].number

        report(f"{ledger.came:,} customers, {requests:,} requests, memory {meter.growth():+,} bytes", programs)
        assert all(program.rounds for program in programs)
        assert meter.growth() < MOST_GROWTH
        assert max(meter.descriptors) <= before[0] + 2 * 2 * MOST_IN_FLIGHT + 20
        await until(lambda: (open_files(), len(anyio.get_running_tasks())) == before[:2])
        del apis, clients, limiters, options, programs, program, server, stack, trouble, ledger
        # The thread of the emulator may hold its last objects a little longer.
        with suppress(TimeoutError):
            await until(lambda: not alive() - before[2])
        left = alive() - before[2]
        assert not left
