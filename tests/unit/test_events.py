"""What hooks receive. Time is virtual."""

import logging
from contextvars import ContextVar
from typing import Any

import anyio
import httpx
import pytest

from commenda_customers import (
    APITimeoutError,
    AsyncCustomersAPI,
    AuthenticationError,
    CustomersError,
    Event,
    FixedRate,
    NotFoundError,
    PageFailed,
    PageFetched,
    RateLimitError,
    RequestFailed,
    RequestSent,
    ResponseReceived,
    RetryPolicy,
    RetryScheduled,
    ServerError,
    Throttled,
)
from raw_server import listing
from script import GOOD, Script, hang, status

pytestmark = pytest.mark.anyio


def kinds(events: list[Event]) -> list[tuple[type[Event], int]]:
    return [(type(event), event.attempt) for event in events]


async def test_a_page_has_one_event_for_each_step() -> None:
    """Sent, received, failed, retried, fetched: each with the corporation, the cursor and the attempt."""
    events: list[Event] = []
    script = Script(status(503), httpx.ConnectError("refused"), GOOD)
    async with script.api(hooks=[events.append]) as api:
        await api.list("corp_1", cursor="abc")
    assert kinds(events) == [
        (RequestSent, 1),
        (ResponseReceived, 1),
        (RequestFailed, 1),
        (RetryScheduled, 1),
        (RequestSent, 2),
        (RequestFailed, 2),
        (RetryScheduled, 2),
        (RequestSent, 3),
        (ResponseReceived, 3),
        (PageFetched, 3),
    ]
    assert {(event.corporation_id, event.cursor) for event in events} == {("corp_1", "abc")}
    received, failed, retried = events[1:4]
    assert isinstance(received, ResponseReceived)
    assert (received.status_code, received.size) == (503, 3)
    assert isinstance(failed, RequestFailed)
    assert isinstance(retried, RetryScheduled)
    assert isinstance(retried.error, ServerError)
    assert failed.error is retried.error
    assert retried.wait == pytest.approx(script.times[1] - script.times[0])


async def test_a_fetched_page_says_what_it_cost() -> None:
    """The event has the attempts, the seconds in total and those at the limiter, the request id and the customers."""
    events: list[Event] = []
    good = httpx.Response(200, json=listing("a", "b"), headers={"X-Request-Id": "r-9"})
    script = Script(GOOD, status(503, retry_after="20"), good)
    async with script.api(rate_limit=FixedRate(1, per=10), hooks=[events.append]) as api:
        await api.list("corp_1")
        await api.list("corp_1")
    first, second = (event for event in events if isinstance(event, PageFetched))
    assert (first.attempts, first.waited, first.elapsed, first.request_id) == (1, 0, 0, None)
    assert (second.attempts, second.request_id, second.customers) == (2, "r-9", 2)
    # 10 s for the first permit; then 20 s, which concern this request alone.
    assert second.waited == pytest.approx(10, abs=0.5)
    assert second.elapsed == pytest.approx(30, abs=0.5)


@pytest.mark.parametrize(
    ("answers", "options", "error", "attempts"),
    [
        ([status(404, x_request_id="r-1")], {}, NotFoundError, 1),
        ([status(503), status(503)], {"retry": RetryPolicy(max_attempts=2)}, ServerError, 2),
        ([hang], {"timeout": 3, "retry": RetryPolicy(max_attempts=1)}, APITimeoutError, 1),
        ([status(503), hang], {"retry": RetryPolicy(deadline=20)}, APITimeoutError, 2),
        ([status(401)], {}, AuthenticationError, 1),
    ],
    ids=["final", "attempts", "timeout", "deadline", "token"],
)
async def test_the_last_failure_is_reported_too(
    answers: list[Any], options: dict[str, Any], error: type[CustomersError], attempts: int
) -> None:
    """Each attempt that failed has its `RequestFailed`, the last one included, and then the page its `PageFailed`."""
    events: list[Event] = []
    script = Script(*answers)
    async with script.api(hooks=[events.append], **options) as api:
        began = anyio.current_time()
        with pytest.raises(error) as caught:
            await api.list("corp_1")
        elapsed = anyio.current_time() - began
    assert len([event for event in events if isinstance(event, RequestFailed)]) == len(answers) == attempts
    last, end = events[-2:]
    assert isinstance(last, RequestFailed)
    assert isinstance(end, PageFailed)
    assert last.error is end.error is caught.value
    assert last.elapsed == pytest.approx(anyio.current_time() - script.times[-1])
    assert (end.attempts, end.request_id, end.waited) == (attempts, caught.value.request_id, 0)
    assert end.elapsed == pytest.approx(elapsed)


