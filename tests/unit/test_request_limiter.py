"""The requests of a client at its limiter: permits, attempts, deadlines."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
import h2.errors
import httpx
import pytest

from commenda_customers import (
    AdaptiveLimiter,
    APITimeoutError,
    AsyncCustomersAPI,
    CustomersError,
    Event,
    Feedback,
    FixedRate,
    LimiterSnapshot,
    Permit,
    RateLimitError,
    RetryPolicy,
    ServerError,
)
from raw_server import listing
from script import GOOD, Answer, Script, hang, status

pytestmark = pytest.mark.anyio


async def _first_page(api: AsyncCustomersAPI) -> None:
    assert len(await api.list("corp_1")) == 1


async def closed_while_kept(request: httpx.Request) -> httpx.Response:
    """Fail as the library does if the server closes a connection of an earlier request."""
    await request.extensions["trace"]("http11.send_request_headers.started", {})
    raise httpx.RemoteProtocolError("Server disconnected without sending a response.")


async def not_processed(_request: httpx.Request) -> httpx.Response:
    """Fail as the library does if the server refuses a stream of HTTP/2 without having processed it."""
    # The event of h2 itself takes other arguments in each version.
    raise httpx.RemoteProtocolError(SimpleNamespace(stream_id=1, error_code=h2.errors.ErrorCodes.REFUSED_STREAM))


class Says(FixedRate):
    """A limiter that says what a test wants, and takes note of what it is told."""

    def __init__(self, *, is_half_open: bool = False, has_succeeded: bool = False, paused_for: float = 0.0) -> None:
        super().__init__(1000)
        self.says: dict[str, Any] = {"is_half_open": is_half_open, "paused_for": paused_for}
        self.has_succeeded = has_succeeded
        self.told: list[Feedback] = []
        self.told_at: list[float] = []

    def release(self, permit: Permit, feedback: Feedback) -> None:
        super().release(permit, Feedback())
        self.told.append(feedback)
        self.told_at.append(anyio.current_time())

    def snapshot(self) -> LimiterSnapshot:
        succeeded_at = anyio.current_time() if self.has_succeeded else -math.inf
        return replace(super().snapshot(), succeeded_at=succeeded_at, **self.says)


class TestOutages:
    """What a request makes of what its limiter knows."""

    @pytest.mark.parametrize(
        ("is_half_open", "has_succeeded", "least", "most"), [(False, False, 3, 3), (True, False, 6, 99), (True, True, 4, 4)]
    )
    @pytest.mark.parametrize("fault", [status(500), status(503), httpx.ConnectError("refused")], ids=repr)
    async def test_only_an_outage_uses_no_attempts(
        self, fault: Answer, is_half_open: bool, has_succeeded: bool, least: int, most: int
    ) -> None:
        """Attempts count unless the server takes nothing, and also then from the moment on that others succeed."""
        limiter = Says(is_half_open=is_half_open, has_succeeded=has_succeeded)
        script = Script(*[fault] * 100)
        async with script.api(rate_limit=limiter, retry=RetryPolicy(max_attempts=3, deadline=100)) as api:
            with pytest.raises(CustomersError):
                await api.list("corp_1")
        assert least <= len(script.times) <= most

    @pytest.mark.parametrize("fault", [status(500), status(503), status(429), httpx.ConnectError("refused")], ids=repr)
    async def test_a_limiter_is_told_how_long_a_request_fails(self, fault: Answer) -> None:
        """The first failure is the first; the next attempts say when it was."""
        limiter, script = Says(), Script(fault, fault, fault, GOOD)
        async with script.api(rate_limit=limiter) as api:
            await api.list("corp_1")
        assert [feedback.failing_since for feedback in limiter.told] == [math.inf, *[limiter.told_at[0]] * 3]

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (status(500), Feedback(is_answered=True, is_failed=True)),
            (status(503), Feedback(is_answered=True, is_rejected=True)),
            (status(429, retry_after="2"), Feedback(is_answered=True, is_throttled=True, wait=2.0)),
            (status(503, retry_after="2"), Feedback(is_answered=True, is_throttled=True, wait=2.0)),
            (httpx.ConnectError("refused"), Feedback(is_rejected=True)),
            (httpx.ReadTimeout("slow"), Feedback(is_failed=True)),
        ],
        ids=repr,
    )
    async def test_a_limiter_is_told_what_failed(self, fault: Answer, told: Feedback) -> None:
        """A refusal, what may be one, and any other failure are told apart."""
        limiter = Says()
        async with Script(fault, GOOD).api(rate_limit=limiter) as api:
            await api.list("corp_1")
        assert limiter.told[0] == told

    @pytest.mark.parametrize("lost", [closed_while_kept, not_processed])
    @pytest.mark.parametrize(
        ("resends", "told"),
        [
            ([], [Feedback(), Feedback(is_answered=True)]),
            ([httpx.ConnectError("refused")], [Feedback(), Feedback(is_rejected=True), Feedback(is_answered=True)]),
            ([closed_while_kept], [Feedback(), Feedback(is_rejected=True), Feedback(is_answered=True)]),
            ([not_processed], [Feedback(), Feedback(is_rejected=True), Feedback(is_answered=True)]),
        ],
        ids=["then works", "then is refused", "then is closed", "then is not processed"],
    )
    async def test_one_request_that_is_lost_says_nothing(
        self, lost: Answer, resends: list[Answer], told: list[Feedback]
    ) -> None:
        """A server that restarts ends connections and streams. A limiter learns from it only if the resend fails as well."""
        limiter = Says()
        async with Script(lost, *resends, GOOD).api(rate_limit=limiter) as api:
            await api.list("corp_1")
        assert [replace(feedback, failing_since=math.inf) for feedback in limiter.told] == told

    async def test_a_pause_of_the_limiter_is_no_wait_of_the_policy(self) -> None:
        """If the limiter holds the next attempt back, the policy does not wait as well, but keeps the deadline."""
        script, limiter = Script(status(500), GOOD), Says(paused_for=7.0)
        async with script.api(rate_limit=limiter) as api:
            await api.list("corp_1")
        assert script.times[0] == script.times[1]
        async with Script(status(500)).api(rate_limit=limiter, retry=RetryPolicy(deadline=7)) as api:
            with pytest.raises(ServerError):
                await api.list("corp_1")


class TestLimiter:
    """What a limiter makes of the requests of a client."""

    async def test_refusals_use_up_no_attempts(self) -> None:
        """The deadline ends a request that is always refused for its rate, not the number of attempts."""
        script = Script(*[status(429)] * 12, status(503), GOOD)
        async with script.api(retry=RetryPolicy(max_attempts=2)) as api:
            assert len(await api.list("corp_1")) == 1
        script = Script(*[status(429)] * 60)
        async with script.api(retry=RetryPolicy(max_attempts=2, deadline=100)) as api:
            with pytest.raises((RateLimitError, APITimeoutError)) as caught:
                await api.list("corp_1")
        assert 80 <= script.times[-1] - script.times[0] <= 100
        assert caught.value.attempts > 5

    async def test_the_deadline_runs_while_a_retry_waits_for_a_permit(self) -> None:
        """The time that a retry waits for its permit counts for the deadline."""
        script = Script(*[status(500)] * 60)
        async with script.api(rate_limit=FixedRate(1, per=20), retry=RetryPolicy(max_attempts=None, deadline=50)) as api:
            with pytest.raises((ServerError, APITimeoutError)):
                await api.list("corp_1")
        assert len(script.times) == 3

    async def test_without_a_limiter_refusals_use_attempts(self) -> None:
        """A 429 is a failed attempt like any other with `rate_limit=None`."""
        script = Script(status(429), status(429))
        async with script.api(retry=RetryPolicy(max_attempts=2), rate_limit=None) as api:
            assert api.rate_limit is None
            with pytest.raises(RateLimitError):
                await api.list("corp_1")

    async def test_max_wait_fails_fast(self) -> None:
        """A page that would have to wait longer than `max_wait` fails at once, with the wait, and without a request."""
        script = Script(GOOD)
        async with script.api(rate_limit=FixedRate(1, per=60)) as api:
            await api.list("corp_1", max_wait=1)
            began = anyio.current_time()
            with pytest.raises(RateLimitError, match=r"longer than max_wait \(1 s\) .*corporation 'corp_1'") as caught:
                await api.list("corp_1", max_wait=1)
        assert anyio.current_time() == began
        assert (caught.value.attempts, caught.value.status_code) == (0, None)
        assert caught.value.retry_after == pytest.approx(60)

    @pytest.mark.parametrize("rate_limit", [5, "fast", FixedRate], ids=repr)
    async def test_what_is_no_limiter_is_refused(self, rate_limit: Any) -> None:
        """An object without the methods of a limiter is refused by name."""
        with pytest.raises(TypeError, match="rate_limit"):
            Script().api(rate_limit=rate_limit)

    @pytest.mark.parametrize("name", ["release", "snapshot", "estimate_wait"])
    @pytest.mark.parametrize("is_object", [False, True], ids=["function", "object"])
    async def test_a_limiter_that_would_never_run_is_refused(self, name: str, is_object: bool) -> None:
        """A method that is not awaited must not be a coroutine function: its permits would leak silently."""

        async def method(*_args: Any) -> None: ...

        class Method:
            async def __call__(self, *_args: Any) -> None: ...

        limiter = AdaptiveLimiter()
        setattr(limiter, name, Method() if is_object else method)
        with pytest.raises(TypeError, match=rf"rate_limit\.{name}: must be an ordinary function, not async"):
            Script().api(rate_limit=limiter)

    @pytest.mark.parametrize("is_object", [False, True], ids=["function", "object"])
    async def test_a_hook_that_would_never_run_is_refused(self, is_object: bool) -> None:
        """A hook is not awaited, so a coroutine function, or an object that is called like one, is refused."""

        async def function(_event: Event) -> None: ...

        class Object:
            async def __call__(self, _event: Event) -> None: ...

        with pytest.raises(TypeError, match=r"hooks\[1\]: must be an ordinary function, not async"):
            Script().api(hooks=[print, Object() if is_object else function])

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

    async def test_waiting_for_the_first_permit_is_not_against_the_deadline(self) -> None:
        """The time that a request waits for its first permit does not count for its deadline."""
        script = Script(*[httpx.Response(200, json=listing("a"))] * 30)
        async with (
            script.api(rate_limit=FixedRate(1), retry=RetryPolicy(deadline=5)) as api,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(30):
                tasks.start_soon(_first_page, api)
        assert script.times[-1] - script.times[0] == pytest.approx(29)

    async def test_a_pause_that_outlasts_the_deadline_is_not_begun(self) -> None:
        """The error is raised now, as a 429, if another request's pause is longer than the time that is left."""

        async def later(_request: httpx.Request) -> httpx.Response:
            await anyio.sleep(0.2)
            return status(429)

        script = Script(later, *[status(429, retry_after="100")] * 3)
        async with script.api(retry=RetryPolicy(deadline=30)) as api, anyio.create_task_group() as tasks:

            async def fail() -> None:
                with pytest.raises(RateLimitError):
                    await api.list("corp_1")

            for _ in range(4):
                tasks.start_soon(fail)
            with anyio.fail_after(1):
                while len(script.requests) < 4 or api.rate_limit.snapshot().in_flight:
                    await anyio.sleep(0.1)

    async def test_a_limiter_that_does_not_pause_makes_no_storm(self) -> None:
        """The retry policy waits longer and longer if the program's own limiter learns nothing from a 429."""

        class Careless(FixedRate):
            def release(self, permit: Permit, feedback: Feedback) -> None:
                super().release(permit, Feedback(is_answered=feedback.is_answered))

        script = Script(*[status(429) for _ in range(100)])
        async with script.api(rate_limit=Careless(1000)) as api:
            with pytest.raises(RateLimitError) as caught:
                await api.list("corp_1")
        assert caught.value.attempts == len(script.times) < 100
        assert script.times[-1] - script.times[0] > 200

    async def test_a_cancelled_request_leaves_nothing_in_flight(self) -> None:
        """The limiter has no request in flight and no waiter after a cancellation."""
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
