"""The requests of a client at its limiter: permits, attempts, deadlines."""

from typing import Any

import anyio
import httpx
import pytest

from commenda_customers import (
    APITimeoutError,
    AsyncCustomersAPI,
    Feedback,
    FixedRate,
    Permit,
    RateLimitError,
    RetryPolicy,
    ServerError,
)
from raw_server import listing
from script import GOOD, Script, hang, status

pytestmark = pytest.mark.anyio


async def _first_page(api: AsyncCustomersAPI) -> None:
    assert len(await api.list("corp_1")) == 1


class TestLimiter:
    """What a limiter makes of the requests of a client."""

    async def test_refusals_use_up_no_attempts(self) -> None:
        """However often a request is refused for its rate, the deadline ends it, not the number of attempts."""
        script = Script(*[status(429)] * 12, status(503), GOOD)
        async with script.api(retry=RetryPolicy(max_attempts=2)) as api:
            assert len(await api.list("corp_1")) == 1
        script = Script(*[status(429)] * 60)
        async with script.api(retry=RetryPolicy(max_attempts=2, deadline=100)) as api:
            with pytest.raises((RateLimitError, APITimeoutError)) as caught:
                await api.list("corp_1")
        assert 80 <= script.times[-1] - script.times[0] <= 100
        assert caught.value.attempts > 5

    async def test_the_deadline_runs_while_a_retry_waits_for_its_turn(self) -> None:
        """Only the first turn is waited for without an end. Whatever an attempt failed of, the next one counts."""
        script = Script(*[status(500)] * 60)
        async with script.api(rate_limit=FixedRate(1, per=20), retry=RetryPolicy(max_attempts=None, deadline=50)) as api:
            with pytest.raises((ServerError, APITimeoutError)):
                await api.list("corp_1")
        assert len(script.times) == 3

    async def test_without_a_limiter_they_do(self) -> None:
        """With `rate_limit=None` a 429 is a failed attempt like any other."""
        script = Script(status(429), status(429))
        async with script.api(retry=RetryPolicy(max_attempts=2), rate_limit=None) as api:
            assert api.rate_limit is None
            with pytest.raises(RateLimitError):
                await api.list("corp_1")

    async def test_a_handler_of_web_requests_can_fail_fast(self) -> None:
        """With `max_wait` a page that would have to wait is refused at once, with the wait, and without a request."""
        script = Script(GOOD)
        async with script.api(rate_limit=FixedRate(1, per=60)) as api:
            await api.list("corp_1", max_wait=1)
            began = anyio.current_time()
            with pytest.raises(RateLimitError, match="more than max_wait, 1 s .*corporation 'corp_1'") as caught:
                await api.list("corp_1", max_wait=1)
        assert anyio.current_time() == began
        assert (caught.value.attempts, caught.value.status_code) == (0, None)
        assert caught.value.retry_after == pytest.approx(60)

    @pytest.mark.parametrize("rate_limit", [5, "fast", FixedRate], ids=repr)
    async def test_what_is_no_limiter_is_refused(self, rate_limit: Any) -> None:
        """Anything that has not the methods of a limiter is refused by name."""
        with pytest.raises(TypeError, match="rate_limit"):
            Script().api(rate_limit=rate_limit)

    async def test_one_limiter_may_serve_several_clients(self) -> None:
        """Clients that share a token share its limit, if they are given the same limiter."""
        script, limiter = Script(*[httpx.Response(200, json=listing("a"))] * 6), FixedRate(2)
        async with (
            script.api(rate_limit=limiter) as first,
            script.api(rate_limit=limiter) as second,
            anyio.create_task_group() as tasks,
        ):
            for api in (first, second) * 3:
                tasks.start_soon(_first_page, api)
        assert [round(at - script.times[0]) for at in script.times] == [0, 0, 1, 1, 2, 2]

    async def test_waiting_for_the_first_turn_is_not_against_the_deadline(self) -> None:
        """However long the queue at the limiter is, the deadline counts from when a request may first be sent."""
        script = Script(*[httpx.Response(200, json=listing("a"))] * 30)
        async with (
            script.api(rate_limit=FixedRate(1), retry=RetryPolicy(deadline=5)) as api,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(30):
                tasks.start_soon(_first_page, api)
        assert script.times[-1] - script.times[0] == pytest.approx(29)

    async def test_a_pause_that_outlasts_the_deadline_is_not_begun(self) -> None:
        """If another request's 429 has paused everyone for longer than there is time, the error comes now, and is a 429."""

        async def later(_request: httpx.Request) -> httpx.Response:
            await anyio.sleep(0.2)
            return status(429)

        script = Script(later, status(429, retry_after="100"))
        async with script.api(retry=RetryPolicy(deadline=30)) as api, anyio.create_task_group() as tasks:

            async def fail() -> None:
                with pytest.raises(RateLimitError):
                    await api.list("corp_1")

            tasks.start_soon(fail)
            tasks.start_soon(fail)
            with anyio.fail_after(1):
                while len(script.requests) < 2 or api.rate_limit.snapshot().in_flight:
                    await anyio.sleep(0.1)

    async def test_a_limiter_that_does_not_pause_makes_no_storm(self) -> None:
        """With a limiter of the program's own that learns nothing from a 429, the retry policy waits and counts."""

        class Careless(FixedRate):
            def release(self, permit: Permit, feedback: Feedback) -> None:
                super().release(permit, Feedback(is_answered=feedback.is_answered))

        script = Script(*[status(429) for _ in range(5)])
        async with script.api(rate_limit=Careless(1000), retry=RetryPolicy(max_attempts=5)) as api:
            with pytest.raises(RateLimitError) as caught:
                await api.list("corp_1")
        assert caught.value.attempts == 5
        assert script.times[-1] > script.times[0]

    async def test_a_cancelled_request_leaves_nothing_under_way(self) -> None:
        """Whether a request was waiting or being answered when it was cancelled, the limiter knows that it is over."""
        script = Script(hang, GOOD, GOOD)
        async with script.api(rate_limit=FixedRate(1, per=10)) as api:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_first_page, api)
                tasks.start_soon(_first_page, api)
                await anyio.sleep(5)
                tasks.cancel_scope.cancel()
            assert api.rate_limit is not None
            snapshot = api.rate_limit.snapshot()
            assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
            await api.list("corp_1")
