"""The processes that share a quota, as one of them sees them. It is a member while the log is available."""

import logging
import math
import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import anyio
import anyio.lowlevel

from ._log import Entry, Log, LogUnavailableError, Reading
from ._replica import SILENCE, Member, Message, Replica, Report

_logger = logging.getLogger("commenda_customers.limits")

_BEAT, _BEAT_WHEN_HELD_UP, _BEAT_WHEN_IDLE, _LEAST_BEAT = 0.25, 0.02, 1.0, 0.01
"""Seconds between two exchanges: usually; while requests wait for outcomes; while idle; at least."""

_AT_ONCE = 10_000
"""Characters of the entries that are applied in one step, which takes about two milliseconds."""

_LEAST_BETWEEN_NOTICES = 0.1
"""Seconds: a log whose notices never end must not take all our time."""

_SNAPSHOTS = 1.0
"""Seconds between two snapshots."""

_GOODBYE = 1.0
"""Seconds that the last message may take."""

_NEWCOMER_WANTS, _NEWCOMER_WAITS = 10.0, 4
"""What a process that has just joined most likely wants: requests per second, and requests that wait."""

_LEAST_BETWEEN_WARNINGS = 60.0
"""Seconds: a log that comes and goes is one problem."""

_FIRST_RETRY, _LAST_RETRY = 0.1, 2.5
"""Seconds of backoff before the next attempt to reach the log: at first, and at most. They double."""


class Status(NamedTuple):
    """
    The state of this process.

    Attributes:
        heard: When the rate or a pause was decided last, as far as it knows.
        wanted: Requests per second that it would send if it could.
        in_flight: Its requests in flight that began after the last lesson.
        waiting: Its requests that wait.
        is_held_up: Whether they wait for outcomes, of others too.
        rate: The part of the rate that it may use, without growth.
        pause: Seconds for which the server wants no requests at all.
    """

    heard: float
    wanted: float
    in_flight: int
    waiting: int
    is_held_up: bool
    rate: float
    pause: float

    @property
    def is_idle(self) -> bool:
        """Whether it needs no share of the limit."""
        return self.wanted < 1 / 8 and not self.in_flight and not self.waiting


