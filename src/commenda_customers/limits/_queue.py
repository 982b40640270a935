"""The queue of a limiter: waiters get their permits first come, first served."""

import math
import time
from abc import ABC, abstractmethod
from collections import deque

import anyio

from .._checks import check_positive, check_type
from .._event_loops import EventLoop, NotCopyable, current_event_loop
from ..errors import RateLimitError
from .base import Feedback, Permit


class QueueingLimiter(NotCopyable, ABC):
    """
    A queue of requests. A subclass decides when the request at its head may begin.

    New requests are first come, first served, and so are retries. Retries that wait go in front of new requests, one for
    each new one: pages that always fail must not keep the others from being asked for.

    Only the waiter at the head of the queue has a timer; the others wait until they are the head. So there is one timer,
    however many waiters there are. A waiter that is cancelled leaves the queue and wakes the next one.
    """

    _advice = "make a limiter where it is used"

    def __init__(self, max_in_flight: int) -> None:
        check_positive("max_in_flight", max_in_flight)
        check_type("max_in_flight", max_in_flight, int)
        self.max_in_flight = max_in_flight
        self._queue: deque[anyio.Event] = deque()
        self._returned = 0  # waiters that are retries
        self._in_flight = 0
        self._event_loop: EventLoop | None = None
        self._moved_at = -math.inf  # when the current event loop began to use the limiter
        self._ahead_of_machine = 0.0  # seconds by which the event loop's clock is ahead of the machine's
        # Seconds by which the limiter's own clock is ahead of the event loop's. Each event loop has another clock.
        self._ahead = 0.0

    # Times are those of the limiter's own clock, except in permits and feedback.

    @abstractmethod
    def _delay(self, now: float) -> float:
        """Return the seconds until the next request may begin; infinity: not before one in flight has ended."""

    @abstractmethod
    def _begin(self, now: float) -> None:
        """Count a request that begins."""

    @abstractmethod
    def _learn(self, permit: Permit, feedback: Feedback) -> None:
        """Learn from the outcome of a request."""

    @abstractmethod
    def _forget_requests(self) -> None:
        """Forget the requests in flight: their event loop has ended."""

    @abstractmethod
    def _estimate(self, before: int, now: float) -> float:
        """Return about how many seconds a request would wait with *before* waiters in front of it."""

    def _knows_no_limit(self) -> bool:
        """Return whether no limit is known, so that a request waits only because the limiter has just begun."""
        return False

    def estimate_wait(self) -> float:
        """Return about how many seconds a request would wait if it came now."""
        return self._estimate(len(self._queue), self._now())

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        """Wait until a request may begin; see `RateLimiter`."""
        if max_wait is not None:
            check_positive("max_wait", max_wait, or_zero=True)
        self._settle_here()
        if self._queue or self._time_to_start() > 0:
            error = await self._wait(again=again, max_wait=max_wait)
            if error is not None:
                raise error

        return self._start()

    def release(self, permit: Permit, feedback: Feedback) -> None:
        """Give a permit back, with the outcome of the request; see `RateLimiter`."""
        if permit.sent < self._moved_at or self._own_loop_has_ended():
            return  # the permit is of an event loop that has ended; the garbage collector ends its tasks

        self._in_flight -= 1
        self._learn(permit, feedback)
        self._wake_head()

    async def _wait(self, *, again: bool, max_wait: float | None) -> RateLimitError | None:
        """Wait in the queue; return an error if that takes longer than *max_wait*."""
        if max_wait is None:
            await self._wait_in_queue(again=again)
            return None

        expected = self._estimate_here(again=again)
        error = _too_long(max_wait, expected)
        if expected <= max_wait:
            with anyio.move_on_after(max_wait):
                await self._wait_in_queue(again=again)
                return None

            error = _took_too_long(max_wait, self._estimate_here(again=again))
        # Do not fail because of a limit that may not exist.
        may_begin_anyway = self._in_flight < self.max_in_flight and self._knows_no_limit()
        return None if may_begin_anyway or self._can_start() else error

    def _can_start(self) -> bool:
        return not self._queue and self._time_to_start() <= 0

    def _estimate_here(self, *, again: bool) -> float:
        return self._estimate(self._place(again=again), self._now())

    def _place(self, *, again: bool) -> int:
        """Return where a request joins the queue: a retry in front, but one new request begins for each retry."""
        return min(2 * self._returned + 1, len(self._queue)) if again else len(self._queue)

    def _now(self) -> float:
        """Return the time of the limiter's own clock. May be called in any thread."""
        in_loop = anyio.current_time() if self._is_in_own_loop() else time.monotonic() + self._ahead_of_machine
        return in_loop + self._ahead

    def _is_in_own_loop(self) -> bool:
        return self._event_loop is not None and self._event_loop.is_current

    def _own_loop_has_ended(self) -> bool:
        return self._event_loop is not None and not self._event_loop.is_current and self._event_loop.has_ended

    def _settle_here(self) -> None:
        if self._is_in_own_loop():
            return
        if (self._queue or self._in_flight) and not self._own_loop_has_ended():
            raise RuntimeError(
                "this limiter is in use in another event loop, which is not closed; make one limiter for each event loop"
            )

        # What the limiter learned in an event loop that has ended still applies. The requests of that loop are gone.
        self._moved_at = anyio.current_time()
        ahead_of_machine = self._moved_at - time.monotonic()
        if self._event_loop is not None:
            self._ahead += self._ahead_of_machine - ahead_of_machine
        self._event_loop, self._ahead_of_machine = current_event_loop(), ahead_of_machine
        self._queue, self._returned, self._in_flight = deque(), 0, 0
        self._forget_requests()

    async def _wait_in_queue(self, *, again: bool) -> None:
        queue, waiter = self._queue, anyio.Event()
        self._queue.insert(self._place(again=again), waiter)
        self._returned += again
        try:
            while True:
                delay = self._time_to_start() if self._queue[0] is waiter else math.inf
                if delay <= 0:
                    break
                with anyio.move_on_after(delay):
                    await waiter.wait()
                if waiter.is_set():
                    waiter = self._renew(waiter)
        finally:
            queue.remove(waiter)
            if queue is self._queue:
                self._returned -= again
                self._wake_head()

    def _renew(self, waiter: anyio.Event) -> anyio.Event:
        """Replace an event that was set by a new one."""
        index = self._queue.index(waiter)
        self._queue[index] = anyio.Event()
        return self._queue[index]

    def _time_to_start(self, now: float | None = None) -> float:
        # A request that had a permit but waited for a connection would be sent later than the limiter intended.
        if self._in_flight >= self.max_in_flight:
            return math.inf

        return self._delay(anyio.current_time() + self._ahead if now is None else now)

    def _start(self) -> Permit:
        now = anyio.current_time()
        self._begin(now + self._ahead)
        self._in_flight += 1
        return Permit(now, self._in_flight)

    def _wake_head(self) -> None:
        if self._queue:
            self._queue[0].set()


def _too_long(max_wait: float, expected: float) -> RateLimitError:
    return RateLimitError(
        f"the rate limiter would hold the request back for about {expected:.1f} s, longer than max_wait ({max_wait:g} s)",
        retry_after=expected,
    )


def _took_too_long(max_wait: float, expected: float) -> RateLimitError:
    return RateLimitError(
        f"the rate limiter held the request back for max_wait ({max_wait:g} s); it would take about {expected:.1f} s more",
        retry_after=expected,
    )
