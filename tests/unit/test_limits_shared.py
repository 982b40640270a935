"""Limiters of several processes that share one log, each in its own ways."""

import logging
import math
import pickle
from itertools import pairwise
from typing import Any

import anyio
import pytest

from commenda_customers import AsyncCustomersAPI, Feedback, RateLimiter, RateLimitError
from commenda_customers.limits._shared import SharedLimiter
from commenda_customers.testing import Emulator
from emulated import connected
from memory_log import MemoryLog, Store

pytestmark = pytest.mark.anyio

OK, FAILED = Feedback(is_answered=True), Feedback(is_failed=True)
REFUSED = Feedback(is_answered=True, is_throttled=True)
NAME = "commenda_customers.limits"


def limiter_of(store: Store, delay: float = 0.001, **options: Any) -> SharedLimiter:
    """Return the limiter of a process."""
    return SharedLimiter(MemoryLog(store, delay), name="prod", **options)


def log_of(limiter: SharedLimiter) -> MemoryLog:
    """Return its way to the log."""
    assert isinstance(limiter._log, MemoryLog)
    return limiter._log


def rate_of(limiter: SharedLimiter) -> float:
    """Return its part of the rate."""
    return limiter.snapshot().rate or math.inf


async def use(limiter: SharedLimiter, feedback: Feedback = OK, *, seconds: float = 0.0) -> None:
    """Send a request."""
    permit = await limiter.acquire()
    try:
        await anyio.sleep(seconds)
    finally:
        limiter.release(permit, feedback)


async def keep_using(limiter: SharedLimiter, seconds: float = 0.01, begun: list[float] | None = None) -> None:
    """Send a request after the other for ever."""
    while True:
        await use(limiter, seconds=seconds)
        if begun is not None:
            begun.append(anyio.current_time())


async def teach(limiter: SharedLimiter, requests: int = 30) -> None:
    """Let all learn a rate, from one process."""
    for _ in range(requests):
        await use(limiter, seconds=0.02)
    while limiter.snapshot().rate is None:
        await use(limiter, REFUSED)
        await anyio.sleep(0.1)
    await anyio.sleep(1.1)


