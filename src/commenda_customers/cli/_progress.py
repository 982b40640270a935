"""Shows the progress of an export: live lines on a terminal, elsewhere a line every few seconds."""

import math
import os
import sys
from collections import deque
from contextlib import suppress

import anyio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..client import AsyncCustomersAPI
from ..events import Event, InvalidCustomerReceived, PageFetched, RequestSent, RetryScheduled
from ..limits import LimiterSnapshot
from ..progress import StreamProgress
from ._messages import count, is_terminal, printable, say, say_invalid

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_FRAMES = 0.25
_SECONDS_OF_SPEED = 30.0
"""The speed is an average over this time."""


class Monitor:
    """
    A hook that counts events.

    Attributes:
        requests: Requests sent.
        retries: Requests sent again.
        trouble: The reason of the last retry. `None` again after the next page.
        progress: The progress of the stream; `None` before its first page.
    """

    def __init__(self, most_invalid_shown: float) -> None:
        """Start all counts at 0. Report at most *most_invalid_shown* invalid rows."""
        self.requests = self.retries = 0
        self.trouble: str | None = None
        self.progress: StreamProgress | None = None
        self._invalid_to_show = most_invalid_shown

    def __call__(self, event: Event) -> None:
        """Count an event. Report an invalid row."""
        if isinstance(event, RequestSent):
            self.requests += 1
        elif isinstance(event, RetryScheduled):
            self.retries += 1
            self.trouble = event.error.message
        elif isinstance(event, PageFetched):
            self.trouble = None
        elif isinstance(event, InvalidCustomerReceived) and self._invalid_to_show > 0:
            self._invalid_to_show -= 1
            say_invalid(event)

    def advance(self, progress: StreamProgress) -> None:
        """Remember the progress."""
        self.progress = progress

    @property
    def customers(self) -> int:
        """The number of customers so far, including earlier calls."""
        return 0 if self.progress is None else self.progress.customers + self.progress.customers_before


class Display:
    """Shows the numbers of a monitor until it is cancelled, or until `end`."""

    def __init__(self, monitor: Monitor, api: AsyncCustomersAPI, *, corporations: int, shares_terminal: bool) -> None:
        """
        Show nothing yet.

        Args:
            monitor: The numbers to show.
            api: The client whose limiter to show.
            corporations: The number of corporations.
            shares_terminal: Whether customers may appear on the same terminal. If so, show nothing there.
        """
        self._monitor = monitor
        self._api = api
        self._corporations = corporations
        self._began = anyio.current_time()
        self._samples: deque[tuple[float, int, int]] = deque()
        self._scope = anyio.CancelScope()
        # With a log, show no live lines: the log would write into them.
        is_live = is_terminal(sys.stderr) and not os.environ.get("COMMENDA_LOG")
        self._is_silent = is_live and shares_terminal
        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True) if is_live else None

    async def run(self) -> None:
        """Show the numbers."""
        if self._is_silent:
            return

        with self._scope, suppress(OSError):  # if the terminal is closed, the export continues
            await (self._show_lines() if self._live is None else self._show_frames(self._live))

    def end(self) -> None:
        """Stop, and restore the terminal."""
        self._scope.cancel()
        if self._live is not None:
            self._live.stop()

    async def _show_lines(self) -> None:
        self.describe()
        while True:
            await anyio.sleep(_SECONDS_BETWEEN_LINES)
            say("; ".join(self.describe()))

    async def _show_frames(self, live: Live) -> None:
        with live:
            while True:
                text = printable("\n".join(self.describe()), "\n")
                live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
                await anyio.sleep(_SECONDS_BETWEEN_FRAMES)

    def describe(self) -> list[str]:
        """Return the current lines. Each call adds a sample for the speed."""
        monitor, progress, now = self._monitor, self._monitor.progress, anyio.current_time()
        requests_per_second, customers_per_second = self._measure(now)
        if progress is None:
            lines = [f"waiting for the first page, {count(monitor.requests, 'request')} so far"]
        else:
            speed = f"{requests_per_second:.1f} requests/s"
            lines = [f"{count(monitor.customers, 'customer')}, {count(progress.pages, 'page')}, {speed}"]
            lines.append(_describe_corporations(progress, self._corporations))
        lines.append(f"time {_clock(now - self._began)}{self._describe_rest(progress, customers_per_second)}")
        if self._api.rate_limit is not None:
            lines.append(_describe_limit(self._api.rate_limit.snapshot()))
        if monitor.retries:
            retries = count(monitor.retries, "retry", "retries")
            lines.append(f"{retries}, the last: {monitor.trouble}" if monitor.trouble else retries)
        return lines

    def _measure(self, now: float) -> tuple[float, float]:
        """Return the requests and the customers per second, averaged over the last seconds."""
        self._samples.append((now, self._monitor.requests, self._monitor.customers))
        while self._samples[0][0] < now - _SECONDS_OF_SPEED and len(self._samples) > 2:  # noqa: PLR2004 - a first and a last sample
            self._samples.popleft()
        then, requests, customers = self._samples[0]
        if now <= then:
            return 0.0, 0.0

        return (self._monitor.requests - requests) / (now - then), (self._monitor.customers - customers) / (now - then)

    def _describe_rest(self, progress: StreamProgress | None, customers_per_second: float) -> str:
        """Return an estimate of the remaining time. A corporation that has not started counts as an average one."""
        if progress is None or progress.remaining is None or not customers_per_second:
            return ""

        started = progress.finished_before + progress.finished + progress.failed + progress.reading
        average = (self._monitor.customers + progress.remaining) / max(started, 1)
        remaining = progress.remaining + average * max(self._corporations - started, 0)
        return f", about {_clock(remaining / customers_per_second)} left"


def _describe_corporations(progress: StreamProgress, corporations: int) -> str:
    done = min(progress.finished_before + progress.finished, corporations)
    return f"{done:,} of {corporations:,} corporations done, {progress.reading:,} in flight, {progress.failed:,} failed"


def _describe_limit(limit: LimiterSnapshot) -> str:
    if limit.is_half_open:
        return "the server accepts no requests; one request at a time tests whether it is back"
    if limit.paused_for:
        return f"paused for {math.ceil(limit.paused_for)} s, because the server refused requests"

    return "no limit known" if limit.rate is None else f"limit: {limit.rate:.1f} requests/s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
