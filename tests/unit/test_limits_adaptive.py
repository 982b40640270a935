"""What the adaptive limiter learns from responses."""

import math
from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from commenda_customers import AdaptiveLimiter, Feedback, FixedRate, Permit, RateLimiter

OK = Feedback(is_answered=True)


async def throttle(limiter: RateLimiter, wait: float | None) -> None:
    """Let requests be refused until the limiter pauses: single refusals concern their request alone."""
    while not limiter.snapshot().paused_for:
        permit = await limiter.acquire()
        await anyio.sleep(0.01)
        limiter.release(permit, Feedback(is_answered=True, is_throttled=True, wait=wait))


@pytest.mark.anyio
class TestQuota:
    """Quotas and waits that the server tells."""

    async def test_a_quota_that_is_used_up_slows_requests_down(self) -> None:
        """A response without remaining quota pauses all, and teaches a rate."""
        limiter = AdaptiveLimiter(max_in_flight=50)
        assert repr(limiter) == "<AdaptiveLimiter, no limit known>"
        for remaining in range(25, -1, -1):
            permit = await limiter.acquire()
            await anyio.sleep(0.1)
            limiter.release(permit, Feedback(is_answered=True, remaining=remaining))
        assert limiter.snapshot().paused_for > 0
        rate = limiter.snapshot().rate
        assert rate is not None
        assert repr(limiter) == f"<AdaptiveLimiter, {rate:.3g} requests per second>"

    async def test_its_snapshot_says_what_it_knows(self) -> None:
        """The snapshot has how many may be in flight, what is in flight and waits, and what was let pass."""
        limiter = AdaptiveLimiter(max_in_flight=5)
        assert limiter.snapshot().max_in_flight == 4
        for _ in range(2):
            limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True))
        permits = [await limiter.acquire() for _ in range(3)]
        snapshot = limiter.snapshot()
        assert (snapshot.rate, snapshot.in_flight, snapshot.waiting, snapshot.let_pass) == (None, 3, 0, 2)
        for permit in permits:
            limiter.release(permit, OK)
        assert limiter.snapshot().max_in_flight == 5

    async def test_a_pause_is_never_shortened(self) -> None:
        """A later response does not shorten the pause of a 429."""
        limiter = AdaptiveLimiter()
        await throttle(limiter, 60)
        paused_for = limiter.snapshot().paused_for
        assert paused_for > 59
        permit = Permit(anyio.current_time() + 1, 1)
        limiter.release(permit, Feedback(is_answered=True, is_throttled=True))
        limiter.release(replace(permit, sent=anyio.current_time() + 2), Feedback(is_answered=True, remaining=0))
        assert limiter.snapshot().paused_for == paused_for

    @pytest.mark.parametrize(("make", "most"), [(AdaptiveLimiter, 100), (lambda: FixedRate(100), 310)])
    async def test_waits_that_are_too_short_make_no_storm(self, make: Callable[[], RateLimiter], most: int) -> None:
        """A server that always refuses, and asks for a millisecond each time, is not asked more often than a silent one."""
        limiter, refused, began = make(), 0, anyio.current_time()
        while anyio.current_time() < began + 300:
            permit = await limiter.acquire(again=refused > 0)
            await anyio.sleep(0.005)
            limiter.release(permit, Feedback(is_answered=True, is_throttled=True, wait=0.001))
            refused += 1
        assert refused < most

    @pytest.mark.parametrize("most", [9, 30, 100])
    async def test_a_quota_that_is_never_enforced_is_ignored(self, most: int) -> None:
        """A server that counts down, starts again and refuses nothing does not slow requests down for ever."""
        limiter, left, moments = AdaptiveLimiter(), most, list[float]()

        async def ask() -> None:
            nonlocal left
            while len(moments) < 5_000:
                permit = await limiter.acquire()
                await anyio.sleep(0.1)
                left = left - 1 if left else most
                moments.append(anyio.current_time())
                limiter.release(permit, Feedback(is_answered=True, remaining=left))

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(ask)
        assert 2000 / (moments[-1] - moments[-2001]) > 0.9 * 16 / 0.1

    async def test_a_quota_that_is_always_zero_is_ignored(self) -> None:
        """A quota of zero in every response slows nothing down."""
        limiter, began = AdaptiveLimiter(), anyio.current_time()
        for _ in range(200):
            limiter.release(await limiter.acquire(), Feedback(is_answered=True, remaining=0))
        assert anyio.current_time() == began
        assert limiter.snapshot().rate is None

    async def test_a_quota_that_is_never_enforced_pauses_a_few_times_only(self) -> None:
        """Responses without remaining quota pause three times between two refusals, and no more."""
        limiter, pauses = AdaptiveLimiter(), 0
        for number in range(30 * 50):
            permit = await limiter.acquire()
            was_paused = limiter.snapshot().paused_for > 0
            await anyio.sleep(0.1)
            limiter.release(permit, Feedback(is_answered=True, remaining=49 - number % 50))
            pauses += limiter.snapshot().paused_for > 0 and not was_paused
        assert 1 <= pauses <= 3

    async def test_a_refusal_makes_hints_count_again(self) -> None:
        """After three hints that came to nothing, a quota that is used up pauses again if the server has refused since."""
        limiter = AdaptiveLimiter()

        async def pauses(quotas: int) -> int:
            seen = 0
            for number in range(50 * quotas):
                permit = await limiter.acquire()
                await anyio.sleep(0.1)
                limiter.release(permit, Feedback(is_answered=True, remaining=49 - number % 50))
                seen += number % 50 == 49 and limiter.snapshot().paused_for > 0
            return seen

        assert [await pauses(5), await pauses(2)] == [3, 0]
        limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True))
        assert await pauses(2) == 2

    @pytest.mark.parametrize(("before", "responses"), [(0, 40), (1, 5)])
    async def test_a_quota_that_was_not_left_is_no_hint(self, before: int, responses: int) -> None:
        """A zero counts if some quota was left before it, and if the last zero was more than twenty responses ago."""
        limiter = AdaptiveLimiter()
        for remaining in [0, *[None] * responses, before, 0]:
            permit = await limiter.acquire()
            await anyio.sleep(0.1)
            limiter.release(permit, Feedback(is_answered=True, remaining=remaining))
            assert limiter.snapshot().paused_for == 0

    @pytest.mark.parametrize(("quota", "pauses"), [(20, False), (21, True)])
    async def test_small_quotas_need_no_pause_for_each(self, quota: int, pauses: bool) -> None:
        """The first quota that is used up is a hint, and after it one that lasted for more than twenty responses."""
        limiter = AdaptiveLimiter()
        for remaining in [1, 0, *range(quota - 1, -1, -1)]:
            permit = await limiter.acquire()
            assert limiter.snapshot().paused_for == 0
            await anyio.sleep(0.1)
            limiter.release(permit, Feedback(is_answered=True, remaining=remaining))
        assert (limiter.snapshot().paused_for > 0) is pauses

    async def test_a_failure_is_no_hint(self) -> None:
        """A quota in a response that failed by itself pauses nobody."""
        limiter = AdaptiveLimiter()
        for remaining in [1] * 30 + [0]:
            permit = await limiter.acquire()
            await anyio.sleep(0.1)
            limiter.release(permit, Feedback(is_answered=True, is_failed=not remaining, remaining=remaining))
        assert limiter.snapshot().paused_for == 0

    async def test_it_says_when_a_request_succeeded_last(self) -> None:
        """The time is that of the event loop, and minus infinity before the first success."""
        limiter = AdaptiveLimiter()
        assert limiter.snapshot().succeeded_at == -math.inf
        await anyio.sleep(5)
        limiter.release(await limiter.acquire(), OK)
        assert limiter.snapshot().succeeded_at == anyio.current_time()

    async def test_an_idle_limiter_sends_no_burst(self) -> None:
        """Requests begin one after the other at the learned rate, also after a time without any."""
        limiter, begun = AdaptiveLimiter(), list[float]()

        async def use() -> None:
            permit = await limiter.acquire()
            begun.append(anyio.current_time())
            await anyio.sleep(0.01)
            limiter.release(permit, OK)

        for permit in [await limiter.acquire() for _ in range(4)]:
            await anyio.sleep(0.1)
            limiter.release(permit, OK)
        for _ in range(10):
            await use()
        await throttle(limiter, None)
        await use()
        await anyio.sleep(600)
        begun.clear()
        rate = limiter.snapshot().rate
        assert rate is not None
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(use)
        assert begun[-1] - begun[0] >= 0.8 * 7 / rate
