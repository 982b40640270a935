"""The log in Redis: its keys, and the commands."""

import re
from functools import partial
from typing import Any

from .._checks import check_type
from ._log import Entry, Reading, Snapshot
from ._redis_calls import Commands, RedisCalls
from ._redis_url import RedisURL

_KEPT, _FEWEST_KEPT = 8_000, 1_000
"""Entries, at least: usually, and if they are long."""
_SPACE = 4_000_000
"""Characters of all entries together. The fewest entries are kept even if they are longer."""
_EXPIRES_AFTER = 300
"""Seconds without an exchange after which Redis forgets all."""
_LONGEST_QUOTA = 100
"""Characters."""
_LONGEST_WAIT = 5.0
"""Seconds for which Redis keeps a process waiting for a notice."""

_TEXT = "text"
"""The field of an entry."""

_NEVER = "0-0"
"""The id of the last notice if there was none."""

_POSITION = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)


class RedisLog:
    """
    Two streams and a string in one Redis; see `Log`.

    The second stream has the last notice alone. A connection of its own waits for the next one.
    """

    def __init__(self, url: RedisURL, *, quota: str) -> None:
        """
        Check the arguments; `open` connects.

        Raises:
            ValueError: *url* is malformed, or *quota* is empty or too long, or has braces or control characters.
            TypeError: *url* or *quota* is not a str.
        """
        url.check()
        check_type("quota", quota, str)
        if not quota or len(quota) > _LONGEST_QUOTA:
            raise ValueError(f"quota: must have 1 to {_LONGEST_QUOTA} characters")
        if not quota.isprintable() or not {*quota}.isdisjoint("{}"):
            raise ValueError("quota: must not contain braces, or characters that cannot be printed")

        # The braces keep all keys on one node of a cluster.
        keys = f"commenda-customers:1:{{{quota}}}:"
        self._log, self._state, self._notices = (keys + name for name in ("log", "state", "notices"))
        self._noticed = _NEVER  # the id of the last notice
        self._calls = RedisCalls(url, keys + "*")
        self._waiting = RedisCalls(url, keys + "*", longest_wait=_LONGEST_WAIT)

    async def open(self) -> None:
        """Connect, and try all commands in a way that changes nothing."""
        await self._calls.call(self._try_commands, is_new=True)

    async def exchange(self, text: str, since: str) -> Reading:
        """Append an entry, and return all entries from the one with the id *since* on."""
        return await self._calls.call(partial(self._exchange, text, since))

    async def read(self) -> tuple[Snapshot | None, Reading]:
        """Return the snapshot, and all entries from its position on."""
        return await self._calls.call(self._read)

    async def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        await self._calls.call(partial(self._save, snapshot))

    async def clear(self) -> None:
        """Remove all entries and the snapshot."""
        await self._calls.call(self._clear)

    async def notify(self) -> None:
        """Wake all that wait in `wait_for_notice`."""
        await self._calls.call(self._notify)

    async def wait_for_notice(self) -> None:
        """Return after a process has called `notify`, or after some seconds."""
        self._noticed = await self._waiting.call(self._wait_for_notice)

    async def aclose(self) -> None:
        """Close the connections. A call in progress fails."""
        self._calls.close()
        self._waiting.close()

    def _try_commands(self, redis: Commands) -> None:
        # Redis checks the permission before the arguments. Those of the first three are invalid, so these change nothing.
        pipe = redis.pipeline()
        pipe.execute_command("XADD", self._log, "MAXLEN", "~", _KEPT, "0-0", _TEXT, "")
        pipe.execute_command("SET", self._state, "", "EX", 0)
        pipe.execute_command("EXPIRE", self._log, "never")
        pipe.execute_command("GET", self._state)
        pipe.execute_command("XREAD", "STREAMS", self._notices, _NEVER)
        pipe.execute_command("XRANGE", self._log, "0-1", "0-1")
        pipe.execute_command("TIME")
        *_, state, notices, entries, time = pipe.execute(raise_on_error=False)
        for reply in (state, notices, entries, time):
            if isinstance(reply, Exception):
                raise reply
        _snapshot(state)
        _notices(notices)
        _reading(entries, time)

    def _exchange(self, text: str, since: str, redis: Commands) -> Reading:
        # Those who write long entries write few: each has what its author saw since the last one.
        kept = min(_KEPT, max(_FEWEST_KEPT, _SPACE // max(1, len(text))))
        pipe = redis.pipeline()
        pipe.execute_command("XADD", self._log, "MAXLEN", "~", kept, "*", _TEXT, text)
        pipe.execute_command("EXPIRE", self._log, _EXPIRES_AFTER)
        pipe.execute_command("EXPIRE", self._state, _EXPIRES_AFTER)
        pipe.execute_command("XRANGE", self._log, since, "+")
        pipe.execute_command("TIME")
        *_, entries, time = pipe.execute()
        return _reading(entries, time)

    def _read(self, redis: Commands) -> tuple[Snapshot | None, Reading]:
        snapshot = _snapshot(redis.execute_command("GET", self._state))
        pipe = redis.pipeline()
        pipe.execute_command("XRANGE", self._log, snapshot.position if snapshot else "-", "+")
        pipe.execute_command("TIME")
        return snapshot, _reading(*pipe.execute())

    def _save(self, snapshot: Snapshot, redis: Commands) -> None:
        redis.execute_command("SET", self._state, " ".join(snapshot), "EX", _EXPIRES_AFTER)

    def _notify(self, redis: Commands) -> None:
        pipe = redis.pipeline()
        pipe.execute_command("XADD", self._notices, "MAXLEN", 1, "*", _TEXT, "")
        pipe.execute_command("EXPIRE", self._notices, _EXPIRES_AFTER)
        pipe.execute()

    def _wait_for_notice(self, redis: Commands) -> str:
        milliseconds = int(1000 * _LONGEST_WAIT)
        streams = redis.execute_command("XREAD", "BLOCK", milliseconds, "STREAMS", self._notices, self._noticed)
        # If the clock of Redis was set back, all ids are smaller now. So read the last one even if none has come.
        notices = _notices(streams) or _entries(redis.execute_command("XRANGE", self._notices, "-", "+"))
        return notices[-1].id if notices else _NEVER

    def _clear(self, redis: Commands) -> None:
        pipe = redis.pipeline()
        for key in (self._log, self._state, self._notices):
            pipe.execute_command("EXPIRE", key, 0)  # like DEL, which would need one more permission
        pipe.execute()


def _reading(entries: Any, time: Any) -> Reading:
    seconds, microseconds = time
    return Reading(seconds + microseconds / 1e6, _entries(entries))


def _entries(entries: Any) -> list[Entry]:
    if not all(_POSITION.fullmatch(name) for name, _ in entries):
        raise ValueError("the ids of its entries are not those of Redis")
    return [Entry(name, fields.get(_TEXT, "")) for name, fields in entries]


def _notices(streams: Any) -> list[Entry]:
    return _entries(streams[0][1]) if streams else []


def _snapshot(state: Any) -> Snapshot | None:
    position, _, text = (state or "").partition(" ")
    return Snapshot(position, text) if _POSITION.fullmatch(position) else None
