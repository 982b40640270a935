"""A token provider that fails."""

import pickle
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from commenda_customers import (
    APITimeoutError,
    AsyncCustomersAPI,
    CustomersError,
    Event,
    NotFoundError,
    PageFailed,
    RequestSent,
    RetryPolicy,
    RetryScheduled,
    TokenError,
)
from raw_server import listing
from script import GOOD, Script, status

pytestmark = pytest.mark.anyio

MAY_PASS: list[Exception] = [
    OSError("vault is sealed"),
    TimeoutError(),
    ConnectionResetError("reset"),
    httpx.ConnectError("no route"),
    httpx.ReadTimeout("slow"),
    httpx2.ConnectError("no route"),
]


class Provider:
    """Fails with the given exceptions, then returns tokens; `None` is a token."""

    def __init__(self, *outcomes: Exception | None, seconds: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.seconds = seconds
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        number = self.calls
        await anyio.sleep(self.seconds)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        return f"token-{number}"


async def _first_page(api: AsyncCustomersAPI) -> None:
    await api.list("corp_1")


@pytest.mark.parametrize("failure", MAY_PASS, ids=lambda failure: type(failure).__qualname__)
async def test_a_failure_that_may_pass_is_retried(failure: Exception) -> None:
    """A provider whose I/O fails once costs one retry with backoff."""
    events: list[Event] = []
    script = Script(GOOD)
    async with script.api(token=Provider(failure), hooks=[events.append]) as api:
        await api.list("corp_1")
    (retry,) = (event for event in events if isinstance(event, RetryScheduled))
    assert isinstance(retry.error, TokenError)
    assert retry.error.__cause__ is failure
    assert script.times == [retry.wait]


async def test_a_provider_that_keeps_failing() -> None:
    """After as many attempts as the policy allows, the error says where it happened; it can be pickled."""
    events: list[Event] = []
    first = httpx.Response(200, json=listing("a", cursor="next"))
    provider = Provider(None, *[OSError("vault is sealed")] * 3)
    script = Script(first, status(401))
    async with script.api(token=provider, retry=RetryPolicy(max_attempts=3), hooks=[events.append]) as api:
        iteration = aiter(api.list("corp_1"))
        await anext(iteration)
        with pytest.raises(TokenError) as caught:
            await anext(iteration)

    error = caught.value
    assert str(error) == "the token provider failed: vault is sealed [corporation 'corp_1', cursor 'next', after 3 attempts]"
    assert error.transient
    assert error.checkpoint is not None
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert isinstance(events[-1], PageFailed)
    assert (events[-1].error, events[-1].attempts) == (error, 3)
    assert sum(isinstance(event, RequestSent) for event in events) == 2
    assert provider.calls == 4  # a token that the server has refused is not sent again


async def test_a_failure_is_not_the_servers() -> None:
    """The limiter does not slow down because a provider fails."""
    async with Script(GOOD).api(token=Provider(*[OSError()] * 5)) as api:
        before = api.rate_limit.snapshot() if api.rate_limit else None
        await api.list("corp_1")
        after = api.rate_limit.snapshot() if api.rate_limit else None
    assert before is not None
    assert after is not None
    assert (before.rate, before.paused_for) == (after.rate, after.paused_for)


async def test_waiters_share_a_failure() -> None:
    """All requests that wait for one call get its failure, each in an error of its own."""
    provider = Provider(OSError("vault is sealed"), seconds=5)
    errors: list[TokenError] = []

    async def fail(api: AsyncCustomersAPI, corporation_id: str) -> None:
        with pytest.raises(TokenError) as caught:
            await api.list(corporation_id)
        errors.append(caught.value)

    async with Script().api(token=provider, retry=RetryPolicy(max_attempts=1)) as api, anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(fail, api, f"corp_{number}")
    assert provider.calls == 1
    assert {error.corporation_id for error in errors} == {f"corp_{number}" for number in range(5)}
    assert all(isinstance(error.__cause__, OSError) for error in errors)


async def test_waiters_retry_together() -> None:
    """Requests that wait for a provider that fails once need one more call, not one each."""
    provider = Provider(OSError("vault is sealed"), seconds=5)
    async with Script(*[GOOD] * 5).api(token=provider) as api, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(_first_page, api)
    assert provider.calls == 2


@pytest.mark.parametrize("failure", [LookupError("no such secret"), httpx.InvalidURL("bad"), ValueError("bad")])
async def test_other_exceptions_come_through(failure: Exception) -> None:
    """Any other exception of the provider reaches every caller that waits as itself, and is not retried."""
    provider, caught = Provider(failure, seconds=5), list[BaseException]()

    async def fail(api: AsyncCustomersAPI) -> None:
        with pytest.raises(type(failure)) as info:
            await api.list("corp_1")
        caught.append(info.value)

    async with Script().api(token=provider) as api, anyio.create_task_group() as tasks:
        tasks.start_soon(fail, api)
        tasks.start_soon(fail, api)
    assert (provider.calls, caught) == (1, [failure, failure])


@pytest.mark.parametrize("transient", [True, False])
async def test_a_provider_may_say_what_may_pass(transient: bool) -> None:
    """A `TokenError` of the provider itself is located, and retried if it is transient."""
    provider, script = Provider(TokenError("503 of the identity provider", transient=transient)), Script(GOOD)
    async with script.api(token=provider) as api:
        if transient:
            await api.list("corp_1")
        else:
            with pytest.raises(TokenError, match="503 of the identity provider .corporation 'corp_1'.*after 1 attempt"):
                await api.list("corp_1")
    assert len(script.requests) == transient


async def test_the_deadline_counts_a_provider() -> None:
    """A provider that hangs is cut at the deadline of the request, and the next request calls it anew."""
    provider, script = Provider(seconds=100), Script(GOOD)
    async with script.api(token=provider, retry=RetryPolicy(deadline=10)) as api:
        with pytest.raises(APITimeoutError) as caught:
            await api.list("corp_1")
        assert (anyio.current_time(), caught.value.attempts) == (10, 0)
        provider.seconds = 1
        await api.list("corp_1")
    assert script.tokens == ["Bearer token-2"]


@pytest.mark.parametrize("others", [0, 3])
async def test_a_cancelled_call_leaves_nothing_behind(others: int) -> None:
    """When the request that calls the provider is cancelled, another that waits calls it, or the next one that comes."""
    provider, script = Provider(seconds=5), Script(*[GOOD] * (others + 1))
    results: list[Any] = []

    async def later(api: AsyncCustomersAPI) -> None:
        await anyio.sleep(1)
        results.append(await api.list("corp_1"))

    async with script.api(token=provider) as api, anyio.create_task_group() as tasks:
        for _ in range(others):
            tasks.start_soon(later, api)
        with anyio.move_on_after(2):
            await api.list("corp_1")
        await api.list("corp_1")
    assert (provider.calls, len(results)) == (2, others)
    assert script.times == [7] * (others + 1)


async def test_all_errors_have_one_base() -> None:
    """A program that catches `CustomersError` catches the failure of its provider."""
    async with Script().api(token=Provider(OSError()), retry=RetryPolicy(max_attempts=1)) as api:
        with pytest.raises(CustomersError, match="the token provider failed: OSError"):
            await api.list("corp_1")


async def test_an_error_of_the_sdk_in_a_provider_is_located_for_each_request() -> None:
    """If a provider raises an error of the SDK, each page that waited gets one that says which page it is."""
    errors: list[CustomersError] = []

    async def provide() -> str:
        await anyio.sleep(1)
        raise NotFoundError("no such account")

    async def read(api: AsyncCustomersAPI, corporation_id: str) -> None:
        with pytest.raises(NotFoundError) as caught:
            await api.list(corporation_id)
        errors.append(caught.value)

    async with Script().api(token=provide) as api, anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(read, api, f"corp_{number}")
    assert {error.corporation_id for error in errors} == {"corp_0", "corp_1", "corp_2"}