async def agree(*limiters: SharedLimiter) -> bool:
    """Return whether all know the same, once each has read what the others have written."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(1.5)
    first = limiters[0]._pacer.controller
    return all(limiter._is_shared and limiter._pacer.controller == first for limiter in limiters)


class TestSharing:
    """What one process learns holds for all."""

    async def test_all_learn_what_one_learns(self) -> None:
        """The others know the rate within a second, and it is divided. A newcomer knows it at once."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other:
            assert repr(one) == "<SharedLimiter 'prod', no limit known, shared with 0 other processes>"
            await teach(one)
            assert await agree(one, other)
            assert rate_of(one) + rate_of(other) == pytest.approx(one._pacer.controller.present_rate, rel=0.4)
            assert "shared with 1 other process>" in repr(other)
            await anyio.sleep(1.1)
            async with limiter_of(store) as newcomer:
                assert newcomer._pacer.controller == one._pacer.controller
                assert "shared with 2 other processes>" in repr(newcomer)

    async def test_leaving_gives_the_share_back(self) -> None:
        """One second later the others use what a process has left behind."""
        store = Store()
        async with limiter_of(store) as one:
            async with limiter_of(store) as other, anyio.create_task_group() as tasks:
                await teach(one)
                for limiter in (one, other):
                    for _ in range(4):
                        tasks.start_soon(keep_using, limiter)
                await anyio.sleep(3)
                assert 0.4 < rate_of(one) / one._pacer.controller.present_rate < 0.6
                tasks.cancel_scope.cancel()
            await use(one)
            await anyio.sleep(1)
            assert rate_of(one) == pytest.approx(one._pacer.controller.present_rate)
            assert "shared with 0 other" in repr(one)

    async def test_an_idle_process_leaves_its_part_to_the_others(self) -> None:
        """It gets its fair part within a beat as soon as it wants something."""
        store = Store()
        async with limiter_of(store) as busy, limiter_of(store) as idle, anyio.create_task_group() as tasks:
            await teach(busy)
            for _ in range(8):
                tasks.start_soon(keep_using, busy)
            await anyio.sleep(5)
            whole = busy._pacer.controller.present_rate
            assert rate_of(busy) > 0.85 * whole
            for _ in range(50):
                tasks.start_soon(keep_using, idle)
            await anyio.sleep(0.6)
            assert rate_of(idle) / busy._pacer.controller.present_rate > 0.4
            tasks.cancel_scope.cancel()

    @pytest.mark.parametrize("seconds", [0.001, 1.5])
    async def test_one_probe_finds_out_for_all(self, seconds: float) -> None:
        """While the server takes nothing, the others wait for what the request of one process finds out."""
        store, probes = Store(), list[float]()

        async def probe(limiter: SharedLimiter) -> None:
            while True:
                permit = await limiter.acquire()
                probes.append(anyio.current_time())
                await anyio.sleep(seconds)
                limiter.release(permit, FAILED)

        async with anyio.create_task_group() as tasks, limiter_of(store) as one, limiter_of(store) as other:
            await use(one)
            await use(other)
            for limiter in (one, other, one, other):
                tasks.start_soon(probe, limiter)
            await anyio.sleep(20)
            probes.clear()
            await anyio.sleep(120)
            alone = sum(later - earlier > 3.9 for earlier, later in pairwise(probes))
            assert alone >= 19
            assert len(probes) <= 1.25 * alone  # two may begin before either has heard of the other
            tasks.cancel_scope.cancel()

    async def test_a_probe_that_hangs_blocks_nobody_for_long(self) -> None:
        """After four seconds, another process finds out."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other:
            await use(one)
            while not one.snapshot().is_half_open:
                await use(one, FAILED)
            await anyio.sleep(0.05)
            hanging = await one.acquire()
            await anyio.sleep(1.5)
            began = anyio.current_time()
            await use(other)
            assert 1.5 < anyio.current_time() - began < 4.5
            one.release(hanging, Feedback())

    async def test_a_quota_that_is_used_up_pauses_all(self) -> None:
        """A response that says that nothing remains is heard by all."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other:
            await use(one, Feedback(is_answered=True, remaining=30))
            for left in range(29, -1, -1):
                await use(one, Feedback(is_answered=True, remaining=left), seconds=0.02)
            assert await agree(one, other)
            assert other._pacer.controller.lesson_at > 0


class TestNotices:
    """Who learns a lesson notifies the others. Without notices, they hear of it at their next beat."""

    async def seconds_until_heard(self, store: Store) -> float:
        """Return how long after a lesson of one process another one pauses, on average of twenty."""
        async with limiter_of(store) as one, limiter_of(store) as other:
            await teach(one)
            seconds = 0.0
            for number in range(20):
                await anyio.sleep(1.1 + 0.013 * number)
                lesson_at = one._pacer.controller.lesson_at
                while one._pacer.controller.lesson_at == lesson_at:
                    await use(one, REFUSED)
                began = anyio.current_time()
                while other._pacer.controller.lesson_at == lesson_at:
                    await anyio.sleep(0.001)
                seconds += anyio.current_time() - began
            return seconds / 20

    async def test_a_lesson_is_heard_of_at_once(self) -> None:
        """The others pause within some milliseconds."""
        assert await self.seconds_until_heard(Store()) < 0.01

    async def test_the_log_that_sends_none(self) -> None:
        """They pause within a beat."""
        store = Store()
        store.sends_notices = False
        assert 0.01 < await self.seconds_until_heard(store) < 0.26

    async def test_a_log_whose_notices_never_end(self) -> None:
        """It costs ten exchanges per second, not all the time of the process."""
        store = Store()
        async with limiter_of(store) as limiter:
            log_of(limiter).is_noisy = True
            await use(limiter)
            store.ring()
            log_of(limiter).called.clear()
            await anyio.sleep(10)
            assert 80 < log_of(limiter).called.count("exchange") < 120

    async def test_only_who_causes_a_lesson_sends_one(self) -> None:
        """Other exchanges send no notice. A process that is alone sends none either."""
        store = Store()
        async with limiter_of(store) as one:
            await teach(one)
            assert "notify" not in log_of(one).called
            async with limiter_of(store) as other:
                for limiter in (one, other) * 20:
                    await use(limiter, seconds=0.1)
                assert "notify" not in log_of(one).called
                lesson_at = one._pacer.controller.lesson_at
                while one._pacer.controller.lesson_at == lesson_at:
                    await use(one, REFUSED)
                await anyio.sleep(1.1)
                assert "notify" in log_of(one).called
                assert "notify" not in log_of(other).called

    async def test_a_notice_that_cannot_be_sent(self, caplog: pytest.LogCaptureFixture) -> None:
        """The others hear of the lesson within a beat, and no process goes alone."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other:
            log_of(one).fails.add("notify")
            await teach(one)
            assert "notify" in log_of(one).called
            assert log_of(one).called.count("read") == 1  # when it joined
            assert await agree(one, other)
        assert caplog.records == []

    async def test_a_log_that_cannot_send_any(self, caplog: pytest.LogCaptureFixture) -> None:
        """The limit is shared nevertheless, and nothing is said. From time to time it is tried again."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other:
            for limiter in (one, other):
                log_of(limiter).fails.add("wait_for_notice")
            store.ring()
            await teach(one)
            log_of(one).called.clear()
            await anyio.sleep(60)
            assert await agree(one, other)
            assert 10 < log_of(one).called.count("wait_for_notice") < 30
        assert caplog.records == []


