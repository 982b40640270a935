"""The log in Redis. Only this file calls redis-py, and always in a thread."""

import re
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import anyio

from .._checks import check_type
from .._secret import drop_tracebacks
from .._threads import in_daemon_thread
from ..errors import chain, text_of
from ._log import Entry, LogUnavailableError, Reading, Snapshot
from ._redis_url import RedisURL

try:
    from redis import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
    from redis import exceptions as failures
    from redis.backoff import NoBackoff
    from redis.credentials import CredentialProvider
    from redis.retry import Retry
except ModuleNotFoundError as exc:
    message = "commenda_customers.limits.redis needs the extra 'redis': pip install '/path/to/clone[redis]'"
    raise ModuleNotFoundError(message, name=exc.name) from exc

T = TypeVar("T")

TIMEOUT = 1.0
"""Seconds for one step: to connect, to log in, and for the reply to a command."""
_PATIENCE = 2.0
"""Seconds for all steps of a call."""
_MOST_CALLS = 3
"""The most calls in progress at the same time. A call that was given up may still be resolving the host name."""

_KEPT, _FEWEST_KEPT = 8_000, 1_000
"""Entries, at least: usually, and if they are long."""
_SPACE = 4_000_000
"""Characters of all entries together. The fewest entries are kept even if they are longer."""
_EXPIRES_AFTER = 300
"""Seconds without an exchange after which Redis forgets the log and the snapshot."""
_LONGEST_QUOTA = 100
"""Characters."""

_TEXT = "text"
"""The field of an entry."""

_CONNECTIONS: dict[str, Any] = {"redis": Connection, "rediss": SSLConnection, "unix": UnixDomainSocketConnection}
_POSITION = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)
# Redis refuses the command because of its own state, or because of what another client does.
_TEMPORARY = re.compile(
    r"(ASK|BUSY|CLUSTERDOWN|EXECABORT|LOADING|MASTERDOWN|MISCONF|MOVED|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
)


class _Commands(Protocol):
    """What this file uses of redis-py: a client, or a transaction. The types of redis-py are incomplete."""

    def execute_command(self, *words: str | int) -> Any: ...
    def pipeline(self) -> "_Commands": ...
    def execute(self, *, raise_on_error: bool = ...) -> list[Any]: ...


class _Connection:
    """
    One connection. A thread uses it, for one call at a time.

    Attributes:
        is_at_work: Whether a thread uses it.
        is_given_up: Whether it is closed, or the thread that uses it will close it.
    """

    def __init__(self, url: RedisURL) -> None:
        self.is_at_work = self.is_given_up = False
        self._pool = ConnectionPool(
            _CONNECTIONS[url.scheme],
            max_connections=1,
            credential_provider=_Login(url.login) if url.login() else None,
            decode_responses=True,
            encoding_errors="replace",  # what another program has written must not stop us
            protocol=2,  # version 3 needs one more command, and the permission for it
            retry=Retry(NoBackoff(), 0),
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            **url.options,
        )
        self._redis = cast("_Commands", Redis(connection_pool=self._pool))

    def use(self, action: Callable[[_Commands], T]) -> T:
        """Call *action*, in a thread. If it fails, close the connection."""
        self.is_at_work = True
        try:
            result = action(self._redis)
        except BaseException:
            self.is_given_up = True
            raise
        else:
            return result
        finally:
            if self.is_given_up:
                self._pool.disconnect()
            self.is_at_work = False

    def give_up(self) -> None:
        """Close it, in the event loop. A thread that waits for a reply gets an error immediately."""
        self.is_given_up = True  # first: the thread may be about to connect
        self._pool.disconnect()


class _Login(CredentialProvider):
    """The user name and the password, in a closure that no repr and no `vars` shows."""

    def __init__(self, login: Callable[[], Any]) -> None:
        self._login = login

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        return cast("tuple[str] | tuple[str, str]", self._login())


