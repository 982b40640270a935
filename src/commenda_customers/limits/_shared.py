"""A limiter that learns together with those of other processes, through a log that all of them write and read."""

import math
import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from ._group import Group, Status
from ._log import Log
from ._outcomes import Kind, Outcome
from ._pacing import Pacer
from ._replica import Replica, Report, fair_rate
from .adaptive import AdaptiveLimiter
from .base import DEFAULT_MAX_IN_FLIGHT, Permit

_MEMORY = 1.0
"""Seconds over which the requests that begin are counted."""

_HEADROOM = 1.25
"""What a process wants for each request that it sends."""


class SharedLimiter(AdaptiveLimiter):
    """
    An `AdaptiveLimiter` for one quota in several processes: they learn the limit together, and divide it.

    A request never waits for the log. While the log cannot be used, a process goes on with its part of the rate, and learns
    alone.
    """

    def __init__(self, log: Log, *, name: str, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        super().__init__(max_in_flight=max_in_flight)
        self._log, self._name = log, name
        self._group: Group | None = None
        self._tasks: TaskGroup | None = None
        self._others_want: list[float] = []  # requests per second
        self._others_in_flight: list[float] = []
        self._others_wait = False
        self._begun, self._begun_at = 0.0, -math.inf  # requests that began lately, and the time of the last one

    def __repr__(self) -> str:
        count = len(self._others_want)
        shared = f"shared with {count} other process{'' if count == 1 else 'es'}" if self._is_shared else "not shared now"
        return f"<{type(self).__name__} {self._name!r}, {self._rate_in_words()}, {shared}>"

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise RuntimeError("this limiter is in use; enter it once, around all clients that use it")

        self._settle_here()
        ahead = time.time() - anyio.current_time()
        self._group = Group(
            self._log, self._name, ahead=ahead, status=self._status, on_change=self._heed, on_loss=self._go_alone
        )
        self._ahead = ahead
        try:
            await self._group.open()
            self._tasks = anyio.create_task_group()
            await self._tasks.__aenter__()
        except BaseException:
            self._group = None
            await self._log.aclose()
            raise
        self._tasks.start_soon(self._group.run)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        group, tasks = self._group, self._tasks
        assert group is not None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        try:
            await tasks.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True):
                await group.close()
            self._group = self._tasks = None

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        """Wait until a request may begin; see `RateLimiter`."""
        if self._group is None:
            raise RuntimeError(
                f"this limiter is not open; use it inside `async with {type(self).__name__}(...) as limiter:`"
            )
        return await super().acquire(again=again, max_wait=max_wait)

    @property
    def _is_shared(self) -> bool:
        return self._group is not None and self._group.replica is not None

    def _begin(self, now: float) -> None:
        self._begun, self._begun_at = 1.0 + self._begun_lately(now), now
        self._divide(now)
        super()._begin(now)

    def _observe(self, outcome: Outcome) -> None:
        if self._group is not None and self._group.replica is not None:
            self._report(self._group, outcome)
        else:
            super()._observe(outcome)

    def _exhaust(self, outcome: Outcome) -> None:
        if self._group is not None and self._group.replica is not None:
            self._report(self._group, outcome, is_hint=True)
        else:
            super()._exhaust(outcome)

    def _report(self, group: Group, outcome: Outcome, *, is_hint: bool = False) -> None:
        pacer = self._pacer
        in_flight = outcome.in_flight + pacer.elsewhere
        if in_flight == 1 and (self._queue or self._others_wait):
            in_flight = 2  # with one request in flight the controller takes it that nothing else is wanted
        outcome = outcome._replace(in_flight=in_flight)
        group.report(Report.of(outcome, is_late=outcome.sent < pacer.heeded_at, is_hint=is_hint))
        if is_hint or outcome.kind is not Kind.SUCCESS or pacer.controller.is_half_open:
            group.hurry()

    def _begun_lately(self, now: float) -> float:
        return self._begun * math.exp((self._begun_at - now) / _MEMORY)

    def _status(self) -> Status:
        now = self._now()
        wanted = round(_HEADROOM * self._begun_lately(now) + len(self._queue), 3)
        return Status(self._pacer.heeded, wanted, self._pacer.recent, len(self._queue), self._pacer.rate)

    def _divide(self, now: float) -> None:
        """Take our part of the rate."""
        rate = self._pacer.controller.present_rate
        wanted = _HEADROOM * self._begun_lately(now) + len(self._queue)
        in_flight = self._pacer.recent + len(self._queue) + 1
        self._pacer.room = fair_rate(self._pacer.controller.window, in_flight, self._others_in_flight)
        self._pacer.share = 1.0 if math.isinf(rate) else fair_rate(rate, wanted, self._others_want) / rate
        if self._group is not None and wanted > 2 * self._group.told.wanted + 2:
            self._group.hurry()  # the others have to know

    def _heed(self, replica: Replica) -> None:
        """Go on with what all have learned."""
        group = self._group
        assert group is not None
        self._ahead = group.ahead
        now = anyio.current_time() + self._ahead
        is_new = self._pacer.controller is not replica.controller
        if is_new:
            self._pacer = Pacer(replica.controller, random.random)
            self._pacer.heeded_at = now
        others = group.others
        self._others_want = [member.wanted for member in others]
        self._others_wait = any(member.waiting for member in others)
        self._others_in_flight = [float(member.in_flight + member.waiting) for member in others]
        self._divide(now)
        self._pacer.phase = group.phase
        self._pacer.heed_lesson(now)
        if is_new:
            self._pacer.begin_in_turn(now)
        self._pacer.elsewhere = sum(member.in_flight for member in others)
        self._divide(now)
        self._wake_head()

    def _go_alone(self, reports: Sequence[Report]) -> None:
        """Go on with our part of the rate."""
        pacer, now = self._pacer, self._now()
        if pacer.controller.is_limited:
            pacer.controller.resume_at(pacer.rate, now)
        pacer.controller.window = max(1.0, pacer.controller.window / (1 + len(self._others_want)))
        pacer.share, pacer.elsewhere = 1.0, 0
        self._others_want, self._others_wait = [], False
        for report in reports:
            pacer.observe(report.outcome())
        self._wake_head()
