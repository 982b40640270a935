"""
Calls of Redis, in threads, and their errors. Only this file imports redis-py.

If a call is cancelled or takes too long, its connection is closed, and the next call opens another one. So a late reply is
never taken for the reply to another command.
"""

import re
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import anyio

from .._secret import drop_tracebacks
from .._threads import in_daemon_thread
from ..errors import chain, text_of
from ._log import LogUnavailableError
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

_CONNECTIONS: dict[str, Any] = {"redis": Connection, "rediss": SSLConnection, "unix": UnixDomainSocketConnection}
# Redis refuses the command because of its own state, or because of what another client does.
_TEMPORARY = re.compile(
    r"(ASK|BUSY|CLUSTERDOWN|EXECABORT|LOADING|MASTERDOWN|MISCONF|MOVED|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
)


class Commands(Protocol):
    """What this file uses of redis-py: a client, or a transaction. The types of redis-py are incomplete."""

    def execute_command(self, *words: str | int) -> Any: ...
    def pipeline(self) -> "Commands": ...
    def execute(self, *, raise_on_error: bool = ...) -> list[Any]: ...


class _Connection:
    """
    One connection. A thread uses it, for one call at a time.

    Attributes:
        is_at_work: Whether a thread uses it.
    """

    def __init__(self, url: RedisURL, timeout: float) -> None:
        self.is_at_work = False
        self._line = _Line()
        self._pool = ConnectionPool(
            _CONNECTIONS[url.scheme],
            max_connections=1,
            credential_provider=_Login(url.login) if url.login() else None,
            decode_responses=True,
            encoding_errors="replace",  # what another program has written must not stop us
            protocol=2,  # version 3 needs one more command, and the permission for it
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout,
            socket_connect_timeout=TIMEOUT,
            redis_connect_func=self._line.begin,
            **url.options,
        )
        self._redis = cast("Commands", Redis(connection_pool=self._pool))

    def use(self, action: Callable[[Commands], T]) -> T:
        """Call *action*, in a thread. If it fails, close the connection."""
        self.is_at_work = True
        try:
            result = action(self._redis)
        except BaseException:
            self._line.is_given_up = True
            raise
        else:
            return result
        finally:
            self.is_at_work = False  # first: from now on, who gives it up closes it
            if self.is_given_up:
                self._pool.disconnect()

    @property
    def is_given_up(self) -> bool:
        """Whether it is closed, or the thread that uses it will close it."""
        return self._line.is_given_up

    def give_up(self) -> None:
        """Close it, in the event loop. A thread that waits for a reply gets an error immediately."""
        self._line.hang_up()
        if not self.is_at_work:
            self._pool.disconnect()


class _Line:
    """What the thread and the event loop share of a connection: its socket, and whether anybody awaits a reply."""

    def __init__(self) -> None:
        self.is_given_up = False
        self._socket: socket.socket | None = None

    def begin(self, connection: Any) -> None:
        """Log in, unless it was given up while it connected: then there was nothing to shut down yet."""
        self._socket = connection._sock  # noqa: SLF001 - what is public closes it, and wakes no thread safely
        if self.is_given_up:
            raise failures.ConnectionError("given up")
        connection.on_connect()

    def hang_up(self) -> None:
        """Wake the thread, which closes the socket. If we closed it, the thread could wait for a new one with its number."""
        self.is_given_up = True  # first: the thread may be about to connect
        if self._socket is not None:
            with suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)


class _Login(CredentialProvider):
    """The user name and the password, in a closure that no repr and no `vars` shows."""

    def __init__(self, login: Callable[[], Any]) -> None:
        self._login = login

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        return cast("tuple[str] | tuple[str, str]", self._login())


class RedisCalls:
    """
    Calls of one Redis, one after the other or a few at once.

    Args:
        url: Its address.
        keys: The keys that it uses, for errors.
        longest_wait: Seconds for which Redis may keep a command waiting.
    """

    def __init__(self, url: RedisURL, keys: str, *, longest_wait: float = 0.0) -> None:
        self._url, self._keys, self._longest_wait = url, keys, longest_wait
        self._idle: _Connection | None = None
        self._used: list[_Connection] = []

    def close(self) -> None:
        """Close the connection. A call in progress fails."""
        for connection in self._used:
            connection.give_up()
        if self._idle is not None:
            self._idle.give_up()
            self._idle = None

    async def call(self, action: Callable[[Commands], T], *, is_new: bool = False) -> T:
        """
        Return the result of *action*, which gets a client of redis-py.

        Raises:
            LogUnavailableError: There is no answer in time, or an error that may pass.
            ValueError: Any other error, if the log *is_new*.
        """
        handled = sys.exception()
        connection = self._take_connection()
        try:
            with anyio.fail_after(_PATIENCE + self._longest_wait):
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

        connection, self._idle = self._idle or _Connection(self._url, TIMEOUT + self._longest_wait), None
        self._used.append(connection)
        return connection

    def _explain(self, exc: Exception, *, is_new: bool) -> Exception:
        """Return the error for *exc*: a `ValueError` if the problem will last, and the log *is_new*."""
        where = f"Redis at {self._url.where}"
        reason = self._url.password.redact(_reason(exc)).replace("<token>", "<password>")
        lasting = _lasting_problem(exc, reason, needs_files=self._url.scheme == "rediss")
        if is_new and lasting:
            return ValueError(lasting.format(where=where, reason=reason, keys=self._keys))
        if isinstance(exc, TimeoutError | failures.TimeoutError):
            return LogUnavailableError(f"{where} did not answer in time")
        if isinstance(exc, failures.AskError) or reason.startswith(("ASK", "MOVED")):  # depends on redis-py's version
            return LogUnavailableError(f"{where} is a node of a cluster, and {reason.rpartition(' ')[2]} has this quota")
        return LogUnavailableError(f"{where} cannot be used now: {reason}")

    def _redact(self, exc: Exception) -> Exception | None:
        """Return *exc*, unless it repeats the password."""
        texts = [text_of(link) for link in chain(exc)]
        return exc if all(self._url.password.redact(text) == text for text in texts) else None


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
        (is_refused and "WRONGTYPE" in reason, "quota: {where} has something else under the name {keys}"),
        (is_refused, "url: {where} refuses what the limiter needs, which Redis 6.0 or newer has: {reason}"),
        (is_tls, "url: there is no TLS with {where}: {reason}"),
        (
            isinstance(exc, failures.InvalidResponse | LookupError | TypeError | ValueError),
            "url: {where} does not answer as Redis does",
        ),
    ]
    return next((text for applies, text in problems if applies), "")
