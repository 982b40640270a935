"""The URL of a Redis: where it is, and how to log in. The password is kept secret."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from .._checks import check_type
from .._secret import Secret

_PORT = 6379
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
_CERT_REQS = ("none", "optional", "required")


class RedisURL:
    """
    What a URL says. No repr, `vars` or traceback shows the password.

    Attributes:
        scheme: `redis`, `rediss` or `unix`.
        where: The host and the port, or the path, for messages.
        options: The options of a connection of redis-py, without user name and password.
        login: Returns the arguments of the command AUTH: nothing, the password, or the user name and the password.
        password: The password, to remove it from texts.
    """

    __slots__ = ("_problem", "login", "options", "password", "scheme", "where")

    def __init__(self, url: object) -> None:
        """Parse *url*. Never raise, because the traceback would show the argument; `check` raises."""
        self.scheme = self.where = ""
        self.options: dict[str, Any] = {}
        self.login: Callable[[], tuple[str, ...]] = tuple
        self.password = Secret("", "url")
        self._problem: Exception | None = None
        try:
            self._read(url)
        except (TypeError, ValueError) as exc:
            self._problem = type(exc)(*exc.args)  # another one, without what Python says about the URL

    def check(self) -> None:
        """
        Refuse a URL that cannot be used.

        Raises:
            ValueError: It is malformed, or has an option that is unknown. The text shows no part of the URL.
            TypeError: It is not a str.
        """
        if self._problem is not None:
            raise self._problem

    def _read(self, url: Any) -> None:
        check_type("url", url, str)
        if "#" in url:
            raise ValueError("url: must not contain #; in a user name or a password, write %23")
        parts, port = _split(url)
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("url: must begin with redis://, rediss:// or unix://")

        self.scheme = parts.scheme
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if self.scheme == "unix":
            self._read_path(parts)
            database = query.pop("db", "")
        else:
            self._read_host(parts, port)
            database = query.pop("db", "") or parts.path.strip("/")
        self._read_tls(query)
        if database:
            self.options["db"] = _number(database)
        self._read_login(unquote(parts.username or ""), unquote(parts.password or ""))

    def _read_path(self, parts: SplitResult) -> None:
        self.where = self.options["path"] = unquote(parts.path)
        if not self.where or parts.hostname:
            raise ValueError("url: needs the path of a socket, such as unix:///run/redis/redis.sock")

    def _read_host(self, parts: SplitResult, port: int | None) -> None:
        host = unquote(parts.hostname or "localhost")
        port = _PORT if port is None else port
        if not port:
            raise ValueError("url: the port must be 1 to 65535")
        self.options |= {"host": host, "port": port}
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _read_tls(self, query: dict[str, str]) -> None:
        allowed = _TLS_OPTIONS if self.scheme == "rediss" else ()
        if not query.keys() <= {*allowed}:
            raise ValueError(f"url: has an unknown option after the ?; the options are {', '.join(['db', *allowed])}")
        if query.get("ssl_cert_reqs", "required") not in _CERT_REQS:
            raise ValueError(f"url: ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")
        self.options |= query

    def _read_login(self, user: str, password: str) -> None:
        words = (user, password) if user else (password,) if password else ()
        self.login = lambda: words  # a closure: `vars` does not show what it holds
        self.password = Secret(password, "url")


def _split(url: str) -> tuple[SplitResult, int | None]:
    with suppress(ValueError):  # its text quotes a part of the URL, perhaps of the password
        parts = urlsplit(url)
        return parts, parts.port

    raise ValueError("url: is not a URL; in a user name or a password, write %40 for @, %3A for : and %2F for /")


def _number(database: str) -> int:
    if not (database.isascii() and database.isdigit()) or len(database) > 9:  # noqa: PLR2004 - digits
        raise ValueError("url: the database must be a number, such as 0 in redis://localhost:6379/0")
    return int(database)
