"""The URL of a Redis, and the name of a quota: which ones are refused, and that the password is in no text."""

import sys
from importlib import import_module
from typing import Any

import pytest

from commenda_customers.limits._redis_url import RedisURL
from commenda_customers.limits.redis import RedisLimiter
from leaks import TOKEN, reported, see


class Limiter(RedisLimiter):
    """A limiter that has a repr also when its constructor has failed: tracebacks show it."""

    __repr__ = object.__repr__


@pytest.mark.parametrize(
    ("url", "where", "options"),
    [
        ("redis://", "localhost:6379", {"host": "localhost", "port": 6379}),
        ("redis://redis.internal", "redis.internal:6379", {"host": "redis.internal", "port": 6379}),
        ("redis://h:7000/3", "h:7000", {"host": "h", "port": 7000, "db": 3}),
        ("REDIS://h/?db=4", "h:6379", {"host": "h", "port": 6379, "db": 4}),
        ("redis://[::1]:7000", "[::1]:7000", {"host": "::1", "port": 7000}),
        ("rediss://h?ssl_cert_reqs=none", "h:6379", {"host": "h", "port": 6379, "ssl_cert_reqs": "none"}),
        ("rediss://h/1?ssl_ca_certs=/a%20b", "h:6379", {"host": "h", "port": 6379, "db": 1, "ssl_ca_certs": "/a b"}),
        ("unix:///run/redis%20a.sock?db=2", "/run/redis a.sock", {"path": "/run/redis a.sock", "db": 2}),
    ],
)
def test_a_url_says_where_redis_is(url: str, where: str, options: dict[str, Any]) -> None:
    """A host, a port, a database and what TLS needs, or the path of a socket."""
    read = RedisURL(url)
    read.check()
    assert (read.where, read.options) == (where, options)
    assert read.login() == ()


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("redis://:pa%40ss@h", ("pa@ss",)),
        ("redis://us%20er:pass@h", ("us er", "pass")),
        ("redis://user@h", ("user", "")),
        ("redis://:@h", ()),
        ("unix://:pass@/run/redis.sock", ("pass",)),
    ],
)
def test_a_url_says_how_to_log_in(url: str, login: tuple[str, ...]) -> None:
    """A password, or a user name and a password; special characters are escaped."""
    read = RedisURL(url)
    read.check()
    assert read.login() == login


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"http://:{TOKEN}@h", "url: must begin with redis://"),
        (f"localhost/{TOKEN}", "url: must begin with redis://"),
        ("", "url: must begin with redis://"),
        (f"redis://:{TOKEN}#1@h", "url: must not contain #"),
        (f"redis://h:{TOKEN}", "url: is not a URL"),
        (f"redis://:{TOKEN}@h:65536", "url: is not a URL"),
        (f"redis://[{TOKEN}", "url: is not a URL"),
        (f"redis://:{TOKEN}@h:0", "url: the port must be 1 to 65535"),
        (f"redis://:a/{TOKEN}@h", "url: is not a URL"),
        (f"redis://h/{TOKEN}", "url: the database must be a number"),
        ("redis://h/-1", "url: the database must be a number"),
        ("redis://h/1234567890", "url: the database must be a number"),
        (f"redis://h?{TOKEN}", "url: has an unknown option after the ?; the options are db"),
        ("redis://h?ssl_ca_certs=a", "url: has an unknown option after the ?; the options are db"),
        ("rediss://h?timeout=60", "options are db, ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs"),
        (f"rediss://h?ssl_cert_reqs={TOKEN}", "url: ssl_cert_reqs must be one of none, optional, required"),
        (f"unix://{TOKEN}", "url: needs the path of a socket"),
        (f"unix://{TOKEN}/redis.sock", "url: needs the path of a socket"),
    ],
)
def test_a_malformed_url_is_refused_without_the_password(url: str, text: str) -> None:
    """The error says what is wrong. Neither it nor our frames show a part of the URL: it may be a part of the password."""
    with pytest.raises(ValueError, match="^url: ") as caught:
        Limiter(url, quota="prod")
    assert text in str(caught.value)
    assert TOKEN not in reported(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    ("quota", "text"),
    [
        ("", "quota: must have 1 to 100 characters"),
        ("a" * 101, "quota: must have 1 to 100 characters"),
        ("a\nb", "quota: must not contain braces"),
        ("a\udc80", "quota: must not contain braces"),
        ("a}b", "quota: must not contain braces"),
    ],
)
def test_a_quota_that_cannot_be_a_key_is_refused(quota: str, text: str) -> None:
    """It is not empty, not long, and can be printed. Braces have a meaning in the keys of a cluster."""
    with pytest.raises(ValueError, match=text):
        Limiter("redis://localhost", quota=quota)


def test_wrong_types_are_refused() -> None:
    """URL and quota are strings, and `max_in_flight` is an int above zero. An error does not show the password."""
    with pytest.raises(TypeError, match="url: expected str, got bytes"):
        Limiter(b"redis://localhost", quota="prod")  # type: ignore[arg-type]  # as without a type checker
    with pytest.raises(TypeError, match="quota: expected str, got int"):
        Limiter("redis://localhost", quota=1)  # type: ignore[arg-type]  # as without a type checker
    with pytest.raises(ValueError, match="max_in_flight: must be above 0") as caught:
        Limiter(f"redis://:{TOKEN}@localhost", quota="prod", max_in_flight=0)
    assert TOKEN not in reported(caught.value)


def test_nothing_shows_the_password() -> None:
    """Neither the limiter nor the log shows it, whatever looks into them."""
    limiter = RedisLimiter(f"redis://user:{TOKEN}@localhost", quota="prod")
    assert TOKEN not in see(limiter)


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py, the import of the limiter says how to install it. The package itself works."""
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in ("redis", "_redis_log", "_redis_calls"):
        monkeypatch.delitem(sys.modules, f"commenda_customers.limits.{name}")
    with pytest.raises(ModuleNotFoundError, match=r"limits\.redis needs the extra 'redis': pip install '.*\[redis\]'"):
        import_module("commenda_customers.limits.redis")