async def test_a_page_that_was_never_sent_fails_without_an_attempt() -> None:
    """Where the limiter would take too long there is no request, and one event: `PageFailed` with no attempts."""
    events: list[Event] = []
    async with Script(GOOD).api(rate_limit=FixedRate(1, per=60), hooks=[events.append]) as api:
        await api.list("corp_1")
        events.clear()
        with pytest.raises(RateLimitError):
            await api.list("corp_1", max_wait=1)
    assert kinds(events) == [(PageFailed, 0)]


async def test_a_refusal_is_reported_before_its_failure() -> None:
    """After a 429 come what the limiter made of it, and that the attempt failed."""
    events: list[Event] = []
    async with Script(status(429, retry_after="5"), GOOD).api(hooks=[events.append]) as api:
        await api.list("corp_1")
    assert [type(event) for event in events[1:5]] == [ResponseReceived, Throttled, RequestFailed, RetryScheduled]


async def test_a_token_that_was_renewed_ends_its_first_request() -> None:
    """A 401 after which a new token is sent is the failure of that request, and no retry."""
    tokens = iter(["old-token", "new-token"])
    events: list[Event] = []

    async def provider() -> str:
        return next(tokens)

    async with Script(status(401), GOOD).api(token=provider, hooks=[events.append]) as api:
        await api.list("corp_1")
    assert [type(event) for event in events] == [
        RequestSent,
        ResponseReceived,
        RequestFailed,
        RequestSent,
        ResponseReceived,
        PageFetched,
    ]


@pytest.mark.parametrize("reads", ["list", "stream"])
async def test_hooks_share_the_context_of_a_request(reads: str) -> None:
    """What a hook sets in a `ContextVar` for `RequestSent` is there in the event that ends the attempt."""
    span: ContextVar[int] = ContextVar("span")
    seen: list[tuple[str, int]] = []
    number = iter(range(100))

    def hook(event: Event) -> None:
        if isinstance(event, RequestSent):
            span.set(next(number))
        elif isinstance(event, ResponseReceived | RequestFailed | PageFetched):
            seen.append((type(event).__name__, span.get()))

    async with Script(status(503), GOOD).api(hooks=[hook]) as api:
        if reads == "list":
            span.set(-1)
            await api.list("corp_1")
            assert span.get() == 1
        else:
            async with api.stream(["corp_1"]) as stream:
                assert [customer.id async for customer in stream] == ["a"]
    assert seen == [("ResponseReceived", 0), ("RequestFailed", 0), ("ResponseReceived", 1), ("PageFetched", 1)]


@pytest.mark.parametrize("kind", [RequestSent, ResponseReceived, PageFetched])
async def test_what_a_hook_raises_reaches_the_caller(kind: type[Event]) -> None:
    """A hook that fails is not hidden, and not retried; the client works on."""
    broken = True

    def hook(event: Event) -> None:
        if broken and isinstance(event, kind):
            raise ZeroDivisionError

    async with Script(GOOD, GOOD).api(hooks=[hook]) as api:
        with pytest.raises(ZeroDivisionError):
            await api.list("corp_1")
        broken = False
        await api.list("corp_1")
        assert isinstance(api, AsyncCustomersAPI)


async def test_events_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG the logger `commenda_customers` has the same events."""
    caplog.set_level(logging.DEBUG, logger="commenda_customers")
    async with Script(GOOD).api() as api:
        await api.list("corp_1")
    logged = [record.message for record in caplog.records if record.name == "commenda_customers"]
    assert [message.partition("(")[0] for message in logged] == ["RequestSent", "ResponseReceived", "PageFetched"]
