"""A log in memory: what Redis is for `RedisLimiter`, with a way to it that takes time, and that can fail."""

from bisect import bisect_left

import anyio

from commenda_customers.limits._log import Entry, LogUnavailableError, Reading, Snapshot

KEPT = 8_000
"""Entries, at least."""

EPOCH = 1_785_000_000.0
"""What the clock of the store is ahead of the event loop's, in seconds."""

TIMEOUT = 1.0
"""Seconds after which a call of a store that does not answer is an error."""


class Store:
    """
    What all processes share.

    Attributes:
        is_away: Whether it answers nothing at all.
        snapshot: The last one.
        notice: Set when a process notifies the others.
        calls: Calls that it has answered.
        characters: Those of the entries that it has sent and received.
    """

    def __init__(self) -> None:
        self.is_away = False
        self.snapshot: Snapshot | None = None
        self.calls = self.characters = 0
        self.notice = anyio.Event()
        self._entries: list[Entry] = []
        self._keys: list[tuple[int, int]] = []

    @property
    def time(self) -> float:
        """The time of its clock, in seconds."""
        return EPOCH + anyio.current_time()

    def append(self, text: str) -> None:
        """Append an entry. Its id is greater than all before."""
        key = (int(1000 * self.time), 0)
        if self._keys and key <= self._keys[-1]:
            milliseconds, number = self._keys[-1]
            key = (milliseconds, number + 1)
        self._keys.append(key)
        self._entries.append(Entry(f"{key[0]}-{key[1]}", text))
        self.characters += len(text)
        if len(self._keys) > 2 * KEPT:
            del self._keys[:KEPT], self._entries[:KEPT]

    def since(self, position: str) -> Reading:
        """Return all entries from a position on."""
        milliseconds, _, number = position.partition("-")
        entries = self._entries[bisect_left(self._keys, (int(milliseconds), int(number))) :]
        self.characters += sum(len(entry.text) for entry in entries)
        return Reading(self.time, entries)

    def clear(self) -> None:
        """Forget everything, as a Redis does that is started again."""
        self._entries, self._keys, self.snapshot = [], [], None


class MemoryLog:
    """The way of one process to a store; see `Log`."""

    def __init__(self, store: Store, delay: float = 0.0005) -> None:
        """*delay* is what a call takes one way, in seconds."""
        self.delay = delay
        self._store = store
        self._is_dead = False

    async def open(self) -> None:
        await self._go()

    async def exchange(self, text: str, since: str) -> Reading:
        await self._go()
        self._store.append(text)
        reading = self._store.since(since)
        await self._return()
        return reading

    async def read(self) -> tuple[Snapshot | None, Reading]:
        await self._go()
        snapshot = self._store.snapshot
        reading = self._store.since("0-0" if snapshot is None else snapshot.position)
        await self._return()
        return snapshot, reading

    async def save(self, snapshot: Snapshot) -> None:
        await self._go()
        self._store.snapshot = snapshot
        await self._return()

    async def clear(self) -> None:
        await self._go()
        self._store.clear()
        await self._return()

    async def notify(self) -> None:
        await self._go()
        self._store.notice.set()
        self._store.notice = anyio.Event()
        await self._return()

    async def wait_for_notice(self) -> None:
        await self._go()
        await self._store.notice.wait()
        await self._return()

    async def aclose(self) -> None:
        self._is_dead = True

    def die(self) -> None:
        """Let nothing pass from now on, not even a goodbye: the process was killed."""
        self._is_dead = True

    async def _go(self) -> None:
        await self._return()
        self._store.calls += 1

    async def _return(self) -> None:
        if self._is_dead:
            raise LogUnavailableError("the process is dead")
        await anyio.sleep(self.delay)
        if self._store.is_away:  # also for a reply that is on its way: the entry is in the log, and its author cannot know
            await anyio.sleep(TIMEOUT - self.delay)
            raise LogUnavailableError("the log does not answer")