class Group:
    """
    Exchanges what this process sees with what the others see.

    Attributes:
        replica: What all have learned; `None` while this process is not a member.
        ahead: Seconds by which the log's clock is ahead of the event loop's.
    """

    def __init__(
        self,
        log: Log,
        name: str,
        *,
        status: Callable[[], Status],
        on_change: Callable[[Replica], None],
        on_loss: Callable[[Sequence[Report]], None],
    ) -> None:
        """
        Prepare. The process is not a member yet.

        Args:
            log: The log.
            name: The name of the quota, for messages.
            status: Returns the state of this process.
            on_change: Called with the replica when it may have changed.
            on_loss: Called when the log becomes unavailable, with the reports that the others have not received.
        """
        self.replica: Replica | None = None
        self.ahead = 0.0
        self._log, self._name = log, name
        self._member = secrets.token_hex(6)
        self._status, self._on_change, self._on_loss = status, on_change, on_loss
        self._reports: list[Report] = []
        self._ends: set[float] = set()  # when the outcomes were known that the last message had
        self._told = 0.0  # the requests per second that the others believe we want
        self._is_idle = self._is_warned = False
        self._warned_at = self._alone_since = -math.inf
        self._hurry = anyio.Event()
        self._exchanged_at = self._saved_at = -math.inf

    def others(self, now: float) -> list[Member]:
        """Return the other members."""
        return [] if self.replica is None else self.replica.others(self._member, now)

    @property
    def phase(self) -> float:
        """The fraction of the members that come before this process in the order of their names."""
        members = [] if self.replica is None else list(self.replica.members)
        return sum(name < self._member for name in members) / max(1, len(members))

    async def open(self) -> None:
        """
        Join, if the log is available.

        Raises:
            ValueError: The log will never work as it is configured.
        """
        try:
            await self._log.open()
            await self._join()
        except LogUnavailableError as exc:
            self._go_alone(exc)

    async def run(self) -> None:
        """Exchange messages until cancelled. Join again after an outage of the log."""
        retry = _FIRST_RETRY
        while True:
            try:
                if self.replica is None:
                    await anyio.sleep(retry * random.uniform(0.5, 1.0))
                    await self._join()
                else:
                    await self._until_next_beat(self.replica)
                    await self._beat(self.replica)
                retry = _FIRST_RETRY
            except LogUnavailableError as exc:
                self._go_alone(exc)
                retry = min(2 * retry, _LAST_RETRY)

    async def heed_notices(self) -> None:
        """Hurry whenever a process has caused a lesson, until cancelled. Without notices, we hear of it a beat later."""
        while True:
            try:
                await self._log.wait_for_notice()
                self.hurry()
                await anyio.sleep(_LEAST_BETWEEN_NOTICES)
            except LogUnavailableError:
                await anyio.sleep(_LAST_RETRY)

    async def close(self) -> None:
        """Tell the others that this process leaves, even if it is being cancelled."""
        replica, self.replica = self.replica, None
        try:
            with anyio.move_on_after(_GOODBYE, shield=True), suppress(LogUnavailableError):
                if replica is not None:
                    await self._exchange(replica, leaves=True)
        finally:  # a task of asyncio can be cancelled in spite of the shield
            with anyio.CancelScope(shield=True):
                await self._log.aclose()

    @property
    def untold(self) -> int:
        """The number of reports that the others have not received yet."""
        return len(self._reports)

    def report(self, report: Report, *, is_urgent: bool) -> None:
        """Put a report into the next message. If it *is_urgent*, send this message immediately."""
        self._reports.append(report)
        if is_urgent:
            self.hurry()

    def hurry(self) -> None:
        """Do not wait until the next exchange is due."""
        self._hurry.set()

    def note_wanted(self, wanted: float) -> None:
        """Hurry if this process is no longer idle, or wants much more than it last told the others."""
        if self._is_idle or wanted > 2 * self._told + 2:
            self.hurry()

    async def _join(self, *, anew: bool = False) -> None:
        """Become a member by sending a first message. Without it, each process would begin with the whole rate."""
        began = anyio.current_time()
        snapshot, reading = await self._log.read()
        await self._set_clock(reading, began)
        replica = Replica.restored(snapshot)
        news = replica.news(reading.entries)
        if news is None:
            replica, news = Replica(), reading.entries  # at worst, all learn again what was lost
        await _apply(news, replica)
        if not await self._exchange(replica, joins=True, anew=anew):
            raise LogUnavailableError("the shared log has lost entries")
        self.replica = replica
        if self._is_warned:
            _logger.info("rate limit of %s: shared with other processes again", self._name)
        self._is_warned = False
        self._on_change(replica)

    async def _beat(self, replica: Replica) -> None:
        controller = replica.controller
        if not await self._exchange(replica) or replica.controller is not controller:
            # The log has lost what all knew, or all were silent for so long that it does not hold. We still know our share.
            await self._join(anew=True)
            return

        self._on_change(replica)
        if controller.lesson_at in self._ends and len(replica.members) > 1:
            with suppress(LogUnavailableError):  # they hear of it a beat later, and the next exchange tells what is wrong
                await self._log.notify()  # it was one of our reports that led to the lesson
        now = anyio.current_time()
        if replica.leads(self._member) and now >= self._saved_at + _SNAPSHOTS:
            self._saved_at = now
            await self._log.save(replica.snapshot())

    async def _exchange(self, replica: Replica, *, joins: bool = False, anew: bool = False, leaves: bool = False) -> bool:
        """Write a message, and apply all since the last one. Return false if entries are missing: the log has lost them."""
        reports, self._reports = self._reports, []
        self._ends = {report.ended for report in reports}
        message = self._message(reports, joins=joins, anew=anew, leaves=leaves)
        self._told = message.wanted
        began = anyio.current_time()
        try:
            reading = await self._log.exchange(message.text(), replica.position)
        except LogUnavailableError:
            self._reports = reports + self._reports
            raise
        await self._set_clock(reading, began)
        self._exchanged_at = anyio.current_time()
        news = replica.news(reading.entries)
        if not news:  # not even our own message
            return False

        await _apply(news, replica)
        return True

    def _message(self, reports: Sequence[Report], *, joins: bool, anew: bool, leaves: bool) -> Message:
        heard, wanted, in_flight, waiting, _, rate, pause = self._status()
        if joins:
            wanted, waiting = max(wanted, _NEWCOMER_WANTS), max(waiting, _NEWCOMER_WAITS)
        now, brings = anyio.current_time() + self.ahead, rate if joins and rate < math.inf else None
        known = brings, self._alone_since, pause if joins else 0.0
        return Message(
            self._member, now, heard, round(wanted, 3), in_flight, waiting, tuple(reports), *known, anew=anew, leaves=leaves
        )

    async def _set_clock(self, reading: Reading, began: float) -> None:
        """Correct what is known of the log's clock: it was read at some time between *began* and now."""
        if reading.entries and reading.time < reading.entries[-1].time - SILENCE:
            await self._log.clear()
            raise LogUnavailableError("the clock of the shared log was set back")

        self.ahead = min(max(self.ahead, reading.time - anyio.current_time()), reading.time - began)

    async def _until_next_beat(self, replica: Replica) -> None:
        with anyio.move_on_after(self._seconds_to_next_beat(replica)):
            await self._hurry.wait()
        self._hurry, self._is_idle = anyio.Event(), False
        await anyio.sleep_until(self._exchanged_at + _LEAST_BEAT)

    def _seconds_to_next_beat(self, replica: Replica) -> float:
        status = self._status()
        self._is_idle = status.is_idle and not self._reports
        if self._is_idle:
            return _BEAT_WHEN_IDLE
        if not status.is_held_up:
            return _BEAT
        pause = replica.controller.paused_until - anyio.current_time() - self.ahead
        return min(max(pause, _BEAT_WHEN_HELD_UP), _BEAT)

    def _go_alone(self, exc: LogUnavailableError) -> None:
        if self.replica is not None:
            self.replica, self._alone_since = None, anyio.current_time() + self.ahead
            reports, self._reports = self._reports, []
            self._on_loss(reports)
        now = anyio.current_time()
        if not self._is_warned and now >= self._warned_at + _LEAST_BETWEEN_WARNINGS:
            _logger.warning("rate limit of %s: not shared with other processes for now: %s", self._name, exc)
            self._is_warned, self._warned_at = True, now


async def _apply(entries: Sequence[Entry], replica: Replica) -> None:
    """Apply entries a few at a time, so that other tasks can run."""
    characters = 0
    for entry in entries:
        replica.apply([entry])
        characters += len(entry.text)
        if characters > _AT_ONCE:
            await anyio.lowlevel.checkpoint()
            characters = 0
