"""For how long is the event loop blocked? Measured with a hook in asyncio's own loop."""

import asyncio  # noqa: TID251 - it is asyncio's loop that is measured
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from .contenders import CONTENDERS
from .corporations import corporations
from .jobs import Job


class Watch:
    """
    Records the longest step of the loop since `reset`, in milliseconds of CPU time: other processes do not count.

    Attributes:
        step: The longest callback. A task runs from one `await` that waits to the next in one callback.
        iteration: All callbacks that were ready at the same time. A timer may be as late as this.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything, and begin with the current iteration."""
        self.step = self.iteration = 0.0
        self._began = time.thread_time()

    def timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Return a callback that measures itself."""

        def measured(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return run(*arguments)
            finally:
                self.step = max(self.step, 1e3 * (time.thread_time() - began))

        return measured

    def select(self, select: Callable[..., Any]) -> Callable[..., Any]:
        """Return the selector's function, measured: its call ends an iteration, and its return begins the next one."""

        def measured(*arguments: Any) -> Any:
            self.iteration = max(self.iteration, 1e3 * (time.thread_time() - self._began))
            try:
                return select(*arguments)
            finally:
                self._began = time.thread_time()

        return measured


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch the running loop for the length of a block."""
    watch, handle, selector = Watch(), cast("Any", asyncio.Handle), cast("Any", asyncio.get_running_loop())._selector
    run, select = handle._run, selector.select  # there is no public hook
    handle._run, selector.select = watch.timed(run), watch.select(select)
    try:
        yield watch
    finally:
        handle._run, selector.select = run, select


async def steps(job: Job) -> dict[str, Any]:
    """
    Read the job's corporations, and return the longest step and iteration.

    Without a warm-up, construction and first use are measured; the time in which the contender is imported is not.
    """
    opens, ids = CONTENDERS[job.contender].load(), corporations(job.corporations, job.pages)
    job.freeze()
    with watched() as watch:
        await asyncio.sleep(0)  # the next iteration is the first that is measured from its beginning
        await asyncio.sleep(0)
        watch.reset()
        async with opens(job.url) as read:
            if not job.is_first_use:
                await read(ids, job.in_flight)
                await asyncio.sleep(0)
                watch.reset()
            for _ in range(job.times):
                await read(ids, job.in_flight)
            await asyncio.sleep(0)
            return {"step": round(watch.step, 2), "iteration": round(watch.iteration, 2)}