class RedisLog:
    """
    A stream and a string in one Redis; see `Log`.

    Each call runs in a thread. If a call is cancelled or takes too long, its connection is closed, and the next call opens
    another one. So a late reply is never taken for the reply to another command.
    """

    def __init__(self, url: RedisURL, *, quota: str) -> None:
        """
        Check the arguments; `open` connects.

        Raises:
            ValueError: *url* is malformed, or *quota* is empty or too long, or has braces or control characters.
            TypeError: *url* or *quota* is not a str.
        """
        url.check()
        self._url = url
        check_type("quota", quota, str)
        if not quota or len(quota) > _LONGEST_QUOTA:
            raise ValueError(f"quota: must have 1 to {_LONGEST_QUOTA} characters")
        if not quota.isprintable() or not {*quota}.isdisjoint("{}"):
            raise ValueError("quota: must not contain braces, or characters that cannot be printed")

        # The braces keep both keys on one node of a cluster.
        self._log = f"commenda-customers:1:{{{quota}}}:log"
        self._state = f"commenda-customers:1:{{{quota}}}:state"
        self._idle: _Connection | None = None
        self._used: list[_Connection] = []

    async def open(self) -> None:
        """Connect, and try all commands in a way that changes nothing."""
        await self._call(self._try_commands, is_new=True)

    async def exchange(self, text: str, since: str) -> Reading:
        """Append an entry, and return all entries from the one with the id *since* on."""
        return await self._call(partial(self._exchange, text, since))

    async def read(self) -> tuple[Snapshot | None, Reading]:
        """Return the snapshot, and all entries from its position on."""
        return await self._call(self._read)

    async def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        await self._call(partial(self._save, snapshot))

    async def clear(self) -> None:
        """Remove all entries and the snapshot."""
        await self._call(self._clear)

    async def aclose(self) -> None:
        """Close the connection. A call in progress fails."""
        for connection in self._used:
            connection.give_up()
        if self._idle is not None:
            self._idle.give_up()
            self._idle = None

    def _try_commands(self, redis: _Commands) -> None:
        # Redis checks the permission before the arguments. Those of the first three are invalid, so these change nothing.
        pipe = redis.pipeline()
        pipe.execute_command("XADD", self._log, "MAXLEN", "~", _KEPT, "0-0", _TEXT, "")
        pipe.execute_command("SET", self._state, "", "EX", 0)
        pipe.execute_command("EXPIRE", self._log, "never")
        pipe.execute_command("GET", self._state)
        pipe.execute_command("XRANGE", self._log, "0-1", "0-1")
        pipe.execute_command("TIME")
        *_, state, entries, time = pipe.execute(raise_on_error=False)
        for reply in (state, entries, time):
            if isinstance(reply, Exception):
                raise reply
        _snapshot(state)
        _reading(entries, time)

    def _exchange(self, text: str, since: str, redis: _Commands) -> Reading:
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

    def _read(self, redis: _Commands) -> tuple[Snapshot | None, Reading]:
        snapshot = _snapshot(redis.execute_command("GET", self._state))
        pipe = redis.pipeline()
        pipe.execute_command("XRANGE", self._log, snapshot.position if snapshot else "-", "+")
        pipe.execute_command("TIME")
        return snapshot, _reading(*pipe.execute())

    def _save(self, snapshot: Snapshot, redis: _Commands) -> None:
        redis.execute_command("SET", self._state, " ".join(snapshot), "EX", _EXPIRES_AFTER)

    def _clear(self, redis: _Commands) -> None:
        pipe = redis.pipeline()
        for key in (self._log, self._state):
            pipe.execute_command("EXPIRE", key, 0)  # like DEL, which would need one more permission
        pipe.execute()

    async def _call(self, action: Callable[[_Commands], T], *, is_new: bool = False) -> T:
        handled = sys.exception()
        connection = self._take_connection()
        try:
            with anyio.fail_after(_PATIENCE):
                result = await in_daemon_thread(partial(connection.use, action))
        except Exception as exc:  # noqa: BLE001 - a limiter works without the log, whatever is wrong with it
            connection.give_up()
            drop_tracebacks(exc, until=handled)  # their frames hold the password
            error, cause = self._explain(exc, is_new=is_new), self._redact(exc)
        except BaseException:
            connection.give_up()
            raise
        else:
            self._idle = None if connection.is_given_up else connection
            return result
        raise error from cause

    def _take_connection(self) -> _Connection:
        self._used = [used for used in self._used if used.is_at_work]
        if len(self._used) >= _MOST_CALLS:
            raise LogUnavailableError(f"Redis at {self._url.where} has not answered earlier calls")

        connection, self._idle = self._idle or _Connection(self._url), None
        self._used.append(connection)
        return connection

    def _explain(self, exc: Exception, *, is_new: bool) -> Exception:
        """Return the error for *exc*: a `ValueError` if the problem will last, and the log *is_new*."""
        where = f"Redis at {self._url.where}"
        reason = self._url.password.redact(_reason(exc)).replace("<token>", "<password>")
        lasting = _lasting_problem(exc, reason, needs_files=self._url.scheme == "rediss")
        if is_new and lasting:
            return ValueError(lasting.format(where=where, reason=reason, key=self._log))
        if isinstance(exc, TimeoutError | failures.TimeoutError):
            return LogUnavailableError(f"{where} did not answer in time")
        if isinstance(exc, failures.AskError) or reason.startswith(("ASK", "MOVED")):  # depends on redis-py's version
            return LogUnavailableError(f"{where} is a node of a cluster, and {reason.rpartition(' ')[2]} has this quota")
        return LogUnavailableError(f"{where} cannot be used now: {reason}")

    def _redact(self, exc: Exception) -> Exception | None:
        """Return *exc*, unless it repeats the password."""
        texts = [text_of(link) for link in chain(exc)]
        return exc if all(self._url.password.redact(text) == text for text in texts) else None


