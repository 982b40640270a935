"""Workers that read from one emulator with a limit."""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from processes import Worker, wait_until
from traffic import ENOUGH, SPAN, Traffic
from worker import PAGE, Notes, Task

from commenda_customers.testing import Emulator, RateLimit

LIMIT = RateLimit(rate=55, burst=10)

LATENCY = 0.03
"""Seconds of the emulator for each response."""


class Fleet:
    """
    Workers that read from one emulator with a limit, each its own corporations.

    Attributes:
        server: The emulator. It has as many pages as the limit allows in the given number of seconds.
        workers: All that were started, also those that were killed.
    """

    def __init__(
        self,
        size: int,
        url: str | None,
        folder: Path,
        *,
        seconds: float,
        limit: RateLimit = LIMIT,
        quota: str = "prod",
        backend: str = "asyncio",
    ) -> None:
        each = max(4, 24 // size)
        pages = round(seconds * limit.rate / (size * each))
        names = [f"corp_of_the_fleet_{number}" for number in range(size * each)]
        self.server = Emulator(dict.fromkeys(names, pages * PAGE), rate_limit=limit, latency=LATENCY)
        self.limit = limit
        self.workers: list[Worker] = []
        self._shares = [names[first::size] for first in range(size)]
        self._folder = folder
        self._task = Task(url, quota, backend, self.server.token)

    def __enter__(self) -> Self:
        self.server.__enter__()
        self._task = self._task._replace(base_url=self.server.base_url)
        try:
            for share in self._shares:
                self.add(share)
            wait_until(lambda: all(worker.is_ready() for worker in self.workers), "all workers are ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()
        self.server.__exit__(None, None, None)

    def add(self, corporations: Sequence[str]) -> Worker:
        """Start a worker. It waits for its start."""
        path = f"{self._folder}/{self._task.quota}-{len(self.workers)}"
        task = self._task._replace(corporations=corporations, output=f"{path}.rows", errors=f"{path}.log")
        self.workers.append(Worker(task))
        return self.workers[-1]

    def go(self) -> float:
        """Let all workers begin, and return the time."""
        for worker in self.workers:
            worker.go()
        return time.monotonic()

    def settle(self) -> None:
        """Wait until the fleet has found the limit: until most of it is used, some time after its start."""
        began = time.monotonic()
        enough = ENOUGH * self.limit.rate * SPAN

        def is_settled() -> bool:
            now = time.monotonic()
            recent = [one for one in self.server.requests if one.at > now - SPAN and one.status == 200]
            return now - began > 2 * SPAN and len(recent) >= enough

        wait_until(is_settled, "most of the limit is used", seconds=30)

    def finish(self) -> list[Notes]:
        """Wait until all workers have ended that were not killed; check all customers, and return what the workers saw."""
        left = [self.workers[number] for number in self._survivors()]
        wait_until(lambda: all(worker.process.exitcode is not None for worker in left), "all workers have ended")
        sys.stdout.write(str(self.traffic()))  # shown if a test fails
        notes = [worker.notes() for worker in left]
        for worker in self.workers:
            self._check(worker, is_complete=worker in left)
        return notes

    def _check(self, worker: Worker, *, is_complete: bool) -> None:
        """Check that a worker has read each customer of its corporations exactly once, in the server's order."""
        rows = worker.rows()
        assert set(rows) <= set(worker.task.corporations)
        for name in worker.task.corporations:
            held = [customer["id"] for customer in self.server.customers(name)]
            read = rows.get(name, [])
            assert read == (held if is_complete else held[: len(read)]), f"{name}\n{worker.errors}"

    def traffic(self) -> Traffic:
        """Return what came until now."""
        return Traffic(self.server, self._shares, self._survivors(), self.limit)

    def _survivors(self) -> list[int]:
        """Return which workers were not killed."""
        return [n for n, worker in enumerate(self.workers) if worker.process.exitcode != -signal.SIGKILL]


StartFleet = Callable[..., Fleet]
"""Starts a fleet, which waits for its start. Its arguments are those of `Fleet`, without the folder."""

Report = Callable[..., None]
"""Adds the figures of a test to the table at the end: `report(used=0.97)`."""
