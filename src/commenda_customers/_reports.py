"""
Reports what happens to a page: to the hooks, and to the log.

The log is the logger `commenda_customers`. A retry is a `WARNING`, the end of a page `INFO`, all else `DEBUG`.
"""

import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import TypedDict

import anyio

from ._attempt import Attempt
from .errors import CustomersError
from .events import (
    Event,
    Hook,
    PageFailed,
    PageFetched,
    RequestFailed,
    RequestSent,
    ResponseReceived,
    RetryScheduled,
    Throttled,
)

_logger = logging.getLogger("commenda_customers")
_logger.addHandler(logging.NullHandler())

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
_LOGGED_AS_INFO = (PageFetched, PageFailed)


@cache
def show_log() -> None:
    """
    Write the log to stderr if the environment variable `COMMENDA_LOG` is `debug`, `info` or `warning`.

    The variable is read once. Only the logger of the library gets a handler.
    """
    wanted = os.environ.get("COMMENDA_LOG", "").strip().lower()
    if not wanted:
        return

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _logger.addHandler(handler)
    _logger.setLevel(_LEVELS.get(wanted, logging.WARNING))
    if wanted not in _LEVELS:
        # Without the value: it may have been meant for another variable, such as that of the token.
        _logger.warning("COMMENDA_LOG: must be debug, info or warning; warnings are shown")


class _EventFields(TypedDict):
    """Which page and attempt an event is about."""

    corporation_id: str
    cursor: str | None
    attempt: int


class _PageFields(_EventFields):
    """What the events that end a page have in common."""

    elapsed: float
    waited: float
    request_id: str | None


class PageReporter:
    """
    Reports what happens to one page, over all its attempts.

    Attributes:
        waited: Seconds for which the page has waited for the limiter.
    """

    def __init__(self, corporation_id: str, cursor: str | None, hooks: Sequence[Hook]) -> None:
        self.waited = 0.0
        self._corporation_id = corporation_id
        self._cursor = cursor
        self._hooks = hooks
        self._began = anyio.current_time()

    def sent(self, attempt: Attempt) -> None:
        """Report that an attempt is sent."""
        self._emit(RequestSent(**self._fields(attempt.number)))

    def received(self, attempt: Attempt, status: int, size: int, *, elapsed: float) -> None:
        """Report that a complete response came."""
        fields = self._fields(attempt.number)
        self._emit(ResponseReceived(**fields, status_code=status, size=size, elapsed=elapsed))

    def throttled(self, attempt: Attempt, *, pause: float, rate: float | None) -> None:
        """Report that the server refused an attempt because of a limit."""
        self._emit(Throttled(**self._fields(attempt.number), pause=pause, rate=rate))

    def _emit(self, event: Event) -> None:
        report(event, self._hooks)

    def _fields(self, attempt: int) -> _EventFields:
        """Return the fields that all events have."""
        return {"corporation_id": self._corporation_id, "cursor": self._cursor, "attempt": attempt}

    def locate(self, error: CustomersError, attempts: int) -> None:
        """Say in *error* which page it is about, and after how many attempts."""
        error.corporation_id = self._corporation_id
        error.cursor = self._cursor
        error.attempts = attempts

    def attempt_failed(self, attempt: Attempt, error: CustomersError) -> None:
        """Report that *error* ended an attempt, if it was in flight."""
        if attempt.in_flight_since is not None:
            elapsed = anyio.current_time() - attempt.in_flight_since
            attempt.in_flight_since = None
            self._emit(RequestFailed(**self._fields(attempt.number), error=error, elapsed=elapsed))

    def retry(self, attempt: Attempt, error: CustomersError, wait: float) -> None:
        """Report that another attempt follows."""
        self._emit(RetryScheduled(**self._fields(attempt.number), error=error, wait=wait))

    def page_fetched(self, attempts: int, request_id: str | None, customers: int) -> None:
        """Report that the page came."""
        self._emit(PageFetched(**self._page_fields(attempts, request_id), customers=customers))

    def page_failed(self, error: CustomersError) -> None:
        """Report that the page failed."""
        self._emit(PageFailed(**self._page_fields(error.attempts, error.request_id), error=error))

    def _page_fields(self, attempts: int, request_id: str | None) -> _PageFields:
        elapsed = anyio.current_time() - self._began
        return {**self._fields(attempts), "elapsed": elapsed, "waited": self.waited, "request_id": request_id}


def report(event: Event, hooks: Sequence[Hook]) -> None:
    """Log an event, and pass it to all hooks."""
    _log(event)
    for hook in hooks:
        hook(event)


def _log(event: Event) -> None:
    # A stale connection, which needs no wait, is nothing to worry about.
    if isinstance(event, RetryScheduled) and event.wait:
        _logger.warning("retrying in %.2f s: %s", event.wait, event.error)
        return

    _logger.log(logging.INFO if isinstance(event, _LOGGED_AS_INFO) else logging.DEBUG, "%s", event)
