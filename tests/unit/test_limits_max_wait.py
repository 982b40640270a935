"""What a request is told that cannot wait for long."""

import math
from typing import Any

import anyio
import pytest

from commenda_customers import AdaptiveLimiter, Feedback, FixedRate, RateLimiter, RateLimitError

OK = Feedback(is_answered=True)


async def use(limiter: RateLimiter, begun: list[tuple[Any, float]], name: Any = None, *, again: bool = False) -> None:
    """Make a request that takes a tenth of a second, and take note of when it began."""
    permit = await limiter.acquire(again=again)
    begun.append((name, anyio.current_time()))
    await anyio.sleep(0.1)
    limiter.release(permit, OK)


@pytest.mark.anyio
class TestMaxWait:
    """How long a permit takes."""

    async def test_max_wait_fails_fast(self) -> None:
        """A request that cannot wait gets an error at once, with the expected wait."""
        limiter = FixedRate(2, per=10)
        for _ in range(2):
            limiter.release(await limiter.acquire(max_wait=0.1), OK)
        began = anyio.current_time()
        assert limiter.estimate_wait() == pytest.approx(10)
        with pytest.raises(RateLimitError, match=r"for about 10\.0 s, longer than max_wait \(3 s\)") as caught:
            await limiter.acquire(max_wait=3)
        assert anyio.current_time() == began
        assert caught.value.retry_after == pytest.approx(10)
        assert not caught.value.transient
        await limiter.acquire(max_wait=11)
        assert anyio.current_time() == pytest.approx(began + 10)

    @pytest.mark.parametrize(
        ("limit", "ahead", "expected"), [(1000, 500, 3600), (1000, 1000, 7200), (4, 3, 3600), (4, 6, 7200)]
    )
    async def test_a_fixed_rate_knows_the_wait(self, limit: int, ahead: int, expected: float) -> None:
        """The expected wait of a fixed rate is exact to the second."""
        limiter, begun = FixedRate(limit, per=3600), list[tuple[Any, float]]()
        for _ in range(limit):
            limiter.release(await limiter.acquire(), OK)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(ahead):
                tasks.start_soon(use, limiter, begun)
            await anyio.wait_all_tasks_blocked()
            assert limiter.estimate_wait() == pytest.approx(expected, abs=1)
            await use(limiter, begun, "last")
            assert next(at for name, at in begun if name == "last") - began == pytest.approx(expected, abs=1)

    async def test_the_wait_is_known_while_it_is_half_open(self) -> None:
        """The expected wait counts the waiters while one request at a time probes the server after 429s in a row."""
        limiter = AdaptiveLimiter()
        for _ in range(8):
            limiter.release(await limiter.acquire(), OK)
        for _ in range(3):
            permit = await limiter.acquire()
            await anyio.sleep(0.2)
            limiter.release(permit, Feedback(is_answered=True, is_throttled=True))
        rate = limiter.snapshot().rate
        assert rate is not None
        begun: list[tuple[Any, float]] = []
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(use, limiter, begun)
            await anyio.sleep(limiter.snapshot().paused_for + 0.01)
            assert limiter.estimate_wait() >= 98 / rate
            tasks.cancel_scope.cancel()

    async def test_nothing_begins_beside_a_probe(self) -> None:
        """Although no limit is known, a request with `max_wait` fails while one request alone finds out in an outage."""
        limiter = AdaptiveLimiter()
        limiter.release(await limiter.acquire(), OK)
        while not limiter.snapshot().is_half_open:
            permit = await limiter.acquire()
            await anyio.sleep(0.2)
            limiter.release(permit, Feedback(is_failed=True))
        with pytest.raises(RateLimitError):
            await limiter.acquire(max_wait=0)
        probe = await limiter.acquire(max_wait=5)
        with pytest.raises(RateLimitError):
            await limiter.acquire(max_wait=0)
        await anyio.sleep(0.2)
        limiter.release(probe, OK)
        assert limiter.snapshot().rate is None
        await limiter.acquire(max_wait=0)

    async def test_a_known_limit_is_kept(self) -> None:
        """If a rate is known, a request with `max_wait` fails rather than begin earlier than the rate allows."""
        limiter = AdaptiveLimiter()
        for number in range(26):
            permit = await limiter.acquire()
            await anyio.sleep(0.1)
            limiter.release(permit, Feedback(is_answered=True, remaining=25 - number))
        await limiter.acquire()
        with pytest.raises(RateLimitError):
            await limiter.acquire(max_wait=0)

    async def test_the_wait_for_a_probe_is_that_of_one_request(self) -> None:
        """Where no place is free in an outage, one request after the other has to end, whatever the limit in flight."""
        limiter = AdaptiveLimiter(max_in_flight=4)
        for _ in range(3):
            await limiter.acquire()  # they are never released
        while not limiter.snapshot().is_half_open:
            permit = await limiter.acquire()
            await anyio.sleep(0.4)
            limiter.release(permit, Feedback(is_answered=True, is_failed=limiter.snapshot().succeeded_at > 0))
        await limiter.acquire()
        assert limiter.estimate_wait() == pytest.approx(0.4)

    async def test_a_wait_that_becomes_too_long_ends(self) -> None:
        """`max_wait` ends a wait whose estimate was too low, and the waiter leaves the queue."""
        limiter = AdaptiveLimiter(max_in_flight=4)
        held = [await limiter.acquire() for _ in range(4)]
        began = anyio.current_time()
        with pytest.raises(RateLimitError, match="max_wait"):
            await limiter.acquire(max_wait=3)
        assert anyio.current_time() == pytest.approx(began + 3)
        assert limiter.snapshot().waiting == 0
        for permit in held:
            limiter.release(permit, OK)
        await limiter.acquire(max_wait=0.001)

    @pytest.mark.parametrize(("again", "expected"), [(False, 2.0), (True, 1.0)])
    async def test_a_wait_that_was_too_long_says_how_much_is_left(self, *, again: bool, expected: float) -> None:
        """The error after a wait says how long it would take from now on, at the place of the request in the queue."""
        limiter = AdaptiveLimiter(max_in_flight=4)
        permit = await limiter.acquire()
        await anyio.sleep(2)  # what each request takes, so that one of four ends every half a second
        limiter.release(permit, OK)
        for _ in range(4):
            await limiter.acquire()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(limiter.acquire)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RateLimitError) as caught:
                await limiter.acquire(again=again, max_wait=3)
            tasks.cancel_scope.cancel()
        message = "the rate limiter held the request back for max_wait (3 s); it would take about {:.1f} s more"
        assert (caught.value.message, caught.value.retry_after) == (message.format(expected), expected)

    async def test_max_wait_ignores_an_unknown_limit(self) -> None:
        """Requests with `max_wait` exceed the first window while no limit is known."""
        limiter = AdaptiveLimiter(max_in_flight=20)
        permits = [await limiter.acquire(max_wait=0) for _ in range(20)]
        with pytest.raises(RateLimitError):
            await limiter.acquire(max_wait=0)
        for _ in range(3):
            limiter.release(permits.pop(), Feedback(is_answered=True, is_throttled=True, wait=5))
        with pytest.raises(RateLimitError, match="for about 5.0 s") as caught:
            await limiter.acquire(max_wait=0)
        assert caught.value.retry_after == pytest.approx(5)

    @pytest.mark.parametrize("max_wait", [-1, math.nan, True, "1", 10**400])
    async def test_invalid_waits_are_refused(self, max_wait: Any) -> None:
        """A `max_wait` that is no number of seconds is an error that names the argument."""
        with pytest.raises((ValueError, TypeError), match="max_wait: "):
            await AdaptiveLimiter().acquire(max_wait=max_wait)

    async def test_a_wait_of_exactly_max_wait_succeeds(self) -> None:
        """A request gets its permit after exactly `max_wait` seconds."""
        limiter = FixedRate(1)
        limiter.release(await limiter.acquire(), OK)
        began = anyio.current_time()
        await limiter.acquire(max_wait=limiter.estimate_wait())
        assert anyio.current_time() - began == pytest.approx(1)

    async def test_a_retry_is_next(self) -> None:
        """A retry goes in front of all new requests but one, and its `max_wait` is compared with the wait from there."""
        limiter, begun = FixedRate(1), list[tuple[Any, float]]()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(use, limiter, begun)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RateLimitError):
                await limiter.acquire(max_wait=3)
            began = anyio.current_time()
            limiter.release(await limiter.acquire(again=True, max_wait=3), OK)
            assert anyio.current_time() - began == pytest.approx(2)
