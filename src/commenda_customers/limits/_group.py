"""The processes that share a quota, as one of them sees them: it takes part as long as their log can be used."""

import logging
import math
import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import anyio

from ._log import Log, LogUnavailableError, Reading
from ._replica import SILENCE, START, Member, Message, Replica, Report

_logger = logging.getLogger("commenda_customers.limits")

_BEAT, _BEAT_IN_SLOW_START, _BEAT_WHEN_IDLE, _LEAST_BEAT = 0.25, 0.02, 1.0, 0.01
"""Seconds between two exchanges: usually; while requests wait for responses; while nothing is wanted; at least."""

_SNAPSHOTS = 1.0
"""Seconds between two snapshots."""

_GOODBYE = 1.0
"""Seconds for the last message."""

_NEWCOMER_WANTS, _NEWCOMER_WAITS = 10.0, 4
"""What a process most likely wants that has just joined: requests per second, and requests that wait."""

_FIRST_RETRY, _LAST_RETRY = 0.1, 2.5
"""Seconds between two attempts to reach the log again. They double. All are back before the first takes them for gone."""


class Status(NamedTuple):
    """
    The state of this process.

    Attributes:
        heard: When the rate or a pause was decided last, as far as it knows.
        wanted: Requests per second that it would send if it could.
        in_flight: Its requests in flight that began after the last lesson.
        waiting: Its requests that wait.
        rate: The rate at which they may begin.
    """

    heard: float
    wanted: float
    in_flight: int
    waiting: int
    rate: float

    @property
    def is_idle(self) -> bool:
        """Whether it wants nothing."""
        return self.wanted < 1 / 8 and not self.in_flight and not self.waiting


