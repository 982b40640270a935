"""The process of a job: warms up, measures, and prints the result as JSON."""

import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from .bodies import PER_PAGE, corporations
from .contenders import CONTENDERS
from .jobs import Job
from .memory import growth, peak
from .read_ahead import ahead, in_a_loop
from .server import run_on_core
from .steps import steps

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
    return {
        "cpu": 1e6 * used / job.all_pages,
        "wall": 1e6 * seconds / job.all_pages,
        "customers": count,
        "mib": peak() - before,
    }


MEASURES: dict[str, Callable[[Job], Awaitable[Result]]] = {
    "cpu": cpu,
    "steps": steps,
    "growth": growth,
    "ahead": ahead,
    "in_a_loop": in_a_loop,
}


def main() -> None:
    run_on_core(0)
    job = Job(**json.loads(sys.argv[1]))
    if job.is_frozen:
        gc.collect()
        gc.freeze()
    options = {"use_uvloop": True} if job.backend == "uvloop" else {}
    result = anyio.run(
        MEASURES[job.measure], job, backend="trio" if job.backend == "trio" else "asyncio", backend_options=options
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
