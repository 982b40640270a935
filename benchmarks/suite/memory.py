"""How much memory does a stream need for many customers?"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .contenders import TOKEN
from .corporations import corporations
from .jobs import Job

A_THOUSAND, A_HUNDRED_THOUSAND = 1000, 100_000


async def growth(job: Job) -> dict[str, Any]:
    """Measure by how many MiB memory grows after the first thousand customers of a stream."""
    from commenda_customers import AsyncCustomersAPI  # noqa: PLC0415 - every process imports this file

    ids, count, first = corporations(job.corporations, job.pages), 0, 0.0
    async with AsyncCustomersAPI(TOKEN, base_url=job.url) as api, api.stream(ids, concurrency=job.in_flight) as stream:
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
    """Return the most MiB that it has had. `getrusage` would count those of the process that started it, too."""
    return _status("VmHWM")


def _status(name: str) -> float:
    with suppress(OSError):
        text = Path("/proc/self/status").read_text(encoding="ascii")
        return int(text.partition(f"{name}:")[2].split()[0]) / 2**10
    return 0.0
