"""The process of a job: warms up, measures, and prints the result as JSON."""

import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from .bodies import PER_PAGE, corporations
from .contenders import CONTENDERS
from .jobs import Job
from .server import run_on_core

A_THOUSAND, A_HUNDRED_THOUSAND = 1000, 100_000

Result = dict[str, Any]


async def cpu(job: Job) -> Result:
    """Measure the CPU time of the process, in all its threads, and the wall time for a page, in microseconds."""
    ids = corporations(job.corporations, job.pages)
    async with CONTENDERS[job.contender].load()(job.url) as read:
        # Connects, and runs all code once. So many pages that the interpreter has specialised its bytecode.
        await read(corporations(job.corporations, 2), job.in_flight)
        if job.corporations == 1:
            await read(corporations(1, 20), 1)
        gc.collect()  # or else it depends on the warm-up when the first collection comes
        before, began, used = peak(), time.perf_counter(), time.process_time()
        count = 0
        for _ in range(job.times):
            count += await read(ids, job.in_flight)
        used, seconds = time.process_time() - used, time.perf_counter() - began
    if count != PER_PAGE * job.all_pages:
        raise ValueError(f"{job.contender} read {count} customers of {PER_PAGE * job.all_pages}")
    return {"cpu": 1e6 * used / job.all_pages, "wall": 1e6 * seconds / job.all_pages, "customers": count, "mib": peak() - before}


async def growth(job: Job) -> Result:
    """Measure by how many MiB memory grows after the first thousand customers of a stream."""
    from commenda_customers import AsyncCustomersAPI  # noqa: PLC0415

    ids, count, first = corporations(job.corporations, job.pages), 0, 0.0
    async with AsyncCustomersAPI("t" * 40, base_url=job.url) as api, api.stream(ids, concurrency=job.in_flight) as stream:
        async for _customer in stream:
            count += 1
            if count == A_THOUSAND:
                first = resident()
            if count % A_HUNDRED_THOUSAND == 0:
                print(f"\r  {count:,} customers, {resident() - first:.1f} MiB more", end="", file=sys.stderr)
    print("\r\033[K", end="", file=sys.stderr)
    return {"mib": peak() - first, "customers": count}


def resident() -> float:
    """Return the MiB of memory that the process has now; 0 where the system does not say."""
    return _status("VmRSS")


def peak() -> float:
    """Return the MiB that it had at the most. `getrusage` would count those of the process that started it."""
    return _status("VmHWM")


def _status(name: str) -> float:
    with suppress(OSError):
        text = Path("/proc/self/status").read_text(encoding="ascii")
        return int(text.partition(f"{name}:")[2].split()[0]) / 2**10
    return 0.0


MEASURES: dict[str, Callable[[Job], Awaitable[Result]]] = {"cpu": cpu, "growth": growth}


def main() -> None:
    run_on_core(0)
    job = Job(**json.loads(sys.argv[1]))
    if job.is_frozen:
        gc.collect()
        gc.freeze()
    options = {"use_uvloop": True} if job.backend == "uvloop" else {}
    result = anyio.run(MEASURES[job.measure], job, backend="trio" if job.backend == "trio" else "asyncio", backend_options=options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
