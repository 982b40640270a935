"""A log in memory for limiters of several processes, and all that can go wrong with one."""

from bisect import bisect_left
from itertools import count

import anyio

from commenda_customers.limits._log import Entry, LogUnavailableError, Reading, Snapshot

EPOCH = 1_785_000_000.0
"""What the clock of a store shows when that of the event loop shows 0, in seconds."""

TIMEOUT = 1.0
"""Seconds after which a call of a store that is away is an error."""


class Store:
    """
    What all processes share, as Redis does.

    Attributes:
        entries: The entries that it keeps.
        snapshot: The last one.
        kept: How many entries it keeps.
        sends_notices: Whether those that wait for a notice get one.
        ahead: Seconds by which its clock is ahead of the event loop's.
        is_away: Whether it answers nothing.
        is_refusing: Whether it answers every call with an error, at once.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.snapshot: Snapshot | None = None
        self.kept = 8_000
        self.ahead = EPOCH
        self.sends_notices = True
        self._notice = anyio.Event()
        self.is_away = self.is_refusing = False
        self._numbers = count()
        self._last = 0

    @property
    def time(self) -> float:
        return anyio.current_time() + self.ahead

    def append(self, text: str) -> None:
        """Append an entry. Its time is not before that of the last one."""
        self._last = max(self._last, int(self.time * 1000))
        self.entries.append(Entry(f"{self._last}-{next(self._numbers)}", text))
        del self.entries[: max(0, len(self.entries) - self.kept)]

    def since(self, position: str) -> Reading:
        """Return the entries from a position on."""
        first = bisect_left(self.entries, _key(position), key=lambda entry: _key(entry.id))
        return Reading(self.time, self.entries[first:])

    def ring(self) -> None:
        """Let all return that wait for a notice."""
        self._notice.set()
        self._notice = anyio.Event()

    async def wait(self) -> None:
        """Wait for a notice."""
        await self._notice.wait()

    def clear(self) -> None:
        """Forget everything."""
        self.entries, self.snapshot, self._last = [], None, 0


class MemoryLog:
    """
    The way of one process to a store; see `Log`.

    Attributes:
        delay: Seconds that a message takes to the store, and the same back.
        is_open: Whether it is connected.
        is_cut: Whether this process alone cannot reach the store.
        hangs: The calls that never return, by name.
        is_noisy: Whether its notices never end.
        fails: The calls that fail at once, by name.
        held: Texts that were sent while `is_holding`, and not delivered: the process believes that the store is away.
        failure: What `open` raises.
        called: The names of all calls.
    """

    def __init__(self, store: Store, delay: float = 0.0) -> None:
        self.store, self.delay = store, delay
        self.is_open = self.is_cut = self.is_holding = self.is_noisy = False
        self.hangs: set[str] = set()
        self.fails: set[str] = set()
        self.held: list[str] = []
        self.failure: Exception | None = None
        self.called: list[str] = []

    async def open(self) -> None:
        self.is_open = True
        await self._go("open")
        if self.failure is not None:
            raise self.failure

    async def exchange(self, text: str, since: str) -> Reading:
        assert self.is_open
        if self.is_holding:
            self.held.append(text)
        await self._go("exchange")
        self.store.append(text)
        reading = self.store.since(since)
        await self._come_back()
        return reading

    async def read(self) -> tuple[Snapshot | None, Reading]:
        await self._go("read")
        snapshot = self.store.snapshot
        reading = self.store.since(snapshot.position if snapshot else "0-0")
        await self._come_back()
        return snapshot, reading

    async def save(self, snapshot: Snapshot) -> None:
        await self._go("save")
        self.store.snapshot = snapshot
        await self._come_back()

    async def clear(self) -> None:
        await self._go("clear")
        self.store.clear()
        await self._come_back()

    async def notify(self) -> None:
        await self._go("notify")
        if self.store.sends_notices:
            self.store.ring()
        await self._come_back()

    async def wait_for_notice(self) -> None:
        await self._go("wait_for_notice")
        if not self.is_noisy:
            await self.store.wait()
        await self._come_back()

    async def aclose(self) -> None:
        self.called.append("aclose")
        self.is_open = False

    def deliver(self) -> None:
        """Append what was held."""
        for text in self.held:
            self.store.append(text)

    async def _go(self, name: str) -> None:
        self.called.append(name)
        if name in self.hangs:
            await anyio.sleep_forever()
        await anyio.sleep(self.delay)
        if self.store.is_refusing or name in self.fails:
            raise LogUnavailableError("the connection was refused")
        await self._come_back()

    async def _come_back(self) -> None:
        await anyio.sleep(self.delay)
        if self.store.is_away or self.is_cut or self.is_holding:
            await anyio.sleep(TIMEOUT)
            raise LogUnavailableError("it did not answer in time")


def _key(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)
