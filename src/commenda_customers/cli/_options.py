"""The options of the client, and the time to the first response: common to all commands that read from the API."""

import math
import os
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import anyio
import click

from ..client import DEFAULT_TIMEOUT, AsyncCustomersAPI
from ..errors import APITimeoutError, CustomersError
from ..events import Event, Hook, RequestFailed, RequestSent, ResponseReceived
from ..limits import RateLimiter
from ..query import MAX_LIMIT
from ..retry import RetryPolicy
from ._messages import is_terminal

T = TypeVar("T")

_SECONDS_TO_FIRST_RESPONSE = 10.0
"""On a terminal, a person waits. If the server does not respond at all, minutes of retries seldom help."""


@dataclass
class Invocation:
    """
    The current run of the command.

    Attributes:
        debug: Whether errors show their traceback.
    """

    debug: bool = False


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """The options of the client. `None`: the user did not pass the option."""

    base_url: str | None
    timeout: float | None
    deadline: float | None

    def client(self, *hooks: Hook, rate_limit: RateLimiter | None = None) -> AsyncCustomersAPI:
        """Return a client, by default with an adaptive limiter. An invalid option is a usage error."""
        with usage_errors():
            return AsyncCustomersAPI(
                base_url=self.base_url,
                timeout=DEFAULT_TIMEOUT if self.timeout is None else self.timeout,
                retry=RetryPolicy() if self.deadline is None else RetryPolicy(deadline=self.deadline),
                rate_limit=rate_limit or "adaptive",
                hooks=hooks,
            )

    @property
    def seconds_to_first_response(self) -> float:
        """Seconds to wait for any response. Infinite without a terminal: there, only the retry policy gives up."""
        if self.deadline is not None or not (is_terminal(sys.stderr) or is_terminal(sys.stdout)):
            return math.inf

        return max(_SECONDS_TO_FIRST_RESPONSE, self.timeout or 0.0)


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the client and `--debug` to a command. The command receives them as `client`."""

    @wraps(command)
    def with_client(
        *args: Any, base_url: str | None, timeout: float | None, deadline: float | None, **others: Any
    ) -> object:
        return command(*args, client=ClientOptions(base_url=base_url, timeout=timeout, deadline=deadline), **others)

    for option in reversed(_CLIENT_OPTIONS):
        with_client = option(with_client)

    return with_client


def _set_debug(context: click.Context, _parameter: click.Parameter, debug: bool) -> None:  # noqa: FBT001 - click's
    if debug:
        context.ensure_object(Invocation).debug = True
        os.environ["COMMENDA_LOG"] = "debug"


_CLIENT_OPTIONS = (
    click.option(
        "--base-url",
        help="Address of the API.  [env: COMMENDA_BASE_URL; default: the vendor's]",
    ),
    click.option(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help=f"Time for one attempt of a request.  [default: {DEFAULT_TIMEOUT:g}]",
    ),
    click.option(
        "--deadline",
        type=float,
        metavar="SECONDS",
        help="Time for one page, including all attempts and waits.  [default: "
        f"{RetryPolicy().deadline:g}; on a terminal, {_SECONDS_TO_FIRST_RESPONSE:g} until the server responds at all]",
    ),
    click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        help="Write the log and the traceback of an error to standard error. They never show the token.",
    ),
)


limit_option = click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    metavar="N",
    default=MAX_LIMIT,
    show_default=True,
    help="Customers per page.",
)


def usage_error(message: str) -> click.UsageError:
    """Return a usage error of the current command."""
    return click.UsageError(message, ctx=click.get_current_context())


@contextmanager
def usage_errors() -> Generator[None]:
    """Turn a `ValueError` or `TypeError` of the library into a usage error of the current command."""
    try:
        yield
    except (ValueError, TypeError) as exc:
        raise usage_error(str(exc)) from exc


class FirstResponse:
    """A hook that limits the time from the first request to the first response of any status."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._scope = anyio.CancelScope()
        self._has_begun = False
        self._last_error: CustomersError | None = None

    def __call__(self, event: Event) -> None:
        """Start the time at the first request, end it at the first response, and remember the last error."""
        if isinstance(event, RequestSent) and not self._has_begun:
            self._has_begun = True
            self._scope.deadline = anyio.current_time() + self._seconds
        elif isinstance(event, ResponseReceived):
            self._scope.deadline = math.inf
        elif isinstance(event, RequestFailed):
            self._last_error = event.error

    async def limit(self, api: AsyncCustomersAPI, work: Callable[[], Awaitable[T]]) -> T:
        """
        Do *work*, and return its result.

        Raises:
            APITimeoutError: No response arrived in time.
        """
        with self._scope:
            return await work()

        # Reached only when the scope has cancelled the work.
        before = "" if self._last_error is None else f"; before that: {self._last_error.message}"
        raise APITimeoutError(
            f"no response from {api.base_url} within {self._seconds:g} s{before}; to wait longer: --deadline SECONDS",
        ) from self._last_error
