"""Shows how far an export is: a few lines that change on a terminal, elsewhere a line now and then."""

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
"""How far back the speed is measured."""


class Monitor:
    """
    Counts what happens. A hook of the client.

    Attributes:
        requests: Requests sent.
        retries: Requests sent again.
        trouble: Why a request is sent again, if no page has come since.
        progress: The progress of the stream; `None` before its first page.
    """

    def __init__(self, most_invalid_shown: float) -> None:
        """Begin with nothing. At most *most_invalid_shown* rows that are not valid are named as they come."""
        self.requests = self.retries = 0
        self.trouble: str | None = None
        self.progress: StreamProgress | None = None
        self._invalid_to_show = most_invalid_shown

    def __call__(self, event: Event) -> None:
        """Count an event, and name a row that is not valid."""
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
        """Take note of the progress."""
        self.progress = progress

    @property
    def customers(self) -> int:
        """The customers that came, in this run and before."""
        return 0 if self.progress is None else self.progress.customers + self.progress.customers_before


class Display:
    """Shows the numbers of a monitor until it is cancelled, or until `end`."""

    def __init__(self, monitor: Monitor, api: AsyncCustomersAPI, *, corporations: int, shares_terminal: bool) -> None:
        """
        Show nothing yet.

        Args:
            monitor: What to show.
            api: Whose limiter to show.
            corporations: How many there are.
            shares_terminal: Whether customers may come on the same terminal. Then it shows nothing there.
        """
        self._monitor = monitor
        self._api = api
        self._corporations = corporations
        self._began = anyio.current_time()
        self._samples: deque[tuple[float, int, int]] = deque()
        self._scope = anyio.CancelScope()
        # The log would write into the lines that change.
        is_live = is_terminal(sys.stderr) and not os.environ.get("COMMENDA_LOG")
        self._is_silent = is_live and shares_terminal
        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True) if is_live else None

    async def run(self) -> None:
        """Show the numbers."""
        if self._is_silent:
            return

        with self._scope, suppress(OSError):  # whatever becomes of the terminal: the export goes on
            await (self._show_lines() if self._live is None else self._show_frames(self._live))

    def end(self) -> None:
        """Show nothing more, and leave the terminal as it was."""
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
        """Return what there is to say now. The speed is that since earlier calls."""
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
        """Return how many requests and customers there were per second, lately."""
        self._samples.append((now, self._monitor.requests, self._monitor.customers))
        while self._samples[0][0] < now - _SECONDS_OF_SPEED and len(self._samples) > 2:  # noqa: PLR2004 - both ends
            self._samples.popleft()
        then, requests, customers = self._samples[0]
        if now <= then:
            return 0.0, 0.0

        return (self._monitor.requests - requests) / (now - then), (self._monitor.customers - customers) / (now - then)

    def _describe_rest(self, progress: StreamProgress | None, customers_per_second: float) -> str:
        """Return how long the rest takes. What is to come of corporations that have not started is not known."""
        if progress is None or progress.remaining is None or not customers_per_second:
            return ""

        started = progress.finished_before + progress.finished + progress.failed + progress.reading
        least = "" if started >= self._corporations else "at least "
        return f", {least}{_clock(progress.remaining / customers_per_second)} left"


def _describe_corporations(progress: StreamProgress, corporations: int) -> str:
    done = min(progress.finished_before + progress.finished, corporations)
    return f"{done:,} of {corporations:,} corporations done, {progress.reading:,} in flight, {progress.failed:,} failed"


def _describe_limit(limit: LimiterSnapshot) -> str:
    if limit.is_half_open:
        return "the server accepts no requests; one at a time tests whether it does again"
    if limit.paused_for:
        return f"paused for {math.ceil(limit.paused_for)} s, because the server refused requests"

    return "no limit known" if limit.rate is None else f"limit: {limit.rate:.1f} requests/s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
