"""The queue of a limiter: who may begin, and when."""

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from commenda_customers import AdaptiveLimiter, Feedback, FixedRate, RateLimiter

OK = Feedback(is_answered=True)


async def use(limiter: RateLimiter, begun: list[tuple[Any, float]], name: Any = None, *, again: bool = False) -> None:
    """Make a request that takes a tenth of a second, and take note of when it began."""
    permit = await limiter.acquire(again=again)
    begun.append((name, anyio.current_time()))
    await anyio.sleep(0.1)
    limiter.release(permit, OK)


async def throttle(limiter: RateLimiter, wait: float | None) -> None:
    """Let requests be refused until the limiter pauses: single refusals concern their request alone."""
    while not limiter.snapshot().paused_for:
        limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True, wait=wait))


@pytest.mark.anyio
class TestQueue:
    """Who may begin, and when."""

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(5)])
    async def test_refusals_pause_all(self, make: Callable[[], RateLimiter]) -> None:
        """No request begins during the pause after refusals; after it they begin in order."""
        limiter, begun = make(), list[tuple[Any, float]]()
        began = anyio.current_time()
        await throttle(limiter, 30)
        assert limiter.snapshot().paused_for == pytest.approx(30)
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(use, limiter, begun, number)
                await anyio.wait_all_tasks_blocked()
            assert limiter.snapshot().waiting == 12
        assert [name for name, _ in begun] == list(range(12))
        assert all(at >= began + 30 for _, at in begun)
        assert begun[-1][1] - begun[0][1] >= 0.1

    async def test_a_retry_lets_one_new_request_go_first(self) -> None:
        """Retries go in front of new requests, one for each, and do not overtake each other."""
        limiter, begun = FixedRate(1), list[tuple[Any, float]]()
        async with anyio.create_task_group() as tasks:
            for name in "abcde":
                tasks.start_soon(use, limiter, begun, name)
                await anyio.wait_all_tasks_blocked()
            await anyio.sleep(0.5)
            for name in "xyz":
                tasks.start_soon(partial(use, limiter, begun, name, again=True))
                await anyio.wait_all_tasks_blocked()
        assert [name for name, _ in begun] == list("abxcydze")

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.0, 0.3, 1.0, 2.5])), max_size=40))
    def test_retries_starve_no_new_request(self, arrivals: list[tuple[bool, float]]) -> None:
        """However many retries come, a new request lets no more of them go first than new requests are in front of it."""

        async def main() -> list[int]:
            limiter, begun = FixedRate(1), list[tuple[Any, float]]()
            async with anyio.create_task_group() as tasks:
                for number, (again, gap) in enumerate(arrivals):
                    tasks.start_soon(partial(use, limiter, begun, number, again=again))
                    await anyio.wait_all_tasks_blocked()
                    waiting.append(number - len(begun) + 1)
                    await anyio.sleep(gap)
            return [number for number, _ in begun]

        waiting = list[int]()
        order = virtual_time.run(main, "trio")
        assert sorted(order) == list(range(len(arrivals)))
        for kind in (False, True):
            same = [number for number in order if arrivals[number][0] is kind]
            assert same == sorted(same)
        for place, number in enumerate(order):
            if not arrivals[number][0]:
                overtakers = sum(other > number for other in order[:place])
                assert overtakers <= max(0, waiting[number] - 1)
                # At most one for each new request that was in front.
                assert overtakers <= sum(other < number and not arrivals[other][0] for other in order[:place])

    async def test_a_retry_is_second_again_after_other_retries(self) -> None:
        """Retries that have begun do not send later ones further back."""
        limiter, begun = FixedRate(1), list[tuple[Any, float]]()
        async with anyio.create_task_group() as tasks:
            for name in ["a", "r", "s", "t", "b", "c", "d", "e", "x"]:
                tasks.start_soon(partial(use, limiter, begun, name, again=name in "rstx"))
                await anyio.wait_all_tasks_blocked()
                if name == "t":
                    await anyio.sleep(3.5)
        assert [name for name, _ in begun] == list("arstbxcde")

    async def test_nobody_overtakes_the_queue(self) -> None:
        """A request that comes in the moment in which a place becomes free waits behind those that wait for it."""
        limiter, begun = FixedRate(100, max_in_flight=1), list[tuple[Any, float]]()
        permit = await limiter.acquire()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use, limiter, begun, "first")
            await anyio.wait_all_tasks_blocked()
            limiter.release(permit, OK)
            await use(limiter, begun, "second")
        assert [name for name, _ in begun] == ["first", "second"]

    async def test_the_next_waiter_takes_over(self) -> None:
        """If the waiter at the head is cancelled, or begins, the next one begins in time though nothing is in flight."""
        limiter, began = FixedRate(1), anyio.current_time()
        limiter.release(await limiter.acquire(), OK)
        with anyio.fail_after(10):
            await self._cancel_the_first_of_three(limiter)
        assert anyio.current_time() == pytest.approx(began + 2)

    async def _cancel_the_first_of_three(self, limiter: RateLimiter) -> None:
        async with anyio.create_task_group() as tasks, anyio.create_task_group() as cancelled:
            cancelled.start_soon(limiter.acquire)
            await anyio.wait_all_tasks_blocked()
            for _ in range(2):
                tasks.start_soon(limiter.acquire)
            await anyio.wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()

    async def test_a_cancelled_waiter_leaves_the_queue(self) -> None:
        """Waiters that are cancelled, at the head or behind it, do not delay the others."""
        limiter, begun = FixedRate(1), list[tuple[Any, float]]()
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks, anyio.create_task_group() as cancelled:
            for number in range(8):
                (cancelled if number % 2 else tasks).start_soon(use, limiter, begun, number)
                await anyio.wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        assert [(name, round(at - began)) for name, at in begun] == [(0, 0), (2, 1), (4, 2), (6, 3)]
        assert limiter.snapshot().waiting == limiter.snapshot().in_flight == 0

    async def test_a_request_without_a_response_returns_its_permit(self) -> None:
        """A request that failed without a response returns its permit."""
        limiter = AdaptiveLimiter()
        for _ in range(100):
            limiter.release(await limiter.acquire(), Feedback())
        assert limiter.snapshot().in_flight == 0

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda **options: FixedRate(100, **options)])
    async def test_max_in_flight_is_kept(self, make: Callable[..., RateLimiter]) -> None:
        """No more than `max_in_flight` requests are in flight, and a pause still holds the waiters back."""
        limiter = make(max_in_flight=2)
        for _ in range(2):  # single refusals pause nobody
            limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True, wait=0.001))
        held = [await limiter.acquire() for _ in range(2)]
        begun: list[tuple[Any, float]] = []
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(use, limiter, begun, number)
                await anyio.wait_all_tasks_blocked()
            await anyio.sleep(5)
            assert begun == []
            assert limiter.snapshot().waiting == 3
            limiter.release(held[0], OK)
            limiter.release(held[1], Feedback(is_answered=True, is_throttled=True, wait=20))
            released = anyio.current_time()
        assert [name for name, _ in begun] == [0, 1, 2]
        assert min(at for _, at in begun) - released == pytest.approx(20, abs=1e-3)

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(100)])
    async def test_two_clients_do_not_return_at_the_same_moment(self, make: Callable[[], RateLimiter]) -> None:
        """While the server is shut, limiters to which the same happens pause for different times."""
        pauses = set[float]()
        for _ in range(5):
            limiter = make()
            for _ in range(8):
                await throttle(limiter, None)
                await anyio.sleep(limiter.snapshot().paused_for)
                limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True))
            pauses.add(limiter.snapshot().paused_for)
        assert len(pauses) > 1
        assert max(pauses) - min(pauses) <= 1

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda **options: FixedRate(100, **options)])
    def test_max_in_flight_is_a_whole_number(self, make: Callable[..., RateLimiter]) -> None:
        """Anything else is refused, and the message begins with the name of the argument."""
        with pytest.raises(ValueError, match=r"^max_in_flight: must be above 0, got 0$"):
            make(max_in_flight=0)
        with pytest.raises(TypeError, match=r"^max_in_flight: expected int, got float$"):
            make(max_in_flight=1.5)

    async def test_a_request_that_hangs_blocks_nobody(self) -> None:
        """A request that hangs since before the 429s does not block the probes after them."""
        limiter = AdaptiveLimiter()
        for permit in [await limiter.acquire() for _ in range(4)]:
            limiter.release(permit, OK)
        await limiter.acquire()  # it is never released
        for _ in range(3):
            permit = await limiter.acquire()
            await anyio.sleep(0.2)
            limiter.release(permit, Feedback(is_answered=True, is_throttled=True))
        with anyio.fail_after(2):
            probe = await limiter.acquire()
        with anyio.move_on_after(60) as scope:
            await limiter.acquire()
        assert scope.cancelled_caught  # one at a time: it has to wait for that one
        limiter.release(probe, Feedback())
        with anyio.fail_after(60):
            await limiter.acquire()
