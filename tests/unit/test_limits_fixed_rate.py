"""The limiter that is told its rate."""

import math
import sys
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from commenda_customers import Feedback, FixedRate, RateLimiter

OK = Feedback(is_answered=True)


async def use(limiter: RateLimiter, begun: list[tuple[Any, float]], name: Any = None, *, again: bool = False) -> None:
    """Make a request that takes a tenth of a second, and take note of when it began."""
    permit = await limiter.acquire(again=again)
    begun.append((name, anyio.current_time()))
    await anyio.sleep(0.1)
    limiter.release(permit, OK)


@pytest.mark.anyio
class TestFixedRate:
    """A rate that is never exceeded."""

    @given(
        limit=st.integers(1, 12),
        per=st.floats(0.05, 30),
        gaps=st.lists(st.floats(0, 3) | st.just(0.0), min_size=1, max_size=60),
    )
    def test_a_fixed_rate_is_strict(self, limit: int, per: float, gaps: list[float]) -> None:
        """No window of *per* seconds sees more than *limit* requests begin, however they come."""

        async def main() -> list[float]:
            limiter, begun = FixedRate(limit, per=per), list[tuple[Any, float]]()
            async with anyio.create_task_group() as tasks:
                for gap in gaps:
                    tasks.start_soon(use, limiter, begun)
                    await anyio.sleep(gap)
            return [at for _, at in begun]

        begun = virtual_time.run(main, "trio")
        assert len(begun) == len(gaps)
        for first, later in zip(begun, begun[limit:], strict=False):
            assert later - first >= per or math.isclose(later - first, per)

    async def test_refusals_in_a_cluster_pause_and_teach_no_rate(self) -> None:
        """Refusals pause all requests for as long as the server asks; the rate stays, and nothing else limits it."""
        limiter = FixedRate(200)
        for _ in range(3):
            with anyio.fail_after(1):
                held = [await limiter.acquire() for _ in range(30)]
            for permit in held:
                limiter.release(permit, OK)
            refused = [await limiter.acquire() for _ in range(6)]
            await anyio.sleep(0.1)
            began = anyio.current_time()
            for permit in refused:
                limiter.release(permit, Feedback(is_answered=True, is_throttled=True, wait=5))
            assert limiter.snapshot().paused_for == pytest.approx(5)
            assert limiter.estimate_wait() == pytest.approx(5)
            with anyio.fail_after(5.1):
                held = [await limiter.acquire() for _ in range(50)]
            assert anyio.current_time() == pytest.approx(began + 5)
            assert limiter.snapshot().rate == 200
            for permit in held:
                limiter.release(permit, OK)
            await anyio.sleep(1)

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_another_event_loop_has_another_clock(self, backend: str) -> None:
        """A request of an event loop that has ended counts for the time that is left of its period, by any clock."""
        limiter = FixedRate(1, per=10)

        async def use_later() -> None:
            await anyio.sleep(1000)
            limiter.release(await limiter.acquire(), OK)

        async def use_again() -> list[float]:
            times = [anyio.current_time()]
            for _ in range(4):
                limiter.release(await limiter.acquire(), OK)
                times.append(anyio.current_time())
            return [later - earlier for earlier, later in pairwise(times)]

        virtual_time.run(use_later, backend)
        first, *others = virtual_time.run(use_again, backend)
        assert 0 < first <= 10
        assert others == pytest.approx([10, 10, 10])

    async def test_it_says_when_the_server_takes_nothing(self) -> None:
        """What the retry policy has to know of an outage, it learns from the snapshot."""
        limiter = FixedRate(100)
        limiter.release(await limiter.acquire(), OK)
        assert (limiter.snapshot().succeeded_at, limiter.snapshot().is_half_open) == (anyio.current_time(), False)
        for _ in range(4):
            permit = await limiter.acquire()
            await anyio.sleep(0.5)
            limiter.release(permit, Feedback(is_answered=True, is_failed=True))
        assert limiter.snapshot().is_half_open

    @pytest.mark.parametrize(
        ("args", "error", "message"),
        [
            ((0,), ValueError, "limit: must be above 0, got 0"),
            ((-1,), ValueError, "limit: must be above 0, got -1"),
            ((1.5,), TypeError, "limit: expected int, got float"),
            ((True,), TypeError, "limit: expected a number, got bool"),
            ((10**30,), ValueError, f"limit: must be at most {sys.maxsize}"),
            ((5, 0), ValueError, "per: must be above 0, got 0"),
            ((5, "s"), TypeError, "per: expected a number, got str"),
            ((5, math.inf), ValueError, "per: must be a finite number of seconds for 5 requests, got inf"),
            ((5, 5e-324), ValueError, "per: must be a finite number of seconds for 5 requests, got 5e-324"),
        ],
    )
    def test_invalid_rates_are_refused(self, args: tuple[Any, ...], error: type[Exception], message: str) -> None:
        """A rate must be made of positive numbers; the message names the argument."""
        with pytest.raises(error) as caught:
            FixedRate(args[0], **({"per": args[1]} if len(args) > 1 else {}))
        assert str(caught.value) == message

    async def test_the_largest_limit_is_one(self) -> None:
        """The largest limit that Python can count to is accepted, and does not hold a request back."""
        limiter = FixedRate(sys.maxsize)
        await limiter.acquire(max_wait=0)

    async def test_its_snapshot_says_what_it_was_told(self) -> None:
        """The snapshot has the rate by second, what is in flight and waits, and what was let pass."""
        limiter = FixedRate(4, per=2.0, max_in_flight=7)
        for _ in range(2):
            limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True))
        permit = await limiter.acquire()
        snapshot = limiter.snapshot()
        assert (snapshot.rate, snapshot.in_flight, snapshot.max_in_flight, snapshot.waiting) == (2.0, 1, 7, 0)
        assert (snapshot.let_pass, snapshot.paused_for, snapshot.succeeded_at) == (2, 0.0, -math.inf)
        limiter.release(permit, OK)
        assert FixedRate(4).snapshot().max_in_flight == 100
        assert repr(limiter) == "FixedRate(4, per=2.0)"

    async def test_the_wait_counts_those_that_wait(self) -> None:
        """An estimate says when a request would begin behind those that wait, at the times at which others began."""
        limiter = FixedRate(2, per=10)
        limiter.release(await limiter.acquire(), OK)
        assert limiter.estimate_wait() == 0
        await anyio.sleep(4)
        limiter.release(await limiter.acquire(), OK)
        assert limiter.estimate_wait() == pytest.approx(6)
        waits = []
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(limiter.acquire)
                await anyio.wait_all_tasks_blocked()
                waits.append(limiter.estimate_wait())
            tasks.cancel_scope.cancel()
        assert waits == pytest.approx([10, 16, 20, 26])
        await anyio.sleep(100)
        assert limiter.estimate_wait() == 0

    async def test_the_wait_counts_the_rest_of_the_limit_first(self) -> None:
        """Where one request after the other has to end, those that wait use up the limit before the next period."""
        limiter = FixedRate(3, per=10, max_in_flight=1)
        await limiter.acquire()
        waits = []
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(limiter.acquire)
                await anyio.wait_all_tasks_blocked()
                waits.append(limiter.estimate_wait())
            tasks.cancel_scope.cancel()
        assert waits == pytest.approx([0, 10, 10])

    async def test_silent_refusals_pause_for_a_second(self) -> None:
        """A fixed rate that is too high never falls. So a cluster of refusals pauses it for a second."""
        limiter = FixedRate(50)
        limiter.release(await limiter.acquire(), OK)
        for _ in range(3):
            limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True))
        assert limiter.snapshot().paused_for == pytest.approx(1)