class TestOutages:
    """The log cannot be used for a while. Requests do not notice."""

    async def test_unavailable_at_the_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """Requests begin at once, one warning says so, and one line that it is over."""
        caplog.set_level(logging.INFO, NAME)
        store = Store()
        store.is_refusing = True
        async with limiter_of(store) as limiter:
            began = anyio.current_time()
            for _ in range(4):
                await use(limiter)
            assert anyio.current_time() == began
            assert repr(limiter) == "<SharedLimiter 'prod', no limit known, alone>"
            await anyio.sleep(60)
            store.is_refusing = False
            await anyio.sleep(5)
            assert "shared with" in repr(limiter)
        assert [(record.levelname, record.message) for record in caplog.records] == [
            ("WARNING", "rate limit of prod: not shared with other processes for now: the connection was refused"),
            ("INFO", "rate limit of prod: shared with other processes again"),
        ]

    @pytest.mark.parametrize("trouble", ["is_refusing", "is_away"])
    async def test_lost_in_the_middle(self, trouble: str, caplog: pytest.LogCaptureFixture) -> None:
        """Each goes on with its part of the rate. One warning for each outage, and one line when it is over."""
        caplog.set_level(logging.INFO, NAME)
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other, anyio.create_task_group() as tasks:
            await teach(one)
            whole = one._pacer.controller.rate
            begun: list[float] = []
            for limiter in (one, other):
                for _ in range(4):
                    tasks.start_soon(keep_using, limiter, 0.01, begun)
            await anyio.sleep(1)
            setattr(store, trouble, True)
            await anyio.sleep(2.5)
            assert "alone" in repr(one)
            assert "alone" in repr(other)
            assert one._pacer.controller.rate + other._pacer.controller.rate == pytest.approx(whole, rel=0.3)
            begun.clear()
            await anyio.sleep(1)
            assert len(begun) > 0.6 * whole
            setattr(store, trouble, False)
            await anyio.sleep(7)
            assert "shared with 1 other" in repr(one)
            tasks.cancel_scope.cancel()
        assert sorted(record.levelname for record in caplog.records) == ["INFO"] * 2 + ["WARNING"] * 2

    @pytest.mark.parametrize("seconds", [0.5, 2.0, 3.0, 3.5, 4.0, 5.0, 20.0])
    async def test_the_rate_is_the_same_afterwards(self, seconds: float) -> None:
        """However long the outage was, what all know together is what they knew before."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other:
            await teach(one)
            whole = one._pacer.controller.rate
            for limiter in (one, other):
                limiter._pacer.part.share = 0.5
                limiter._others_want = [1e6]  # so that each believes that half is its part
            store.is_refusing = True
            await anyio.sleep(seconds)
            store.is_refusing = False
            await anyio.sleep(6)
            assert one._pacer.controller == other._pacer.controller
            assert 0.5 * whole <= one._pacer.controller.rate <= 1.5 * whole

    async def test_a_log_that_was_emptied(self, caplog: pytest.LogCaptureFixture) -> None:
        """All join again, and bring what they know."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other, anyio.create_task_group() as tasks:
            await teach(one)
            for limiter in (one, other):
                for _ in range(4):
                    tasks.start_soon(keep_using, limiter)
            await anyio.sleep(2)
            whole = one._pacer.controller.present_rate
            store.clear()
            await anyio.sleep(0.5)
            assert one._pacer.controller.rate == pytest.approx(whole, rel=0.2)
            tasks.cancel_scope.cancel()
            assert await agree(one, other)
        assert caplog.records == []

    async def test_a_log_that_keeps_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        """A process that can never read what it has missed goes on alone, and says so once."""
        caplog.set_level(logging.INFO, NAME)
        store = Store()
        async with limiter_of(store) as limiter, anyio.create_task_group() as tasks:
            tasks.start_soon(keep_using, limiter, 0.05)
            await anyio.sleep(1)
            store.clear()
            store.kept = 0
            await anyio.sleep(10)
            assert "alone" in repr(limiter)
            tasks.cancel_scope.cancel()
        assert [(record.levelname, record.message.rpartition(": ")[2]) for record in caplog.records] == [
            ("WARNING", "the shared log has lost entries")
        ]

    @pytest.mark.parametrize("by", [-3600.0, -5.0, -3.0, 3.0, 3600.0])
    async def test_its_clock_is_set(self, by: float) -> None:
        """Whatever the clock of the log does, requests go on, and all know the same afterwards."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other, anyio.create_task_group() as tasks:
            await teach(one)
            begun: list[float] = []
            for limiter in (one, other):
                for _ in range(4):
                    tasks.start_soon(keep_using, limiter, 0.01, begun)
            await anyio.sleep(2)
            store.ahead += by
            begun.clear()
            await anyio.sleep(8)
            assert max(later - earlier for earlier, later in pairwise(begun)) < 4.5
            assert one.snapshot().paused_for == other.snapshot().paused_for == 0
            tasks.cancel_scope.cancel()
            assert await agree(one, other)
            assert one._pacer.controller.is_limited

    async def test_a_message_that_comes_late(self) -> None:
        """One that was written before an outage, and delivered after it, changes nothing."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other:
            await teach(one)
            log = log_of(other)
            log.is_holding = True
            for _ in range(6):
                await use(other, REFUSED)
            await anyio.sleep(6)
            rate = one._pacer.controller.rate
            log.is_holding = False
            assert log.held
            log.deliver()
            await anyio.sleep(0.3)
            assert one._pacer.controller.rate == rate
            assert one._pacer.controller.strikes <= 1