def _reading(entries: Any, time: Any) -> Reading:
    seconds, microseconds = time
    if not all(_POSITION.fullmatch(name) for name, _ in entries):
        raise ValueError("the ids of its entries are not those of Redis")
    return Reading(seconds + microseconds / 1e6, [Entry(name, fields.get(_TEXT, "")) for name, fields in entries])


def _snapshot(state: Any) -> Snapshot | None:
    position, _, text = (state or "").partition(" ")
    return Snapshot(position, text) if _POSITION.fullmatch(position) else None


def _reason(exc: Exception) -> str:
    """Return what happened, in the words of the system or of Redis."""
    os_error = next((link for link in chain(exc) if isinstance(link, OSError) and link.strerror), None)
    text = (os_error and os_error.strerror) or text_of(exc).rpartition("caused error: ")[2] or type(exc).__name__
    return text.splitlines()[0].rstrip(". ")


def _lasting_problem(exc: Exception, reason: str, *, needs_files: bool) -> str:
    """Return the text for a problem that the user has to solve; empty if it may pass, such as a missing socket."""
    is_refused = type(exc) is failures.ResponseError and not _TEMPORARY.match(reason)
    is_forbidden = isinstance(exc, failures.NoPermissionError) or "NOPERM" in reason  # of EXEC: the text has it
    tls_errors = (ssl.SSLError, FileNotFoundError) if needs_files else ssl.SSLError
    is_tls = any(isinstance(link, tls_errors) and not isinstance(link, ssl.SSLEOFError) for link in chain(exc))
    problems = [
        (isinstance(exc, failures.AuthenticationError), "url: {where} refuses the user name or the password: {reason}"),
        (is_forbidden, "url: {where} does not permit what the limiter needs: {reason}"),
        (is_refused and "WRONGTYPE" in reason, "quota: {where} has something else under the name {key}"),
        (is_refused, "url: {where} refuses what the limiter needs, which Redis 6.0 or newer has: {reason}"),
        (is_tls, "url: there is no TLS with {where}: {reason}"),
        (
            isinstance(exc, failures.InvalidResponse | LookupError | TypeError | ValueError),
            "url: {where} does not answer as Redis does",
        ),
    ]
    return next((text for applies, text in problems if applies), "")
