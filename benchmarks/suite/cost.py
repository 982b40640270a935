"""What does a page cost?"""

import gc
import time
from typing import Any

from .contenders import CONTENDERS
from .corporations import PER_PAGE, corporations
from .jobs import Job
from .memory import peak

WARM_UP = 20
"""Pages that are read before the measurement. Then connections are open, and Python has specialised its bytecode."""


async def cpu(job: Job) -> dict[str, Any]:
    """Measure CPU time of the process, in all its threads, and wall time for a page, in microseconds."""
    ids, opens = corporations(job.corporations, job.pages), CONTENDERS[job.contender].load()
    job.freeze()
    async with opens(job.url) as read:
        await read(corporations(job.corporations, max(2, WARM_UP // job.corporations)), job.in_flight)
        gc.collect()  # or else the warm-up decides when the first collection comes
        before, began, used, count = peak(), time.perf_counter(), time.process_time(), 0
        for _ in range(job.times):
            count += await read(ids, job.in_flight)
        used, seconds = time.process_time() - used, time.perf_counter() - began
    if count != PER_PAGE * job.all_pages:
        raise ValueError(f"{job.contender} read {count} customers of {PER_PAGE * job.all_pages}")
    cpu, wall = round(1e6 * used / job.all_pages, 1), round(1e6 * seconds / job.all_pages, 1)
    return {"cpu": cpu, "wall": wall, "mib": round(peak() - before, 1), "customers": count}