class TestTheBlock:
    """Entering and leaving."""

    async def test_a_log_that_will_never_work(self) -> None:
        """The error comes out of `async with` as it is, nothing stays open, and the limiter can be entered later."""
        limiter = limiter_of(Store())
        log = log_of(limiter)
        log.failure = ValueError("url: wrong password")
        with pytest.raises(ValueError, match=r"^url: wrong password$"):
            async with limiter:
                pytest.fail("it was entered")
        assert not log.is_open
        log.failure = None
        async with limiter:
            await use(limiter)
        assert not log.is_open

    async def test_it_works_only_inside_of_the_block(self) -> None:
        """Before and after, a request gets an error that says what to do."""
        limiter = limiter_of(Store())
        for _ in range(2):
            await limiter.__aexit__(None, None, None)
            with pytest.raises(RuntimeError, match=r"use it inside `async with SharedLimiter\(\.\.\.\) as limiter:`$"):
                await limiter.acquire()
            async with limiter as entered:
                assert entered is limiter
                await use(limiter)
                with pytest.raises(RuntimeError, match="in use already"):
                    await limiter.__aenter__()
                await use(limiter)

    async def test_an_exception_comes_out_as_itself(self) -> None:
        """It is in no group."""
        limiter = limiter_of(Store())
        with pytest.raises(KeyError, match="ours"):
            async with limiter:
                raise KeyError("ours")
        assert not log_of(limiter).is_open

    async def test_a_deadline_around_the_block(self) -> None:
        """It ends the block as any other, and the process leaves."""
        store = Store()
        async with limiter_of(store) as other:
            with anyio.move_on_after(2) as scope:
                async with limiter_of(store) as limiter:
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
            assert not log_of(limiter).is_open
            await anyio.sleep(1.1)
            assert "shared with 0" in repr(other)

    @pytest.mark.parametrize("call", ["open", "read", "exchange", "save"])
    async def test_a_log_that_hangs_keeps_nobody(self, call: str) -> None:
        """Whatever call never returns, a program can leave within a second."""
        limiter = limiter_of(Store())
        if call in {"exchange", "save"}:
            async with limiter:
                log_of(limiter).hangs.add(call)
                await anyio.sleep(3)
                began = anyio.current_time()
        else:
            log_of(limiter).hangs.add(call)
            with anyio.move_on_after(3):
                async with limiter:
                    pytest.fail("it was entered")
            began = anyio.current_time()
        assert anyio.current_time() - began <= 1.1
        assert not log_of(limiter).is_open

    def test_it_cannot_be_copied(self) -> None:
        """A copy in another process would share its connection."""
        with pytest.raises(TypeError, match="cannot be pickled or copied; make a limiter where it is used"):
            pickle.dumps(limiter_of(Store()))


