"""The limiters: what a controller learns, who may begin and when. Time is virtual."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from commenda_customers import AdaptiveLimiter, Feedback, FixedRate, Permit, RateLimiter, RateLimitError
from commenda_customers.limits._controller import Controller

OK = Feedback(is_answered=True)


class Bucket:
    """A server with a token bucket."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, burst, 0.0

    def admits(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def drive(controller: Controller, admits: Callable[[float], bool], *, seconds: float, wait: float | None) -> list[float]:
    """Send as fast as the controller lets, with a round trip of 0.1 s; return when requests were admitted."""
    now, admitted = 0.0, list[float]()
    in_flight: deque[tuple[float, Permit, bool]] = deque()
    while now < seconds:
        while in_flight and in_flight[0][0] <= now:
            _, permit, good = in_flight.popleft()
            controller.ended(permit)
            if good:
                controller.succeeded(permit, now)
            else:
                controller.throttled(permit, now, wait)
        delay = controller.delay(now, len(in_flight))
        if delay <= 0:
            controller.begin(now)
            good = admits(now)
            in_flight.append((now + 0.1, Permit(now, len(in_flight) + 1), good))
            admitted += [now] * good
        else:
            now = min(now + delay, in_flight[0][0] if in_flight else math.inf)
    return admitted


class TestController:
    """The pure decision."""

    @pytest.mark.parametrize("wait", [None, 1.0])
    @pytest.mark.parametrize(("rate", "burst"), [(50, 50), (50, 10), (5, 5), (200, 20)])
    def test_it_finds_the_rate_of_the_server(self, rate: float, burst: float, wait: float | None) -> None:
        """Most of what a server takes is used once its limit is known, and hardly anything is sent that it does not take."""
        bucket, controller, refused = Bucket(rate, burst), Controller(), 0

        def admits(now: float) -> bool:
            nonlocal refused
            good = bucket.admits(now)
            refused += not good
            return good

        admitted = [at for at in drive(controller, admits, seconds=200, wait=wait) if at > 20]
        assert len(admitted) >= 0.88 * 180 * rate
        assert refused <= 0.02 * len(admitted) + 5

    def test_a_limit_that_falls_is_followed(self) -> None:
        """When the server takes less than before, the rate follows within seconds, and rises again when it may."""
        bucket, controller = Bucket(100, 20), Controller()

        def admits(now: float) -> bool:
            bucket.rate = 20 if 50 <= now < 150 else 100
            return bucket.admits(now)

        admitted = drive(controller, admits, seconds=300, wait=None)
        assert sum(70 <= at < 150 for at in admitted) >= 0.9 * 80 * 20
        assert sum(240 <= at < 300 for at in admitted) >= 0.85 * 60 * 100

    def test_a_limit_of_requests_in_flight_is_found(self) -> None:
        """A server that counts what is in flight, and cannot say when to come back, is met by a window."""
        controller, active = Controller(), deque[float]()

        def admits(now: float) -> bool:
            while active and active[0] <= now:
                active.popleft()
            if len(active) >= 6:
                return False
            active.append(now + 0.1)
            return True

        admitted = drive(controller, admits, seconds=120, wait=None)
        assert int(controller.window.value) == 6
        assert sum(at > 60 for at in admitted) >= 0.95 * 60 * 6 / 0.1

    def test_without_a_limit_it_is_in_nobodys_way(self) -> None:
        """Where nothing is refused, the number of requests at once grows by half with each round trip, without an end."""
        controller = Controller()
        admitted = drive(controller, lambda _now: True, seconds=1.5, wait=None)
        assert not controller.is_limited
        assert sum(at > 1.4 for at in admitted) > 500

    def test_one_episode_is_one_lesson(self) -> None:
        """Refusals of requests that were sent before the first of them was known teach nothing new."""
        controller = Controller()
        permits = [Permit(number / 100, number + 1) for number in range(20)]
        for permit in permits:
            controller.begin(permit.sent)
        controller.succeeded(permits[0], 0.5)
        controller.throttled(permits[1], 0.6, None)
        rate, pause = controller.rate.value, controller.paused_until
        for permit in permits[2:]:
            controller.throttled(permit, 0.7, None)
        assert (controller.rate.value, controller.paused_until) == (rate, pause)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["ok", "throttled", "waits", "lost"]),
                st.floats(0, 5),
                st.floats(0.001, 60),
                st.booleans(),
            ),
            max_size=80,
        )
    )
    def test_nothing_stops_it_for_ever(self, story: list[tuple[str, float, float, bool]]) -> None:
        """Whatever has happened, when nothing is in flight the next request may begin within the pause and a few seconds."""
        controller, now, last_wait = Controller(), 0.0, 0.0
        for outcome, passes, wait, is_probe in story:
            delay = controller.delay(now, 0)
            assert 0 <= delay <= max(last_wait, 8.0) + 1 / controller.LEAST_RATE
            now += delay if is_probe else passes
            permit = Permit(now, 1)
            controller.begin(now)
            now += 0.1
            controller.ended(permit)
            if outcome == "ok":
                controller.succeeded(permit, now)
            elif outcome != "lost":
                controller.throttled(permit, now, wait if outcome == "waits" else None)
                last_wait = max(last_wait, wait)


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    """Run on both backends with a clock that jumps to whatever is waited for."""
    return virtual_backend


