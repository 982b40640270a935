"""A process of a fleet: it reads its corporations with a client and a limiter of its own."""

import logging
import math
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from multiprocessing.connection import Connection
from typing import NamedTuple

import anyio
import anyio.to_thread

from commenda_customers import AdaptiveLimiter, AsyncCustomersAPI, Event, RateLimiter, RateLimitError
from commenda_customers.events import PageFetched, RequestFailed
from commenda_customers.limits.redis import RedisLimiter

PAGE = 10
"""Customers of a page. Small pages leave the processor to those who wait for it."""


class Task(NamedTuple):
    """
    What a worker is to do.

    Attributes:
        url: The Redis of its limiter. `None`: a limiter that knows nothing of the other processes.
        quota: The name of the quota.
        backend: The event loop.
        token: The token of the emulator.
        base_url: The emulator.
        corporations: What it reads.
        output: The file for what it reads: corporation and customer, line by line.
        errors: The file for its stderr, with its log.
    """

    url: str | None
    quota: str
    backend: str
    token: str
    base_url: str = ""
    corporations: Sequence[str] = ()
    output: str = ""
    errors: str = ""


class Notes:
    """
    What a worker sees. It is a hook of the client.

    Attributes:
        failed: Requests that failed, except those that the server refused because of its limit.
        longest_wait: The longest time in seconds that a page waited for the limiter.
        others: How many other processes share the quota, each time that this has changed, with the time.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.longest_wait = 0.0
        self.others: list[tuple[float, int]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestFailed) and not isinstance(event.error, RateLimitError):
            self.failed += 1
            logging.getLogger("worker").error("failed: %r", event.error)
        if isinstance(event, PageFetched):
            self.longest_wait = max(self.longest_wait, event.waited)

    def look_at(self, limiter: RateLimiter) -> None:
        """Take note of how many other processes share the quota: a limiter shows it."""
        found = re.search(r"shared with (\d+) other", repr(limiter))
        number = int(found[1]) if found else 0
        if not self.others or self.others[-1][1] != number:
            self.others.append((time.monotonic(), number))

    def seconds_until(self, number: int, since: float) -> float:
        """Return the seconds from a moment until so many others share the quota; infinity if that was never so."""
        return next((at for at, others in self.others if others == number and at >= since), math.inf) - since


def work(task: Task, fleet: Connection) -> None:
    """Do a task. Send `ready` when there is a limiter and a client, wait for an answer, and send `Notes` at the end."""
    os.dup2(os.open(task.errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    warnings.simplefilter("error")
    fleet.send(anyio.run(read_all, task, fleet, backend=task.backend))


async def read_all(task: Task, fleet: Connection) -> Notes:
    """Read all customers of all corporations."""
    notes = Notes()
    async with (
        make_limiter(task) as limiter,
        AsyncCustomersAPI(task.token, base_url=task.base_url, rate_limit=limiter, hooks=[notes]) as api,
    ):
        fleet.send("ready")
        await anyio.to_thread.run_sync(fleet.recv)
        threading.Thread(target=end_with, args=[fleet], daemon=True).start()
        async with api.stream(task.corporations, limit=PAGE, concurrency=len(task.corporations)) as stream:
            with open(task.output, "w", encoding="utf-8") as output:
                async for page in stream.pages():
                    notes.look_at(limiter)
                    output.writelines(f"{customer.corporation_id} {customer.id}\n" for customer in page)
                    output.flush()
    return notes


def make_limiter(task: Task) -> AbstractAsyncContextManager[RateLimiter]:
    """Return the limiter of a task."""
    return nullcontext(AdaptiveLimiter()) if task.url is None else RedisLimiter(task.url, quota=task.quota)


def end_with(fleet: Connection) -> None:
    """End this process when the tests have ended, in whatever way."""
    with suppress(EOFError, OSError):
        fleet.recv()
    os._exit(1)
