"""One limiter in several event loops and threads."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import pairwise
from typing import Any

import anyio
import pytest

import virtual_time
from commenda_customers import AdaptiveLimiter, Feedback, FixedRate, Permit, RateLimiter, RateLimitError

OK = Feedback(is_answered=True)


async def throttle(limiter: RateLimiter, wait: float | None) -> None:
    """Let requests be refused until the limiter pauses: single refusals concern their request alone."""
    while not limiter.snapshot().paused_for:
        limiter.release(await limiter.acquire(), Feedback(is_answered=True, is_throttled=True, wait=wait))


class TestEventLoops:
    """One limiter, several event loops."""

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(3)])
    def test_one_after_the_other(self, make: Callable[[], RateLimiter]) -> None:
        """A limiter keeps what it has learned, and a pause, when it moves to an event loop with another clock."""
        limiter = make()

        async def pause() -> None:
            for _ in range(10):
                limiter.release(await limiter.acquire(), OK)
            await throttle(limiter, 3600)
            with pytest.raises(RateLimitError) as caught:
                await limiter.acquire(max_wait=0.01)
            assert 0 < limiter.estimate_wait() <= (caught.value.retry_after or 0)

        async def wait() -> float | None:
            paused_for, began = limiter.snapshot().paused_for, anyio.current_time()
            limiter.release(await limiter.acquire(), OK)
            assert anyio.current_time() - began == pytest.approx(paused_for, abs=1)
            assert 3000 < paused_for <= 3610
            return limiter.snapshot().rate

        virtual_time.run(pause, "asyncio")
        # The machine's own clock does not jump, so that for the next event loop the pause is as long again.
        for backend in ("trio", "asyncio", "trio"):
            assert virtual_time.run(wait, backend)
        assert "FixedRate(3, per=1.0)" in repr(FixedRate(3))

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(3)])
    def test_another_clock_changes_nothing(self, make: Callable[[], RateLimiter], monkeypatch: pytest.MonkeyPatch) -> None:
        """What was learned in one event loop holds in the next: pauses, paces and rates are as they would have been."""
        monkeypatch.setattr("random.random", lambda: 0.5)
        refused, failed = {72, 73, 74, 76, 77}, {150, 151, 152, 153, 154}

        def story(limiter: RateLimiter, *breaks: int) -> list[float]:
            seen, elapsed = list[float](), 0.0

            def machine() -> float:  # it goes on while the clock of each event loop begins at 0
                with suppress(anyio.NoEventLoopError):
                    return elapsed + anyio.current_time()
                return elapsed

            async def request(number: int) -> None:
                permit, since = await limiter.acquire(), anyio.current_time()
                seen.append(machine())
                await anyio.sleep(0.125)
                if number in refused:
                    feedback = Feedback(is_answered=True, is_throttled=True)
                else:
                    feedback = Feedback(is_answered=True, is_failed=number in failed, failing_since=since)
                limiter.release(permit, feedback)
                snapshot = limiter.snapshot()
                seen.extend([snapshot.rate or 0.0, snapshot.paused_for, snapshot.max_in_flight, limiter.estimate_wait()])
                if number % 50 == 49:
                    await anyio.sleep(3)

            monkeypatch.setattr("time.monotonic", machine)
            for first, last in pairwise([0, *breaks, 170]):

                async def part(first: int = first, last: int = last) -> float:
                    for number in range(first, last):
                        await request(number)
                    return anyio.current_time()

                elapsed += virtual_time.run(part, "asyncio")
            return seen

        assert story(make(), 30, 73, 78, 130, 151, 155) == pytest.approx(story(make()), rel=1e-6, abs=1e-6)

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(3)])
    def test_any_thread_may_look(self, make: Callable[[], RateLimiter]) -> None:
        """Threads without an event loop, or with another one, see the same pause."""
        limiter = make()
        assert limiter.estimate_wait() == limiter.snapshot().paused_for == 0

        async def look() -> float:
            return limiter.snapshot().paused_for

        async def main() -> None:
            await throttle(limiter, 3600)
            seen = [
                await anyio.to_thread.run_sync(limiter.estimate_wait),
                await anyio.to_thread.run_sync(lambda: anyio.run(look, backend="trio")),
                await asyncio.to_thread(limiter.estimate_wait),
            ]
            assert all(3000 < wait <= 3600 for wait in seen)

        anyio.run(main)
        assert 3000 < limiter.estimate_wait() <= 3600

    def test_a_fixed_rate_holds_across_event_loops(self) -> None:
        """Requests of an earlier event loop count in the next one until their window is over, and no longer."""
        limiter = FixedRate(2, per=3600)

        async def begin() -> float:
            began = anyio.current_time()
            limiter.release(await limiter.acquire(), OK)
            return anyio.current_time() - began

        waits = [virtual_time.run(begin, backend) for backend in ("asyncio", "trio", "trio")]
        assert waits[:2] == [0, 0]
        assert 3000 < waits[2] <= 3600

    def test_two_event_loops_at_once_are_refused(self) -> None:
        """A second event loop gets an error while a request is in flight in the first."""
        limiter = AdaptiveLimiter()

        async def acquire() -> None:
            await limiter.acquire()

        async def main() -> None:
            permit = await limiter.acquire()
            with pytest.raises(RuntimeError, match=r"^this limiter is in use in .* make one limiter for each event loop$"):
                await anyio.to_thread.run_sync(lambda: anyio.run(acquire, backend="trio"))
            limiter.release(permit, OK)

        anyio.run(main)

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(1, per=0.001)])
    def test_an_event_loop_that_has_ended_is_forgotten(self, make: Callable[..., RateLimiter]) -> None:
        """Requests and waiters of an event loop that was closed under them do not block the next event loop."""
        limiter = make()

        async def leave() -> None:
            await limiter.acquire()
            await limiter.acquire()

        async def half_open() -> None:
            for _ in range(2):  # a refusal that follows a refusal: one request alone finds out
                await throttle(limiter, 0.001)
            await limiter.acquire()

        async def use() -> None:
            for again in (False, True):
                with anyio.fail_after(60):
                    permit = await limiter.acquire(again=again)
                assert (limiter.snapshot().in_flight, limiter.snapshot().waiting) == (1, 0)
                limiter.release(permit, OK)

        for left in (leave(), leave(), half_open()):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(left)
            loop.close()
        anyio.run(use)

    @pytest.mark.parametrize("make", [AdaptiveLimiter, lambda: FixedRate(1, per=0.001)])
    def test_a_fork_forgets_the_parent(self, make: Callable[..., RateLimiter], monkeypatch: pytest.MonkeyPatch) -> None:
        """In a child process, the requests and waiters of the parent do not count, and their end changes nothing."""
        limiter = make()

        async def use() -> None:
            with anyio.fail_after(60):
                permit = await limiter.acquire()
            assert (limiter.snapshot().in_flight, limiter.snapshot().waiting) == (1, 0)
            limiter.release(permit, OK)

        async def fork() -> None:
            permits = [await limiter.acquire(), await limiter.acquire()]
            monkeypatch.setattr(os, "getpid", lambda: -1)
            limiter.release(permits[0], OK)  # a task that the child has a copy of
            await anyio.to_thread.run_sync(lambda: anyio.run(use, backend="trio"))
            limiter.release(permits[1], OK)
            assert limiter.snapshot().in_flight == 0
            await use()

        anyio.run(fork)

    def test_a_trio_event_loop_that_was_abandoned_is_forgotten(self) -> None:
        """Permits that nobody has returned in a trio event loop do not block the next event loop."""
        limiter = AdaptiveLimiter(max_in_flight=1)

        async def leave() -> None:
            await limiter.acquire()

        async def use() -> None:
            with anyio.fail_after(60):
                limiter.release(await limiter.acquire(), OK)

        anyio.run(leave, backend="trio")
        anyio.run(use)

    def test_a_permit_that_comes_back_without_an_event_loop_is_ignored(self) -> None:
        """If the garbage collector ends a request whose event loop was closed, that raises nothing."""
        limiter = AdaptiveLimiter()

        async def leave() -> Permit:
            return await limiter.acquire()

        permit = asyncio.run(leave())
        limiter.release(permit, Feedback())

    def test_tasks_of_a_closed_event_loop_end_unnoticed(self) -> None:
        """A task of a closed event loop that is ended later, by the garbage collector, changes nothing."""
        limiter = AdaptiveLimiter(max_in_flight=1)

        async def hold() -> None:
            permit = await limiter.acquire()
            try:
                await asyncio.Event().wait()
            finally:
                limiter.release(permit, OK)

        async def wait() -> None:
            await limiter.acquire(again=True)

        def run_a_little(*coroutines: Coroutine[Any, Any, None]) -> None:
            loop = asyncio.new_event_loop()
            tasks = [loop.create_task(coroutine) for coroutine in coroutines]
            loop.run_until_complete(asyncio.wait(tasks, timeout=0.01))
            loop.close()
            for task in tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # they are left on purpose

        async def use() -> None:
            first = await limiter.acquire()
            for coroutine in left:
                with suppress(RuntimeError):  # anyio: the scope of a wait is left in another task
                    coroutine.close()
            assert limiter.snapshot().in_flight == 1
            limiter.release(first, OK)
            limiter.release(await limiter.acquire(again=True), OK)

        left = [hold(), wait()]
        run_a_little(*left)
        anyio.run(use)
