"""Ends an export early: at Ctrl-C or SIGTERM, or because the API does not work at all."""

import math
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import anyio
from anyio.abc import TaskStatus

from ..events import Event, PageFailed, PageFetched
from ._messages import say

_CORPORATIONS_OF_AN_OUTAGE = 3
"""If this number of corporations fails before the first page, the problem is the API, not the corporations."""

_SECONDS_OF_ONE_SIGNAL = 0.5
"""A wrapper such as `timeout` sends a signal to the process and to its group. That is one wish to stop, not two."""


class Interrupted(Exception):  # noqa: N818 - the user wants it, so it is no error
    """A signal has interrupted the program."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Stop:
    """
    Cancels the work, and remembers the reason. Create it in the event loop that uses it.

    Attributes:
        reason: Why the work was cancelled. `None`: it was not.
    """

    def __init__(self) -> None:
        self.reason: Exception | None = None
        self._scope = anyio.CancelScope()

    async def outcome_of(self, work: Callable[[], Awaitable[object]]) -> Exception | None:
        """Do *work*. Return the reason or the error that ended it early, if any."""
        error: Exception | None = None
        with self._scope:
            try:
                await work()
            except Exception as exc:  # noqa: BLE001 - the caller raises it after everything is closed
                error = exc
        return self.reason if self._scope.cancelled_caught else error

    def because(self, reason: Exception) -> None:
        """Cancel the work. Only the first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._scope.cancel()

    async def watch_signals(
        self, on_signal: Callable[[], None], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """
        Wait for signals until cancelled, and call *on_signal* at each signal.

        At the first signal, the export commits what it has. A later signal ends the process immediately. Earlier commits
        are safe.
        """
        with ExitStack() as stack:
            try:
                signals = stack.enter_context(anyio.open_signal_receiver(*_wanted()))
            except (NotImplementedError, RuntimeError):
                # Windows has no such signals, and a thread receives none. Then Ctrl-C raises KeyboardInterrupt, as usual.
                task_status.started()
                return
            task_status.started()
            interrupted_at = math.inf
            async for number in signals:
                on_signal()
                if anyio.current_time() > interrupted_at + _SECONDS_OF_ONE_SIGNAL:
                    say("interrupted while saving; run the same command again")
                    os._exit(Interrupted(number).exit_code)
                interrupted_at = min(interrupted_at, anyio.current_time())
                self.because(Interrupted(number))


def _wanted() -> list[signal.Signals]:
    """Return the signals to wait for, without those that `nohup` or a shell has set to be ignored."""
    return [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]


class Outage:
    """
    A hook that ends an export if several corporations fail before the first page.

    If the API does not respond, each corporation fails only at the deadline of the retry policy. Without this hook, a long
    list of corporations would take days to fail.
    """

    def __init__(self, stop: Stop, corporations: int) -> None:
        self._stop = stop
        self._limit = min(corporations, _CORPORATIONS_OF_AN_OUTAGE)
        self._failures = 0
        self._has_begun = False

    def __call__(self, event: Event) -> None:
        """Record the first page. Count temporary failures before it."""
        if isinstance(event, PageFetched):
            self._has_begun = True
        elif isinstance(event, PageFailed) and event.error.transient:
            self._failures += 1
            if self._failures >= self._limit and not self._has_begun:
                self._stop.because(event.error)
