"""The waiting: first come, first served, whoever decides when the next may begin."""

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress

import anyio
from anyio.lowlevel import current_token

from .._checks import check_positive, check_type
from ..errors import RateLimitError
from .base import Feedback, Permit


class QueueingLimiter(ABC):
    """
    A queue in front of a decision.

    Only the request at the head of the queue looks at the clock. The others wait until it is their turn to be the head, so
    that however many wait, there is one timer. A waiter that is cancelled leaves the queue and wakes the next.
    """

    def __init__(self, max_in_flight: int) -> None:
        check_positive("max_in_flight", max_in_flight)
        check_type("max_in_flight", max_in_flight, int)
        self.max_in_flight = max_in_flight
        self._queue: deque[anyio.Event] = deque()
        self._returned = 0  # of those in the queue; they stand in front
        self._in_flight = 0
        self._home: object = None
        self._ahead = 0.0  # the seconds by which the event loop's clock is ahead of the machine's

    @abstractmethod
    def _delay(self, now: float) -> float:
        """Return the seconds until the next request may begin; infinity is until one in flight has ended."""

    @abstractmethod
    def _begin(self, now: float) -> None:
        """Take note that a request begins."""

    @abstractmethod
    def _learn(self, permit: Permit, feedback: Feedback, now: float) -> None:
        """Take note of what came of a request."""

    @abstractmethod
    def _shift_times(self, by: float) -> None:
        """Put all moments forward by so many seconds: another event loop has another clock."""

    @abstractmethod
    def _estimate(self, ahead: int, now: float) -> float:
        """Return about how many seconds a request would wait with so many ahead of it in the queue."""

    def _knows_no_limit(self) -> bool:
        """Return whether a request that does not begin now only waits for the limiter to find out more."""
        return False

    def estimate_wait(self) -> float:
        """Return about how many seconds a request would wait that came now."""
        return self._estimate(len(self._queue), self._now())

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        """Wait until a request may begin; see `RateLimiter`."""
        if max_wait is not None:
            check_positive("max_wait", max_wait, or_zero=True)
        self._settle_here()
        if not self._can_start():
            error = await self._wait(again=again, max_wait=max_wait)
            if error is not None:
                raise error

        return self._start()

    def release(self, permit: Permit, feedback: Feedback) -> None:
        """Take note that a request has ended, and of what came of it; see `RateLimiter`."""
        self._in_flight -= 1
        self._learn(permit, feedback, anyio.current_time())
        self._wake_head()

    async def _wait(self, *, again: bool, max_wait: float | None) -> RateLimitError | None:
        """Wait for the turn; return an error if that takes longer than *max_wait*."""
        if max_wait is None:
            await self._wait_in_line(again=again)
            return None

        expected = self._estimate_here(again=again)
        error = _too_long(max_wait, expected)
        if expected <= max_wait:
            with anyio.move_on_after(max_wait):
                await self._wait_in_line(again=again)
                return None

            error = _took_too_long(max_wait, self._estimate_here(again=again))
        # Rather than to fail for a limit that may not exist.
        goes_past = self._in_flight < self.max_in_flight and self._knows_no_limit()
        return None if goes_past or self._can_start() else error

    def _can_start(self) -> bool:
        return not self._queue and self._time_to_start() <= 0

    def _estimate_here(self, *, again: bool) -> float:
        return self._estimate(self._returned if again else len(self._queue), anyio.current_time())

    def _now(self) -> float:
        """Return the time of the event loop in which it is used. Any other, and any thread without one, may ask as well."""
        with suppress(RuntimeError):  # not always the `NoEventLoopError` of anyio: `asyncio.to_thread` looks like asyncio
            if self._home == current_token():
                return anyio.current_time()

        return time.monotonic() + self._ahead

    def _settle_here(self) -> None:
        here = current_token()
        if self._home == here:
            return
        if self._queue or self._in_flight:
            raise RuntimeError("this limiter is in use in another event loop; make one for each that runs at the same time")

        # What began in an event loop that is over still counts: the server's clock has gone on.
        ahead = anyio.current_time() - time.monotonic()
        if self._home is not None:
            self._shift_times(ahead - self._ahead)
        self._home, self._ahead = here, ahead

    async def _wait_in_line(self, *, again: bool) -> None:
        turn = anyio.Event()
        self._queue.insert(self._returned if again else len(self._queue), turn)
        self._returned += again
        place = turn
        try:
            while True:
                delay = self._time_to_start() if self._queue[0] is place else math.inf
                if delay <= 0:
                    break
                with anyio.move_on_after(delay):
                    await place.wait()
                if place.is_set():
                    place = self._renew(place)
        finally:
            self._queue.remove(place)
            self._returned -= again
            self._wake_head()

    def _renew(self, place: anyio.Event) -> anyio.Event:
        """Put an event that has not happened yet in the place of one that has."""
        index = self._queue.index(place)
        self._queue[index] = anyio.Event()
        return self._queue[index]

    def _time_to_start(self, now: float | None = None) -> float:
        # A request that had to wait for a connection with its permit in hand would be sent at no time that was meant.
        if self._in_flight >= self.max_in_flight:
            return math.inf

        return self._delay(anyio.current_time() if now is None else now)

    def _start(self) -> Permit:
        now = anyio.current_time()
        self._begin(now)
        self._in_flight += 1
        return Permit(now, self._in_flight)

    def _wake_head(self) -> None:
        if self._queue:
            self._queue[0].set()


def _too_long(max_wait: float, expected: float) -> RateLimitError:
    return RateLimitError(
        f"the rate limit allows the request in about {expected:.1f} s, which is more than max_wait, {max_wait:g} s",
        retry_after=expected,
    )


def _took_too_long(max_wait: float, expected: float) -> RateLimitError:
    return RateLimitError(
        f"the request has waited for max_wait, {max_wait:g} s; the rate limit allows it in about another {expected:.1f} s",
        retry_after=expected,
    )