class Group:
    """
    Tells the others what this process sees, and knows what they see.

    Attributes:
        replica: What all have learned; `None` while this process is alone.
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
        A process that does not take part yet.

        Args:
            log: The log.
            name: The name of the quota, for messages.
            status: Returns the state of this process.
            on_change: Is called with the replica when it may have changed.
            on_loss: Is called when this process is alone again, with the reports that the others have not got.
        """
        self.replica: Replica | None = None
        self.ahead = 0.0
        self._log, self._name = log, name
        self._member = secrets.token_hex(6)
        self._status, self._on_change, self._on_loss = status, on_change, on_loss
        self._reports: list[Report] = []
        self._told = 0.0  # the requests per second that the others believe we want
        self._is_idle = False
        self._hurry = anyio.Event()
        self._exchanged_at = self._saved_at = -math.inf

    def others(self, now: float) -> list[Member]:
        """Return the other members."""
        return [] if self.replica is None else self.replica.others(self._member, now)

    @property
    def phase(self) -> float:
        """The part of the members that come before this process in their order."""
        members = [] if self.replica is None else list(self.replica.members)
        return sum(name < self._member for name in members) / max(1, len(members))

    async def open(self) -> None:
        """
        Begin to take part, if the log can be used.

        Raises:
            ValueError: It never will.
        """
        try:
            await self._log.open()
            await self._join()
        except LogUnavailableError as exc:
            self._warn(exc)

    async def run(self) -> None:
        """Take part for ever."""
        retry = _FIRST_RETRY
        while True:
            try:
                if self.replica is None:
                    await anyio.sleep(retry * random.uniform(0.5, 1.0))
                    await self._join()
                    _logger.info("rate limit of %s: shared with other processes again", self._name)
                else:
                    await self._until_next_beat(self.replica)
                    await self._beat(self.replica)
                retry = _FIRST_RETRY
            except LogUnavailableError as exc:
                if self.replica is not None:
                    self._go_alone()
                    self._warn(exc)
                retry = min(2 * retry, _LAST_RETRY)

    async def close(self) -> None:
        """Tell the others that this process leaves, even if it is being cancelled."""
        replica, self.replica = self.replica, None
        with anyio.move_on_after(_GOODBYE, shield=True):
            with suppress(LogUnavailableError):
                if replica is not None:
                    await self._exchange(replica, leaves=True)
        with anyio.CancelScope(shield=True):
            await self._log.aclose()

    @property
    def untold(self) -> int:
        """The reports that the others have not got yet."""
        return len(self._reports)

    def report(self, report: Report, *, is_urgent: bool) -> None:
        """Tell the others what came of a request with the next message, which comes at once if it *is_urgent*."""
        self._reports.append(report)
        if is_urgent:
            self._hurry.set()

    def note_wanted(self, wanted: float) -> None:
        """Tell the others soon, if this process wants something again, or much more than they believe."""
        if self._is_idle or wanted > 2 * self._told + 2:
            self._hurry.set()

    async def _join(self, *, anew: bool = False) -> None:
        """Become a member: it counts from its first message on. Otherwise each would begin with the whole rate."""
        began = anyio.current_time()
        snapshot, reading = await self._log.read()
        await self._set_clock(reading, began)
        replica = Replica.restored(snapshot, reading.entries)
        if not await self._exchange(replica, joins=True, anew=anew):
            raise LogUnavailableError("entries are missing")
        self.replica = replica
        self._on_change(replica)

    async def _beat(self, replica: Replica) -> None:
        controller = replica.controller
        if not await self._exchange(replica) or replica.controller is not controller:
            # The log has lost what all knew, or all were silent for so long that it does not hold. We still know our part.
            await self._join(anew=True)
            return

        self._on_change(replica)
        now = anyio.current_time()
        if replica.leads(self._member) and now >= self._saved_at + _SNAPSHOTS:
            self._saved_at = now
            await self._log.save(replica.snapshot())

    async def _exchange(self, replica: Replica, *, joins: bool = False, anew: bool = False, leaves: bool = False) -> bool:
        """Write a message, and apply those since the last one. Return false if entries are missing: the log lost them."""
        reports, self._reports = self._reports, []
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
        entries = reading.entries
        if replica.position != START:
            if not entries or entries[0].id != replica.position:
                return False
            entries = entries[1:]
        replica.apply(entries)
        return True

    def _message(self, reports: Sequence[Report], *, joins: bool, anew: bool, leaves: bool) -> Message:
        heard, wanted, in_flight, waiting, rate = self._status()
        brings = rate if joins and rate < math.inf else None
        if joins:
            wanted, waiting = max(wanted, _NEWCOMER_WANTS), max(waiting, _NEWCOMER_WAITS)
        now = anyio.current_time() + self.ahead
        return Message(self._member, now, heard, round(wanted, 3), in_flight, waiting, tuple(reports), brings, anew, leaves)

    async def _set_clock(self, reading: Reading, began: float) -> None:
        """Correct what is known of the log's clock: it was read at some time between *began* and now."""
        if reading.entries and reading.time < reading.entries[-1].time - SILENCE:
            await self._log.clear()
            raise LogUnavailableError("its clock was set back")

        self.ahead = min(max(self.ahead, reading.time - anyio.current_time()), reading.time - began)

    async def _until_next_beat(self, replica: Replica) -> None:
        status, seconds = self._status(), _BEAT
        if status.waiting and not replica.controller.is_limited:
            seconds = _BEAT_IN_SLOW_START
        self._is_idle = status.is_idle and not self._reports
        if self._is_idle:
            seconds = _BEAT_WHEN_IDLE
        with anyio.move_on_after(seconds):
            await self._hurry.wait()
        self._hurry, self._is_idle = anyio.Event(), False
        await anyio.sleep_until(self._exchanged_at + _LEAST_BEAT)

    def _go_alone(self) -> None:
        self.replica = None
        reports, self._reports = self._reports, []
        self._on_loss(reports)

    def _warn(self, exc: LogUnavailableError) -> None:
        _logger.warning("rate limit of %s: not shared with other processes for now: %s", self._name, exc)
