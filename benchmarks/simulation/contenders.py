"""The contenders: what programs do about 429s, each in its most careful form that still fits on a page."""

import math
from itertools import count

import anyio

from commenda_customers import AdaptiveLimiter, Feedback, FixedRate
from commenda_customers.limits import RateLimiter

from .network import Answer, Client, Network
from .servers import CLOSED

OK, THROTTLED, UNAVAILABLE = 200, 429, 503


def backoff(network: Network, attempt: int) -> float:
    """Return a wait with full jitter: up to half a second, then twice as long each time, up to 8 s."""
    return network.draw.random() * min(8.0, 0.5 * 2.0 ** min(attempt, 9))


class Ideal:
    """Knows everything: the server keeps its requests in a queue. What others are measured by."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.slots = anyio.Semaphore(network.setting.at_once)

    async def fetch(self, corporation: int) -> None:
        for attempt in count():
            async with self.slots:
                answer = await self.network.send(corporation, queues=True)
            if answer.status == OK:
                return
            await anyio.sleep(backoff(self.network, attempt))


class Backoff:
    """Each request for itself: waits longer and longer, at random, and tries again without an end."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.slots = anyio.Semaphore(network.setting.at_once)

    async def fetch(self, corporation: int) -> None:
        for attempt in count():
            async with self.slots:
                await self.wait_for_all()
                sent = anyio.current_time()
                answer = await self.network.send(corporation)
                self.learn(answer, sent)
            if answer.status == OK:
                return
            await anyio.sleep(self.pause(answer, attempt))

    def pause(self, answer: Answer, attempt: int) -> float:  # noqa: ARG002 - takes no notice of what it is told
        """Return the seconds that this request waits by itself."""
        return backoff(self.network, attempt)

    async def wait_for_all(self) -> None:
        """Wait until any request may begin."""

    def learn(self, answer: Answer, sent: float) -> None:
        """Take note of an answer to a request that was sent then."""


class RetryAfterEach(Backoff):
    """The same, but that each request waits for as long as it is told, where it is told."""

    def pause(self, answer: Answer, attempt: int) -> float:
        return super().pause(answer, attempt) if answer.retry_after is None else answer.retry_after


class SharedPause(Backoff):
    """One 429 pauses all, for as long as it says or else longer and longer; then all go on as fast as before."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.line = anyio.Lock()
        self.paused_until = self.paused_at = -1.0
        self.in_a_row = 0

    async def wait_for_all(self) -> None:
        async with self.line:
            # What is waited for is the clock; the moment may have been put off meanwhile.
            while anyio.current_time() < self.paused_until:  # noqa: ASYNC110
                await anyio.sleep_until(self.paused_until)

    def learn(self, answer: Answer, sent: float) -> None:
        if answer.status == OK:
            self.in_a_row = 0
        if answer.status != THROTTLED:
            return
        now = anyio.current_time()
        if answer.retry_after is not None:
            self.paused_until = max(self.paused_until, now + answer.retry_after)
        elif sent > self.paused_at:  # the others were in flight before the pause, and say nothing new
            self.paused_until = max(self.paused_until, now + backoff(self.network, self.in_a_row))
        if sent > self.paused_at:
            self.paused_at = now
            self.in_a_row += 1

    def pause(self, answer: Answer, attempt: int) -> float:
        return 0.0 if answer.status == THROTTLED else super().pause(answer, attempt)


class Aimd(SharedPause):
    """
    Additive increase, multiplicative decrease of a rate.

    It grows by one request a second with each answer until the first 429, and from then on with each second; each 429 takes
    three tenths of it away. A `Retry-After` pauses all.
    """

    DECREASE = 0.7
    LEAST_RATE = 0.2

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.rate, self.next_start = 10.0, 0.0
        self.is_limited = False

    async def wait_for_all(self) -> None:
        async with self.line:
            while (start := max(self.next_start, self.paused_until)) > anyio.current_time():  # noqa: ASYNC110 - as above
                await anyio.sleep_until(start)
            self.next_start = anyio.current_time() + 1 / self.rate

    def learn(self, answer: Answer, sent: float) -> None:
        now = anyio.current_time()
        if answer.status != THROTTLED:
            self.rate += 1 / self.rate if self.is_limited else 1.0
            return
        if answer.retry_after is not None:
            self.paused_until = max(self.paused_until, now + answer.retry_after)
        if sent > self.paused_at:
            self.is_limited = True
            self.paused_at = now
            self.rate = max(self.LEAST_RATE, self.DECREASE * self.rate)


class Limited:
    """A program with one of our limiters, as the client uses it."""

    def __init__(self, network: Network, limiter: RateLimiter) -> None:
        self.network, self.limiter = network, limiter

    async def fetch(self, corporation: int) -> None:
        again, failing_since, backoffs = False, math.inf, 0
        while True:
            permit = await self.limiter.acquire(again=again)
            again, feedback = True, Feedback()
            try:
                answer = await self.network.send(corporation)
                feedback = feedback_of(answer, failing_since)
            finally:
                self.limiter.release(permit, feedback)
            if answer.status == OK:
                return

            paused_for = self.limiter.snapshot().paused_for
            failing_since = min(failing_since, anyio.current_time())
            await anyio.sleep(self._wait_alone(answer, backoffs, paused_for))
            backoffs += not paused_for

    def _wait_alone(self, answer: Answer, backoffs: int, paused_for: float) -> float:
        """Return the seconds that a request waits by itself, as `RetryPolicy` does; the limiter holds it back after that."""
        if paused_for:
            return max(0.0, (answer.retry_after or 0.0) - paused_for)
        wait = backoff(self.network, backoffs)
        if answer.retry_after is None:
            return wait
        return max(wait, answer.retry_after + backoff(self.network, 0))


def feedback_of(answer: Answer, failing_since: float) -> Feedback:
    """Tell a limiter what the client tells it."""
    is_throttled = answer.status == THROTTLED or (answer.status == UNAVAILABLE and answer.retry_after is not None)
    is_rejected = not is_throttled and answer.status in {UNAVAILABLE, CLOSED}
    return Feedback(
        is_answered=answer.status != CLOSED,
        is_throttled=is_throttled,
        is_rejected=is_rejected,
        is_failed=answer.status != OK and not is_throttled and not is_rejected,
        wait=answer.retry_after,
        remaining=answer.remaining,
        failing_since=failing_since,
    )


def fixed_rate(network: Network) -> Client:
    """Make a client with `FixedRate`, which was told the documented limit once and for all."""
    known, at_once = network.server.known(), network.setting.at_once
    at_once = min(at_once, known.in_flight or at_once)
    return Limited(network, FixedRate(known.limit, per=known.per, max_in_flight=at_once))


def adaptive(network: Network) -> Client:
    """Make a client with `AdaptiveLimiter`, which was told nothing."""
    return Limited(network, AdaptiveLimiter(max_in_flight=network.setting.at_once))


OURS = "AdaptiveLimiter"

CONTENDERS = {
    "backoff": Backoff,
    "Retry-After each": RetryAfterEach,
    "shared pause": SharedPause,
    "AIMD": Aimd,
    "FixedRate": fixed_rate,
    OURS: adaptive,
}
