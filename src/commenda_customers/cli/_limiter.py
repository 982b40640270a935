"""The options that choose the limiter, `--rate` and `--quota`, and how a command opens a shared one."""

import logging
import os
import re
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, cast

import click

from ..limits import FixedRate, RateLimiter
from ._messages import say
from ._options import usage_error, usage_errors

_SECONDS = {"s": 1, "min": 60, "h": 3600}
_QUOTA = re.compile(r"[^#@/]+")
"""The name of a quota. A name with one of these characters is most likely the rest of a password that contains a #."""


def _parse_rate(_context: click.Context, _parameter: click.Parameter, value: str | None) -> RateLimiter | None:
    """Parse a rate such as `10/s`, `600/min` or `10` (per second). Return a limiter."""
    if value is None:
        return None

    found = re.fullmatch(r"(\d{1,12})(?:/(s|min|h))?", value, re.ASCII)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is not of the form REQUESTS/PERIOD, such as 10/s, 600/min or 5000/h")

    # Spread evenly, in steps of a tenth of a second. A server of 10 requests/s would refuse most of 600 at once.
    rate = int(found[1]) / _SECONDS[found[2] or "s"]
    burst = max(1, round(rate / 10))
    return FixedRate(burst, per=burst / rate)


def _parse_quota(_context: click.Context, _parameter: click.Parameter, value: str | None) -> RateLimiter | None:
    """
    Parse the address of a Redis server and the name of a quota. Return a limiter that is not connected yet.

    No message repeats the value, because it may contain a password.
    """
    if value is None:
        return None

    url, _, name = value.partition("#")
    if not _QUOTA.fullmatch(name):
        raise click.BadParameter(
            "is not of the form URL#NAME, such as redis://localhost:6379/0#prod; in a password, write %23 for #"
        )
    try:
        from ..limits.redis import RedisLimiter

        return RedisLimiter(url, quota=name)
    except ModuleNotFoundError as exc:
        raise usage_error("--quota needs the extra 'redis': pip install '/path/to/clone[cli,redis]'") from exc
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


quota_option = click.option(
    "--quota",
    callback=_parse_quota,
    envvar="COMMENDA_QUOTA",
    show_envvar=True,
    metavar="URL#NAME",
    help="Share the limit with all processes that use this quota of a Redis server, such as redis://localhost:6379/0#prod. "
    "If the URL has a password, use the environment variable.",
)

_rate_option = click.option(
    "--rate",
    callback=_parse_rate,
    metavar="REQUESTS/PERIOD",
    help="The limit of requests, such as 10/s, 600/min or 5000/h.  [default: learned from the server]",
)


def limiter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--rate` and `--quota` to a command. The command receives what they choose as `limiter`."""

    @wraps(command)
    def with_limiter(*args: Any, rate: RateLimiter | None, quota: RateLimiter | None, **others: Any) -> object:
        if rate is not None and quota is not None:
            raise usage_error("--rate and --quota (or COMMENDA_QUOTA) exclude each other: the limit of a quota is learned")
        return command(*args, limiter=rate or quota, **others)

    return _rate_option(quota_option(with_limiter))


@asynccontextmanager
async def entered(limiter: object) -> AsyncGenerator[None]:
    """Open a shared limiter for the duration of a block. Do nothing with any other limiter, or with none."""
    async with AsyncExitStack() as stack:
        # Not `SharedLimiter`: its import would slow down every command.
        if isinstance(limiter, AbstractAsyncContextManager):
            stack.enter_context(_warnings_said())
            with usage_errors():
                await stack.enter_async_context(cast("AbstractAsyncContextManager[object]", limiter))
        yield


class _Say(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"warning: {record.getMessage()}")


@contextmanager
def _warnings_said() -> Generator[None]:
    """Write the warnings of the limiter to standard error, unless the whole log is written there anyway."""
    if os.environ.get("COMMENDA_LOG"):
        yield
        return

    logger, handler = logging.getLogger("commenda_customers.limits"), _Say(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
