"""A limiter that learns together with those of other processes, through a log that all of them write and read."""

import math
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio

from .._reports import show_log
from ._breaker import LONGEST_NAP
from ._group import Group, Status
from ._log import Log
from ._outcomes import Kind, Outcome
from ._pacing import Part
from ._replica import Replica, Report, fair_part
from .adaptive import AdaptiveLimiter
from .base import DEFAULT_MAX_IN_FLIGHT, Permit

_MEMORY = 1.0
"""Seconds. A request that began this long ago counts 1/e of a new one."""

_HEADROOM = 1.25
"""A process wants this many times the rate at which it sends, because it may need more."""

_HOLD_ALONE = 30.0
"""Seconds for which a process keeps its share of the rate when the log is lost. If all try more, all are refused."""


class SharedLimiter(AdaptiveLimiter):
    """
    An `AdaptiveLimiter` for a quota that several processes share: they learn the limit together, and divide it.

    Enter it around the clients that use it. No request fails because of the log. While the log is unavailable, the process
    keeps its share of the rate, and learns on its own.
    """

    def __init__(self, log: Log, *, name: str, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        super().__init__(max_in_flight=max_in_flight)
        self._log, self._name = log, name
        self._group = self._new_group()
        self._tasks: AsyncExitStack | None = None
        # Requests that began lately, and when the last one did, by the event loop's clock: ours may be set back.
        self._begun, self._begun_at = 0.0, -math.inf
        self._others_want: list[float] = []  # requests per second
        self._others_ask: list[int] = []  # requests in flight and waiting
        self._others_wait = False
        self._heard: float = -math.inf  # when the rate or a pause was decided last
        self._heard_at: float = -math.inf  # when we heard of it

    def __repr__(self) -> str:
        count = len(self._others_want)
        sharing = f"shared with {count} other process{'' if count == 1 else 'es'}"
        return f"<{type(self).__name__} {self._name!r}, {self._rate_in_words()}, {sharing if self._is_shared else 'alone'}>"

    async def __aenter__(self) -> Self:
        if self._tasks is not None and not self._own_loop_has_ended():
            raise RuntimeError("this limiter is in use already; enter it once, around all clients that share it")

        show_log()
        self._settle_here()
        self._tasks = AsyncExitStack()
        self._group, self._pacer = self._new_group(), self._new_pacer()
        self._begun, self._begun_at = 0.0, -math.inf
        self._group.ahead = self._ahead = time.time() - anyio.current_time()
        try:
            await self._group.open()
        except BaseException:
            await self._close()
            raise
        tasks = await self._tasks.enter_async_context(anyio.create_task_group())
        self._tasks.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(self._group.run)
        tasks.start_soon(self._group.heed_notices)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        # A task of asyncio can be cancelled at any of these steps.
        try:
            if self._tasks is not None:
                await self._tasks.aclose()
        finally:
            try:
                await self._group.close()
            finally:
                self._tasks = None
                self._go_alone(())  # requests that still wait must not wait for news of the others

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        """Wait until a request may begin; see `RateLimiter`."""
        if self._tasks is None or not self._is_in_own_loop():
            raise RuntimeError(
                f"this limiter is not open here; use it inside `async with {type(self).__name__}(...) as limiter:`"
            )

        return await super().acquire(again=again, max_wait=max_wait)

    def _new_group(self) -> Group:
        return Group(self._log, self._name, status=self._status, on_change=self._heed, on_loss=self._go_alone)

    @property
    def _is_shared(self) -> bool:
        return self._group.replica is not None

    def _estimate_here(self, *, again: bool) -> float:
        self._take_part(self._now())  # what waits may just have come, and our share grows with it
        return super()._estimate_here(again=again)

    def _begin(self, now: float) -> None:
        self._begun, self._begun_at = 1.0 + self._begun_lately(now), now - self._ahead
        self._take_part(now)
        super()._begin(now)
        if self._pacer.controller.is_half_open:
            self._group.hurry()  # the others wait for what this request finds out

    def _observe(self, outcome: Outcome) -> None:
        self._report(outcome) if self._is_shared else super()._observe(outcome)

    def _exhaust(self, outcome: Outcome) -> None:
        self._report(outcome, is_hint=True) if self._is_shared else super()._exhaust(outcome)

    def _report(self, outcome: Outcome, *, is_hint: bool = False) -> None:
        pacer = self._pacer
        in_flight = outcome.in_flight + pacer.part.untold + pacer.part.elsewhere
        if self._queue or self._others_wait:
            in_flight = max(2, in_flight)  # only one would mean that nothing else is wanted
        report = Report.of(outcome._replace(in_flight=in_flight), is_late=outcome.sent < self._heard_at, is_hint=is_hint)
        if not pacer.part.untold:
            pacer.part.untold_since = outcome.ended
        pacer.part.untold += 1
        is_urgent = is_hint or outcome.kind is not Kind.SUCCESS or pacer.controller.is_half_open
        self._group.report(report, is_urgent=is_urgent)

    def _begun_lately(self, now: float) -> float:
        return self._begun * math.exp((self._begun_at - (now - self._ahead)) / _MEMORY)

    def _wanted(self, now: float) -> float:
        """Return the requests per second that would begin if they could."""
        return _HEADROOM * self._begun_lately(now) + len(self._queue)

    def _status(self) -> Status:
        pacer, controller = self._pacer, self._pacer.controller
        is_slow_start = not controller.is_limited and pacer.window < self.max_in_flight
        is_held_up = bool(self._queue) and (is_slow_start or controller.is_half_open)
        now = self._now()
        pause = controller.paused_until - now
        asked = pause if pause > LONGEST_NAP else 0.0  # a longer pause is not a nap: the server asked for it
        waiting = len(self._queue)
        return Status(self._heard, self._wanted(now), pacer.in_flight, waiting, is_held_up, self._held_share, asked)

    @property
    def _held_share(self) -> float:
        """Our share of the rate without its growth, which all processes have tried together."""
        pacer = self._pacer
        return min(pacer.rate, pacer.controller.rate * pacer.part.share)

    def _take_part(self, now: float) -> None:
        """Set our share of the rate, and of the requests that may be in flight."""
        pacer, wanted = self._pacer, self._wanted(now)
        rate = pacer.controller.present_rate
        pacer.part.share = 1.0 if math.isinf(rate) else fair_part(rate, max(1.0, wanted), self._others_want) / rate
        pacer.part.room = fair_part(pacer.controller.window, pacer.in_flight + len(self._queue) + 1, self._others_ask)
        self._group.note_wanted(wanted)

    def _heed(self, replica: Replica) -> None:
        """Use what all processes have learned."""
        self._ahead = self._group.ahead
        now = self._now()
        others = self._group.others(now)
        self._others_want = [member.wanted for member in others]
        self._others_ask = [member.in_flight + member.waiting for member in others]
        self._others_wait = any(member.waiting for member in others)
        is_new = self._pacer.controller is not replica.controller
        if is_new:
            self._pacer = self._new_pacer(replica.controller)
        self._take_part(now)
        self._pacer.use_part()
        self._pacer.part.phase = self._group.phase
        self._pacer.heed_lesson(now)
        if replica.controller.changed_at != self._heard:
            self._heard, self._heard_at = replica.controller.changed_at, now
        self._pacer.part.untold, self._pacer.part.untold_since = self._group.untold, now
        self._pacer.part.elsewhere = sum(member.in_flight for member in others)
        if is_new:
            self._pacer.begin_in_turn(now)
        self._wake_head()

    def _go_alone(self, reports: Sequence[Report]) -> None:
        """Keep our share of the rate, and learn on our own."""
        controller, rate, now = self._pacer.controller, self._held_share, self._now()
        controller.window = max(1.0, controller.window / (1 + len(self._others_want)))
        if controller.is_limited:
            controller.resume_at(rate, now)
            controller.hold = max(controller.hold, _HOLD_ALONE)
        self._pacer.part = Part()
        self._others_want, self._others_ask, self._others_wait = [], [], False
        for report in reports:
            learn = self._pacer.exhaust if report.kind is None else self._pacer.observe
            learn(report.outcome())
        self._wake_head()