class TestAsALimiter:
    """It does what every limiter does."""

    async def test_the_client_takes_it(self) -> None:
        """Customers come as with any other."""
        assert isinstance(limiter_of(Store()), RateLimiter)
        server = Emulator({"corp_1": 250})
        async with limiter_of(Store()) as limiter, connected(server, rate_limit=limiter) as api:
            assert isinstance(api, AsyncCustomersAPI)
            assert len([customer async for customer in api.list("corp_1", limit=50)]) == 250
            assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0

    async def test_what_it_says_is_its_part(self) -> None:
        """The rate, the wait and `max_wait` are those of this process, also for other threads."""
        store = Store()
        async with limiter_of(store) as one, limiter_of(store) as other, anyio.create_task_group() as tasks:
            await teach(one)
            for limiter in (one, other):
                for _ in range(60):
                    tasks.start_soon(keep_using, limiter)
            await anyio.sleep(2)
            whole = one._pacer.controller.present_rate
            assert rate_of(one) == pytest.approx(whole / 2, rel=0.1)
            waiting = one.snapshot().waiting
            assert one.estimate_wait() == pytest.approx(waiting / rate_of(one), rel=0.1)
            assert f"{rate_of(one):.3g} requests per second" in repr(one)
            with pytest.raises(RateLimitError) as caught:
                await one.acquire(max_wait=0.01)
            assert caught.value.retry_after == pytest.approx(waiting / rate_of(one), rel=0.1)
            tasks.cancel_scope.cancel()

    async def test_a_burst_of_an_idle_process_is_not_refused(self) -> None:
        """While another process uses the rate, ten requests that may wait three seconds come at once."""
        store = Store()
        async with limiter_of(store) as busy, limiter_of(store) as idle, anyio.create_task_group() as tasks:
            await teach(busy)
            for _ in range(60):
                tasks.start_soon(keep_using, busy)
            await anyio.sleep(5)
            assert rate_of(idle) < 3

            async def ask() -> None:
                idle.release(await idle.acquire(max_wait=3.0), OK)

            async with anyio.create_task_group() as burst:
                for _ in range(10):
                    burst.start_soon(ask)
            tasks.cancel_scope.cancel()

    async def test_who_looks_changes_nothing(self) -> None:
        """Any thread may look how long a request would wait. That tells the others nothing."""
        store = Store()
        async with limiter_of(store) as limiter:
            await teach(limiter)
            await anyio.sleep(5)
            before = len(store.entries)
            for _ in range(20):
                assert limiter.estimate_wait() == 0
                await anyio.sleep(0.05)
            assert len(store.entries) - before <= 2
