"""Calls that are retried, with the waits of a policy."""

import anyio
import pytest

from commenda_customers import APIConnectionError, APITimeoutError, CustomersError, RateLimitError, RetryPolicy
from commenda_customers._attempt import Attempt
from retries import FAULT, retried, throttled


@pytest.mark.anyio
class TestCalls:
    """Attempts, waits, deadlines; hours pass in milliseconds."""

    async def test_it_retries_until_success(self) -> None:
        """Attempts are numbered from one, and each failure is reported with its wait."""
        seen: list[tuple[CustomersError, float]] = []

        async def call(attempt: Attempt) -> str:
            if attempt.number < 4:
                raise throttled(10 * attempt.number)
            return f"attempt {attempt.number}"

        began = anyio.current_time()
        result = await retried(call, RetryPolicy(), on_retry=lambda _attempt, error, wait: seen.append((error, wait)))
        assert result == "attempt 4"
        assert [error.retry_after for error, _ in seen] == [10, 20, 30]
        assert anyio.current_time() - began == pytest.approx(sum(wait for _, wait in seen))

    async def test_the_last_error_is_raised_as_itself(self) -> None:
        """When attempts run out, what is raised is the very error of the last attempt."""
        raised: list[CustomersError] = []

        async def call(attempt: Attempt) -> None:
            raised.append(APIConnectionError(f"failure {attempt.number}", transient=True))
            raise raised[-1]

        with pytest.raises(APIConnectionError) as caught:
            await retried(call, RetryPolicy(max_attempts=3))
        assert caught.value is raised[2]

    async def test_other_exceptions_pass(self) -> None:
        """An exception of another kind is neither retried nor changed."""
        calls: list[int] = []

        async def call(attempt: Attempt) -> None:
            calls.append(attempt.number)
            raise KeyError("user's own")

        with pytest.raises(KeyError, match="user's own"):
            await retried(call, RetryPolicy())
        assert calls == [1]

    async def test_the_deadline_cuts_a_running_attempt(self) -> None:
        """The deadline ends a running attempt, and the error tells the one before it."""

        async def call(attempt: Attempt) -> None:
            attempt.was_sent = True
            if attempt.number == 1:
                error = throttled(20)
                error.status_code, error.request_id, error.body_excerpt = 429, "r-1", "why"
                raise error
            await anyio.sleep(3600)

        began = anyio.current_time()
        with pytest.raises(APITimeoutError, match="deadline of 60 s; before that: slow down") as caught:
            await retried(call, RetryPolicy(deadline=60))
        assert anyio.current_time() - began == pytest.approx(60)
        assert isinstance(caught.value.__cause__, RateLimitError)
        assert (caught.value.attempts, caught.value.retry_after, caught.value.transient) == (2, 20, True)
        assert (caught.value.status_code, caught.value.request_id, caught.value.body_excerpt) == (429, "r-1", "why")

    async def test_the_deadline_can_be_suspended(self) -> None:
        """Time for which the deadline is suspended counts neither for it nor as elapsed."""
        elapsed: list[float] = []

        async def call(attempt: Attempt) -> str:
            with attempt.deadline.suspended():
                await anyio.sleep(1000)
            await anyio.sleep(20)
            elapsed.append(attempt.deadline.elapsed)
            if attempt.number == 1:
                raise throttled(10)
            return "done"

        assert await retried(call, RetryPolicy(deadline=60)) == "done"
        assert elapsed[0] == pytest.approx(20)
        assert 50 <= elapsed[1] <= 50.5

    async def test_a_suspended_deadline_resumes(self) -> None:
        """A deadline is as far away after a suspension as before."""

        async def call(attempt: Attempt) -> None:
            await anyio.sleep(20)
            with attempt.deadline.suspended():
                await anyio.sleep(1000)
            await anyio.sleep_forever()

        began = anyio.current_time()
        with pytest.raises(APITimeoutError):
            await retried(call, RetryPolicy(deadline=60))
        assert anyio.current_time() - began == pytest.approx(1060)

    async def test_a_wait_past_the_deadline_is_not_begun(self) -> None:
        """The error is raised now if the next attempt could only come after the deadline."""

        async def call(_attempt: Attempt) -> None:
            raise throttled(61)

        began = anyio.current_time()
        with pytest.raises(RateLimitError):
            await retried(call, RetryPolicy(deadline=60))
        assert anyio.current_time() == began

    async def test_the_deadline_may_cut_the_first_attempt(self) -> None:
        """Without an earlier failure the message stands alone."""

        async def call(attempt: Attempt) -> None:
            attempt.was_sent = True
            await anyio.sleep_forever()

        with pytest.raises(APITimeoutError, match=r"deadline of 60 s \[after 1 attempt\]$"):
            await retried(call, RetryPolicy(deadline=60))

    async def test_concurrent_calls_do_not_mix(self) -> None:
        """Concurrent calls through one policy have their own attempts."""
        finished: list[int] = []

        async def call(failures: int) -> None:
            async def call(attempt: Attempt) -> int:
                await anyio.sleep(1)
                if attempt.number <= failures:
                    raise FAULT
                return attempt.number

            finished.append(await retried(call, policy) - failures)

        policy = RetryPolicy()
        async with anyio.create_task_group() as tasks:
            for failures in [0, 1, 2, 3, 4, 5, 6, 7] * 5:
                tasks.start_soon(call, failures)
        assert finished == [1] * 40

    async def test_a_pause_takes_the_place_of_the_wait(self) -> None:
        """A 429 for which a limiter pauses costs neither a wait nor an attempt; one for which it does not costs both."""
        began, waits = anyio.current_time(), list[float]()

        async def call(attempt: Attempt) -> str:
            if attempt.number < 30:
                attempt.paused_for, attempt.is_exempt = pause, pause > 0
                raise RateLimitError("slow down", transient=True)
            return "done"

        pause = 7.0

        def note(_attempt: Attempt, _error: CustomersError, wait: float) -> None:
            waits.append(wait)

        assert await retried(call, RetryPolicy(), on_retry=note) == "done"
        assert anyio.current_time() == began
        assert waits == [7.0] * 29
        pause = 0.0
        with pytest.raises(RateLimitError):
            await retried(call, RetryPolicy(), on_retry=note)
        assert len(waits) == 29 + 7

    @pytest.mark.parametrize(
        ("is_exempt", "paused_for", "is_stale", "waits"),
        [
            (False, 0.0, False, [0.5, 1, 2, 4, 8, 16, 30]),
            (True, 0.0, False, [0.5, 1, 2, 4, 8, 16, 30]),  # a 429 that concerns its request alone
            (True, 7.0, False, [7, 7, 7, 7, 7, 7, 7]),
            (False, 0.0, True, [0, 0, 0, 0.5, 1, 2, 4]),
        ],
    )
    async def test_which_waits_grow(
        self, monkeypatch: pytest.MonkeyPatch, is_exempt: bool, paused_for: float, is_stale: bool, waits: list[float]
    ) -> None:
        """Each wait of the policy is twice the one before, also of attempts that do not count; the others are no step."""
        monkeypatch.setattr("random.random", lambda: 1.0)
        seen = list[float]()

        async def call(attempt: Attempt) -> None:
            if attempt.number > len(waits):
                return
            attempt.is_exempt, attempt.paused_for = is_exempt, paused_for
            error = APIConnectionError("failed", transient=True)
            error.is_stale_connection = is_stale
            raise error

        await retried(call, RetryPolicy(), on_retry=lambda _attempt, _error, wait: seen.append(wait))
        assert seen == waits

    async def test_a_pause_is_no_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pauses of the limiter between two waits of the policy do not make the second longer than twice the first."""
        monkeypatch.setattr("random.random", lambda: 1.0)
        seen = list[float]()

        async def call(attempt: Attempt) -> None:
            if attempt.number > 4:
                return
            attempt.is_exempt, attempt.paused_for = True, 3.0 * (attempt.number in (2, 3))
            raise FAULT

        await retried(call, RetryPolicy(), on_retry=lambda _attempt, _error, wait: seen.append(wait))
        assert seen == [0.5, 3, 3, 1]

    async def test_an_attempt_knows_how_long_the_request_fails(self) -> None:
        """What an attempt has learned of its permit and of its failures is known to the next one."""

        async def call(attempt: Attempt) -> tuple[bool, float, float]:
            if attempt.number == 1:
                attempt.had_permit, attempt.failing_since, attempt.failed_at = True, 1.0, 2.0
                attempt.paused_for, attempt.is_exempt = 3.0, True
                raise FAULT
            assert (attempt.paused_for, attempt.is_exempt) == (0.0, False)
            return attempt.had_permit, attempt.failing_since, attempt.failed_at

        assert await retried(call, RetryPolicy()) == (True, 1.0, 2.0)

    async def test_a_wait_beyond_the_pause_is_kept(self) -> None:
        """The wait that the server asks for is kept, even where the limiter pauses for less."""
        began, asked = anyio.current_time(), 48 * 3600.0

        async def call(attempt: Attempt) -> None:
            if attempt.number == 1:
                attempt.paused_for = 100.0
                raise throttled(asked)

        await retried(call, RetryPolicy(deadline=None, max_retry_after=None))
        assert anyio.current_time() - began == pytest.approx(asked - 100)

    async def test_a_short_pause_is_kept_near_the_deadline(self) -> None:
        """A page is not given up near the deadline for a wait that it need not make."""

        async def call(attempt: Attempt) -> str:
            if attempt.number == 1:
                attempt.paused_for = 0.1
                raise RateLimitError("slow down", transient=True)
            return "done"

        for _ in range(50):
            assert await retried(call, RetryPolicy(deadline=1)) == "done"

    async def test_a_pause_past_the_deadline_is_not_begun(self) -> None:
        """The error is raised now if the pause is longer than the time that is left."""

        async def call(attempt: Attempt) -> None:
            attempt.paused_for = 60.0
            raise RateLimitError("slow down", transient=True)

        began = anyio.current_time()
        with pytest.raises(RateLimitError):
            await retried(call, RetryPolicy(deadline=60))
        assert anyio.current_time() == began

    async def test_stale_connections_cost_neither_a_wait_nor_an_attempt(self) -> None:
        """A request that met stale connections is sent again at once, up to three times; then the policy decides."""
        stale, waits = APIConnectionError("closed", transient=True), list[float]()
        stale.is_stale_connection = True

        async def call(_attempt: Attempt) -> None:
            raise stale

        with pytest.raises(APIConnectionError):
            await retried(call, RetryPolicy(max_attempts=2), on_retry=lambda _attempt, _error, wait: waits.append(wait))
        assert waits[:3] == [0, 0, 0]
        assert len(waits) == 4


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["attempt", "wait"])
async def test_cancellation_passes_straight_through(when: str) -> None:
    """A cancellation ends a call at once, in an attempt or in a wait."""
    calls: list[int] = []

    async def call(attempt: Attempt) -> None:
        calls.append(attempt.number)
        if when == "wait":
            raise throttled(100)
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01) as scope:
        await retried(call, RetryPolicy())
    assert scope.cancelled_caught
    assert calls == [1]