async def use(limiter: RateLimiter, begun: list[tuple[Any, float]], name: Any = None, *, again: bool = False) -> None:
    """Make a request that takes a tenth of a second, and take note of when it began."""
    permit = await limiter.acquire(again=again)
    begun.append((name, anyio.current_time()))
    await anyio.sleep(0.1)
    limiter.release(permit, OK)


async def throttle(limiter: RateLimiter, wait: float | None) -> None:
    """Let a request be answered with a 429."""
    limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True, wait=wait))


@pytest.mark.anyio
class TestQueue:
    """Who may begin, and when."""

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(5)])
    async def test_one_refusal_pauses_all(self, make: Callable[[], RateLimiter]) -> None:
        """After a 429 with a wait nobody begins before it is over; then they begin in turn, and not as a herd."""
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
        assert begun[-1][1] - begun[0][1] > 1

    async def test_who_was_refused_is_first(self) -> None:
        """Requests that have waited for their turn already do not go to the end of the queue, nor overtake each other."""
        limiter, begun = FixedRate(1), list[tuple[Any, float]]()
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(use, limiter, begun, name)
                await anyio.wait_all_tasks_blocked()
            await anyio.sleep(0.5)
            for name in "xyz":
                tasks.start_soon(partial(use, limiter, begun, name, again=True))
                await anyio.wait_all_tasks_blocked()
        assert [name for name, _ in begun] == list("axyzbc")

    async def test_who_is_cancelled_gives_its_place_back(self) -> None:
        """However many of those that wait are cancelled, at the head or behind it, the others go on without delay."""
        limiter, begun = FixedRate(1), list[tuple[Any, float]]()
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks, anyio.create_task_group() as cancelled:
            for number in range(8):
                (cancelled if number % 2 else tasks).start_soon(use, limiter, begun, number)
                await anyio.wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        assert [(name, round(at - began)) for name, at in begun] == [(0, 0), (2, 1), (4, 2), (6, 3)]
        assert limiter.snapshot().waiting == limiter.snapshot().in_flight == 0

    async def test_a_request_of_which_nothing_came_frees_its_place(self) -> None:
        """A request that failed without an answer is over all the same: the next may begin."""
        limiter = AdaptiveLimiter()
        for _ in range(100):
            limiter.release(await limiter.acquire(), Feedback())
        assert limiter.snapshot().in_flight == 0

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda **options: FixedRate(100, **options)])
    async def test_no_more_are_under_way_than_there_may_be(self, make: Callable[..., RateLimiter]) -> None:
        """Nobody begins who would have to wait for a connection: those that wait can still be held back by a pause."""
        limiter = make(max_in_flight=2)
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
        with pytest.raises(ValueError, match="max_in_flight"):
            make(max_in_flight=0)

    async def test_it_fails_fast_if_it_is_told_to(self) -> None:
        """Who cannot wait is told so at once, with how long it would take."""
        limiter = FixedRate(2, per=10)
        for _ in range(2):
            limiter.release(await limiter.acquire(max_wait=0.1), OK)
        began = anyio.current_time()
        assert limiter.estimate_wait() == pytest.approx(10)
        with pytest.raises(RateLimitError, match=r"in about 10\.0 s, which is more than max_wait, 3 s") as caught:
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
        """How long a request would wait is known to the second: windows pass by as a whole."""
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

    async def test_the_wait_is_known_while_the_server_is_sounded_out(self) -> None:
        """After 429s in a row one request at a time is sent: those that wait are told what that means for them."""
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

    async def test_a_wait_that_becomes_too_long_ends(self) -> None:
        """If the estimate was too good, `max_wait` holds all the same, and the place is given back."""
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

    async def test_no_limit_is_no_reason_to_fail(self) -> None:
        """Before any 429, requests that may not wait go past the number in flight with which it begins."""
        limiter = AdaptiveLimiter(max_in_flight=20)
        permits = [await limiter.acquire(max_wait=0) for _ in range(20)]
        with pytest.raises(RateLimitError):
            await limiter.acquire(max_wait=0)
        limiter.release(permits.pop(), Feedback(is_answered=True, is_throttled=True, wait=5))
        with pytest.raises(RateLimitError, match="in about 5.0 s") as caught:
            await limiter.acquire(max_wait=0)
        assert caught.value.retry_after == pytest.approx(5)

    @pytest.mark.parametrize("max_wait", [-1, math.nan, True, "1", 10**400])
    async def test_a_wait_that_is_none_is_refused(self, max_wait: Any) -> None:
        """What is no number of seconds is an error that names the argument."""
        with pytest.raises((ValueError, TypeError), match="max_wait: "):
            await AdaptiveLimiter().acquire(max_wait=max_wait)

    async def test_a_wait_that_is_just_short_enough_is_no_failure(self) -> None:
        """Where the turn comes after exactly `max_wait`, the request begins."""
        limiter = FixedRate(1)
        limiter.release(await limiter.acquire(), OK)
        began = anyio.current_time()
        await limiter.acquire(max_wait=limiter.estimate_wait())
        assert anyio.current_time() - began == pytest.approx(1)

    async def test_who_comes_again_is_next(self) -> None:
        """A request that was sent before goes to the front, and what it may wait is compared with the wait from there."""
        limiter, begun = FixedRate(1), list[tuple[Any, float]]()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(use, limiter, begun)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RateLimitError):
                await limiter.acquire(max_wait=2)
            began = anyio.current_time()
            limiter.release(await limiter.acquire(again=True, max_wait=2), OK)
            assert anyio.current_time() - began == pytest.approx(1)

    async def test_an_answer_that_never_comes_stops_nobody(self) -> None:
        """While the server is sounded out after 429s in a row, a request of long before that hangs is not waited for."""
        limiter = AdaptiveLimiter()
        for permit in [await limiter.acquire() for _ in range(4)]:
            limiter.release(permit, OK)
        await limiter.acquire()  # it is never released
        for _ in range(3):
            permit = await limiter.acquire()
            await anyio.sleep(0.2)
            limiter.release(permit, Feedback(is_answered=True, is_throttled=True))
        with anyio.fail_after(2):
            scout = await limiter.acquire()
        with anyio.move_on_after(60) as scope:
            await limiter.acquire()
        assert scope.cancelled_caught  # one at a time: it has to wait for that one
        limiter.release(scout, Feedback())
        with anyio.fail_after(60):
            await limiter.acquire()

    async def test_quota_that_is_used_up_slows_down(self) -> None:
        """An answer that says that nothing remains any more is as good as a refusal."""
        limiter = AdaptiveLimiter()
        for remaining in (2, 1, 0):
            limiter.release(await limiter.acquire(), Feedback(is_answered=True, remaining=remaining))
        assert limiter.snapshot().paused_for > 0
        assert limiter.snapshot().rate is not None
        assert "requests per second" in repr(limiter)

    async def test_a_pause_is_never_shortened(self) -> None:
        """What was asked for by one 429 holds, whatever later answers say or leave out."""
        limiter = AdaptiveLimiter()
        permits = [await limiter.acquire() for _ in range(3)]
        limiter.release(permits[0], Feedback(is_answered=True, is_throttled=True, wait=60))
        late = replace(permits[1], sent=anyio.current_time() + 1)
        limiter.release(late, Feedback(is_answered=True, is_throttled=True))
        limiter.release(replace(permits[2], sent=anyio.current_time() + 2), Feedback(is_answered=True, remaining=0))
        assert limiter.snapshot().paused_for == pytest.approx(60)

    @pytest.mark.parametrize(("make", "most"), [(AdaptiveLimiter, 100), (lambda: FixedRate(100), 310)])
    async def test_waits_that_are_too_short_make_no_storm(self, make: Callable[[], RateLimiter], most: int) -> None:
        """A server that refuses for ever and asks for a millisecond each time is asked no more often than a silent one."""
        limiter, refused, began = make(), 0, anyio.current_time()
        while anyio.current_time() < began + 300:
            permit = await limiter.acquire(again=refused > 0)
            await anyio.sleep(0.005)
            limiter.release(permit, Feedback(is_answered=True, is_throttled=True, wait=0.001))
            refused += 1
        assert refused < most

    @pytest.mark.parametrize("most", [9, 30, 100])
    async def test_a_quota_that_is_used_up_all_the_time_means_nothing(self, most: int) -> None:
        """A server that counts down, begins anew and refuses nobody does not slow things down for ever."""
        limiter, left, moments = AdaptiveLimiter(), most, list[float]()

        async def ask() -> None:
            nonlocal left
            while len(moments) < 12_000:
                permit = await limiter.acquire()
                await anyio.sleep(0.1)
                left = left - 1 if left else most
                moments.append(anyio.current_time())
                limiter.release(permit, Feedback(is_answered=True, remaining=left))

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(ask)
        assert 5000 / (moments[-1] - moments[-5001]) > 0.9 * 16 / 0.1

    async def test_quota_that_never_was_there_is_nonsense(self) -> None:
        """A server that says with every answer that nothing remains, and goes on answering, slows nothing down."""
        limiter, began = AdaptiveLimiter(), anyio.current_time()
        for _ in range(200):
            limiter.release(await limiter.acquire(), Feedback(is_answered=True, remaining=0))
        assert anyio.current_time() == began
        assert limiter.snapshot().rate is None

    @given(
        limit=st.integers(1, 12),
        per=st.floats(0.05, 30),
        gaps=st.lists(st.floats(0, 3) | st.just(0.0), min_size=1, max_size=60),
    )
    def test_a_fixed_rate_is_strict(self, limit: int, per: float, gaps: list[float]) -> None:
        """However requests come, no stretch of *per* seconds sees more than *limit* of them begin, not even the first."""

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

    @pytest.mark.parametrize("args", [(0,), (1.5,), (-1,), (10**30,), (5, 0), (5, "s"), (True,), (5, math.inf), (5, 5e-324)])
    def test_a_rate_that_is_none_is_refused(self, args: tuple[Any, ...]) -> None:
        """A rate must be made of positive numbers; the message names what is not."""
        with pytest.raises((ValueError, TypeError), match="limit|per"):
            FixedRate(args[0], **({"per": args[1]} if len(args) > 1 else {}))


