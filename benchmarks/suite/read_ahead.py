"""How much time does a stream save because it fetches a page while the program works on the one before?"""

import time
from typing import Any

import anyio

from commenda_customers import AsyncCustomersAPI

from .contenders import TOKEN
from .corporations import corporations
from .jobs import Job

WORK = 0.05
"""Seconds that the program works on a page: as long as the server takes for it."""


async def ahead(job: Job) -> dict[str, Any]:
    """Return the seconds for all pages of a stream."""
    async with AsyncCustomersAPI(TOKEN, base_url=job.url) as api:
        await api.list(corporations(1, 1)[0])  # connects
        began = time.perf_counter()
        async with api.stream(corporations(1, job.pages)) as stream:
            async for _page in stream.pages():
                await anyio.sleep(WORK)
        return {"seconds": time.perf_counter() - began}


async def in_a_loop(job: Job) -> dict[str, Any]:
    """Return the seconds for all pages, one after the other."""
    async with AsyncCustomersAPI(TOKEN, base_url=job.url) as api:
        await api.list(corporations(1, 1)[0])
        began = time.perf_counter()
        async for _page in api.list(corporations(1, job.pages)[0]).pages():
            await anyio.sleep(WORK)
        return {"seconds": time.perf_counter() - began}