class TestEventLoops:
    """One limiter, several event loops."""

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(3)])
    def test_one_after_the_other(self, make: Callable[[], RateLimiter]) -> None:
        """In a second event loop, with another clock, it goes on with what it has learned, and a pause goes on too."""
        limiter, paused = make(), list[float]()

        async def pause() -> None:
            await throttle(limiter, 1.0)
            with pytest.raises(RateLimitError) as caught:
                await limiter.acquire(max_wait=0.01)
            assert 0 < limiter.estimate_wait() <= (caught.value.retry_after or 0)

        async def look() -> float | None:
            paused.append(limiter.snapshot().paused_for)
            limiter.release(await limiter.acquire(), OK)
            return limiter.snapshot().rate

        anyio.run(pause)
        rates = [anyio.run(look, backend=backend) for backend in ("trio", "asyncio", "trio")]
        assert 0 < paused[0] <= 1.0
        assert paused[1:] == [0.0, 0.0]
        assert all(rates)
        assert "FixedRate(3, per=1.0)" in repr(FixedRate(3))

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(3)])
    def test_anyone_may_look(self, make: Callable[[], RateLimiter]) -> None:
        """What it does can be seen from threads that have no event loop, or another one: a pause is as long from there."""
        limiter = make()
        assert limiter.estimate_wait() == limiter.snapshot().paused_for == 0

        async def look() -> float:
            return limiter.snapshot().paused_for

        async def main() -> None:
            await throttle(limiter, 60)
            seen = [
                await anyio.to_thread.run_sync(limiter.estimate_wait),
                await anyio.to_thread.run_sync(lambda: anyio.run(look, backend="trio")),
                await asyncio.to_thread(limiter.estimate_wait),
            ]
            assert all(50 < wait <= 60 for wait in seen)

        anyio.run(main)
        assert 50 < limiter.estimate_wait() <= 60

    def test_a_fixed_rate_holds_across_event_loops(self) -> None:
        """A window that began in one event loop goes on in the next: its requests count, and no whole window is lost."""
        limiter = FixedRate(2, per=0.3)

        async def begin() -> float:
            limiter.release(await limiter.acquire(), OK)
            return time.monotonic()

        times = [anyio.run(begin, backend=backend) for backend in ("asyncio", "trio", "trio", "asyncio")]
        assert min(later - first for first, later in zip(times, times[2:], strict=False)) > 0.29
        assert times[1] - times[0] < 0.3

    def test_two_at_once_are_refused(self) -> None:
        """While a request is in flight in one event loop, another is told what to do."""
        limiter = AdaptiveLimiter()

        async def leave_one() -> None:
            await limiter.acquire()

        anyio.run(leave_one)
        with pytest.raises(RuntimeError, match="in use in another event loop"):
            anyio.run(leave_one)
