"""One logical request over a transport in memory: attempts, waits, tokens, events. Time is virtual."""

import gc
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate
from typing import Any

import anyio
import httpx
import pytest
import respx

from commenda_customers import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncCustomersAPI,
    AuthenticationError,
    CustomersError,
    Event,
    Feedback,
    FixedRate,
    InvalidResponseError,
    Permit,
    RateLimitError,
    RetryPolicy,
    RetryScheduled,
    ServerError,
    Throttled,
)
from raw_server import listing
from script import GOOD, URL, Answer, Script, brotli, drip, hang, status

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    """Run on both backends with a clock that jumps to whatever is waited for."""
    return virtual_backend


async def test_the_request_is_as_the_page_documents() -> None:
    """One GET to {base}/customers, with the token, all parameters as the API page writes them, and gzip at the most."""
    with respx.mock(base_url=URL) as router:
        route = router.get("/customers").mock(return_value=GOOD)
        async with (
            httpx.AsyncClient() as client,
            AsyncCustomersAPI("test-token", base_url=f"{URL}/", http_client=client) as api,
        ):
            await api.list(
                "corp_1",
                limit=20,
                cursor="c/+=&?",
                name="Müller & Söhne",
                search_term="acme",
                source_platforms=["SHOPIFY", "XERO"],
                source_platform_ids=["shopify-1", "xero-2"],
                extend=["shipping_address", "exemption_metadata"],
                certificate_types=["SINGLE_STATE", "BLANKET"],
                exemption_jurisdiction="US_CA",
                expiration_status="ACTIVE",
                exemption_status="INACTIVE",
                has_exemption=False,
            )
    request = route.calls.last.request
    assert request.headers["Accept-Encoding"] == "gzip"
    assert request.headers["Accept"] == "application/json"
    assert dict(request.url.params.multi_items()) == {
        "corporation_id": "corp_1",
        "limit": "20",
        "cursor": "c/+=&?",
        "name": "Müller & Söhne",
        "search_term": "acme",
        "source_platforms": "SHOPIFY,XERO",
        "source_platform_ids": "shopify-1,xero-2",
        "extend": "shipping_address,exemption_metadata",
        "certificate_types": "SINGLE_STATE,BLANKET",
        "exemption_jurisdiction": "US_CA",
        "expiration_status": "ACTIVE",
        "exemption_status": "INACTIVE",
        "has_exemption": "false",
    }


async def test_filters_and_limit_go_with_every_page() -> None:
    """Pages after the first are asked for with the same filters and the same limit."""
    script = Script(httpx.Response(200, json=listing("a", cursor="1")), httpx.Response(200, json=listing("b")))
    async with script.api() as api:
        assert [customer.id async for customer in api.list("corp_1", limit=7, search_term="x")] == ["a", "b"]
    first, second = (dict(request.url.params) for request in script.requests)
    assert second == {**first, "cursor": "1"}
    assert first == {"corporation_id": "corp_1", "limit": "7", "search_term": "x"}


@pytest.mark.parametrize(
    "fault",
    [
        *[status(code) for code in (408, 429, 500, 502, 503, 504)],
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("slow"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("cut"),
        httpx.ProxyError("502"),
        httpx.PoolTimeout("full"),
        httpx.Response(200, text='{"customers": ['),
        httpx.Response(200, text="<html>"),
        httpx.Response(204),
        hang,
        drip,
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
async def test_what_may_pass_is_tried_again(fault: Answer) -> None:
    """Every fault that may be over by the next attempt is tried again, and the customers come."""
    script = Script(fault, fault, GOOD)
    async with script.api() as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a"]
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        *[(status(code), APIStatusError) for code in (302, 400, 401, 403, 404, 405, 409, 410, 422, 501)],
        (httpx.Response(200, json={"error": "no"}), InvalidResponseError),
        (httpx.Response(200, json=[]), InvalidResponseError),
        (brotli, InvalidResponseError),
        (httpx.LocalProtocolError("illegal header"), APIConnectionError),
        (httpx.UnsupportedProtocol("ftp"), APIConnectionError),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)[:60]),
)
async def test_what_will_not_pass_fails_at_once(fault: Answer, error: type[CustomersError]) -> None:
    """What another attempt cannot mend is raised after one request, with all that is known."""
    script = Script(fault)
    async with script.api() as api:
        with pytest.raises(error) as caught:
            await api.list("corp_1", cursor="abc")
    assert (caught.value.corporation_id, caught.value.cursor, caught.value.attempts) == ("corp_1", "abc", 1)
    assert len(script.requests) == 1


async def test_errors_of_a_walk_say_where_to_go_on() -> None:
    """An error in the middle of a list comes after all customers before it, and names the page to go on from."""
    script = Script(httpx.Response(200, json=listing("a", cursor="1")), status(404, x_request_id="r-7"))
    seen: list[str] = []
    async with script.api() as api:
        with pytest.raises(
            APIStatusError, match=r"\[corporation 'corp_1', cursor '1', after 1 attempt, request id 'r-7'\]"
        ) as caught:
            async for customer in api.list("corp_1"):
                seen.append(customer.id)
    assert seen == ["a"]
    assert caught.value.cursor == "1"
    assert caught.value.body_excerpt == "why"


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        (status(429, retry_after="7"), 7, 7.5),
        (status(503, retry_after="1.5"), 1.5, 2),
        (status(429, retry_after_ms="250"), 0.25, 0.75),
        (status(429, retry_after="120"), 120, 120.5),
        (status(429, retry_after="soon"), 0, 0.5),
        (status(429, retry_after="-1"), 0, 0.5),
        (status(429), 0, 0.5),
    ],
    ids=lambda value: repr(getattr(value, "headers", value)),
)
async def test_the_next_attempt_comes_when_the_server_wants_it(answer: Answer, least: float, most: float) -> None:
    """The wait that the server asked for is kept; without one that makes sense it is the backoff."""
    script = Script(answer, GOOD)
    async with script.api() as api:
        await api.list("corp_1")
    waited = script.times[1] - script.times[0]
    assert least <= waited <= most or waited == pytest.approx(least)


async def test_a_date_to_come_back_at_is_kept() -> None:
    """`Retry-After` as a date is measured against the wall clock."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    script = Script(status(429, retry_after=date), GOOD)
    async with script.api() as api:
        await api.list("corp_1")
    assert 58 <= script.times[1] - script.times[0] <= 60.5


@pytest.mark.parametrize(("code", "error"), [(429, RateLimitError), (503, ServerError)])
async def test_a_wait_of_a_day_is_raised_at_once(code: int, error: type[CustomersError]) -> None:
    """A wait beyond `max_retry_after` is not slept through: the error comes at once, with the time in it."""
    script = Script(status(code, retry_after="86400"))
    async with script.api() as api:
        began = anyio.current_time()
        with pytest.raises(error) as caught:
            await api.list("corp_1")
    assert anyio.current_time() == began
    assert (caught.value.retry_after, caught.value.attempts) == (86400, 1)


async def test_an_outage_is_not_multiplied() -> None:
    """While a server is down, hundreds of requests together retry no more than is bearable, and all get through."""
    up_at = anyio.current_time() + 20

    async def down_at_first(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=listing("a")) if anyio.current_time() >= up_at else status(503)

    script = Script(*[down_at_first] * 5000)
    # By chance, one of 300 may use up the usual eight attempts in 20 s: once in some hundred runs.
    retry = RetryPolicy(max_attempts=12)
    async with script.api(rate_limit=None, retry=retry) as api, anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(_first_page, api)
    # Without a budget: two retries of each of the 300 in the first second, one more in the next.
    assert sum(1 <= at - script.times[0] < 20 for at in script.times) < 19 * 2 * 300 / 30 * 1.2
    assert len(script.requests) < 1200


async def test_a_hanging_server_is_given_up_in_time() -> None:
    """Attempts end after `timeout`, the request after `deadline`, whatever the server does or does not do."""
    script = Script(drip, hang, hang, drip, hang)
    async with script.api(timeout=10, retry=RetryPolicy(max_attempts=None, deadline=45, max_wait=0.001)) as api:
        began = anyio.current_time()
        with pytest.raises(APITimeoutError, match="deadline of 45 s; before that: .* timeout of 10 s") as caught:
            await api.list("corp_1")
    assert anyio.current_time() - began == pytest.approx(45, abs=0.1)
    assert (caught.value.corporation_id, caught.value.attempts) == ("corp_1", 5)


async def test_without_limits_it_is_patient() -> None:
    """With `None` for every limit, an answer that takes a day is waited for."""

    async def tomorrow(_request: httpx.Request) -> httpx.Response:
        await anyio.sleep(86400)
        return GOOD

    script = Script(*[status(429, retry_after="86400")] * 20, tomorrow)
    policy = RetryPolicy(max_attempts=None, deadline=None, max_retry_after=None)
    async with script.api(timeout=None, retry=policy) as api:
        assert len(await api.list("corp_1")) == 1


# A generator of the user's that goes on after it was closed can only be left to the garbage collector; trio tells of each.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_an_endless_body_in_memory_is_left() -> None:
    """A body that is too large is left alone even where there is no connection that could be closed."""

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield bytes(100_000)

    script = Script(httpx.Response(200, stream=Endless()))
    async with script.api(max_response_bytes=1000) as api:
        with pytest.raises(InvalidResponseError, match="larger than max_response_bytes, 1,000 bytes"):
            await api.list("corp_1")
    gc.collect()


async def test_waiting_for_a_connection_is_no_failure() -> None:
    """More requests than connections wait their turn; the time they wait is not that of their attempt."""
    running, most = 0, 0

    async def slow(_request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(9)
        running -= 1
        return httpx.Response(200, json=listing("a"))

    script = Script(*[slow] * 350)
    async with script.api(timeout=10, rate_limit=None) as api, anyio.create_task_group() as tasks:
        for _ in range(350):
            tasks.start_soon(_first_page, api)
    assert most == 100
    assert anyio.current_time() - script.times[0] == pytest.approx(36)


async def _first_page(api: AsyncCustomersAPI) -> None:
    assert len(await api.list("corp_1")) == 1


async def test_waiting_for_a_connection_is_not_against_the_deadline() -> None:
    """However long a request waits for its turn, the deadline counts from when it can be sent."""

    async def slow(_request: httpx.Request) -> httpx.Response:
        await anyio.sleep(9)
        return httpx.Response(200, json=listing("a"))

    script = Script(*[slow] * 350)
    async with script.api(retry=RetryPolicy(deadline=10), rate_limit=None) as api, anyio.create_task_group() as tasks:
        for _ in range(350):
            tasks.start_soon(_first_page, api)
    assert len(script.requests) == 350


async def test_an_endless_trickle_after_too_much_is_left() -> None:
    """A body that is too large, and then hangs, does not hold up the error."""

    class TooMuchThenNothing(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield bytes(100_000)
            await anyio.sleep_forever()

    script = Script(httpx.Response(200, stream=TooMuchThenNothing()))
    async with script.api(max_response_bytes=1000, timeout=None) as api:
        began = anyio.current_time()
        with pytest.raises(InvalidResponseError, match="larger than max_response_bytes"):
            await api.list("corp_1")
        assert anyio.current_time() - began < 1


async def test_no_connection_is_held_while_waiting_for_a_retry() -> None:
    """A hundred requests that wait for their retry do not keep another from being sent."""
    script = Script(*[status(429, retry_after="60")] * 100, *[httpx.Response(200, json=listing("a"))] * 101)
    async with script.api(rate_limit=None) as api, anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(_first_page, api)
        await anyio.sleep(1)
        began = anyio.current_time()
        await api.list("corp_1")
        assert anyio.current_time() == began


class TestLimiter:
    """What a limiter makes of the requests of a client."""

    async def test_a_refusal_of_one_pauses_all(self) -> None:
        """A 429 with a wait keeps every other request from being sent before it is over, and is told in an event."""
        events: list[Event] = []
        script = Script(status(429, retry_after="30"), *[httpx.Response(200, json=listing("a"))] * 9)
        async with script.api(hooks=[events.append]) as api:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_first_page, api)
                await anyio.sleep(1)
                for _ in range(8):
                    tasks.start_soon(_first_page, api)
            assert api.rate_limit is not None
            rate = api.rate_limit.snapshot().rate
        assert all(at - script.times[0] >= 30 for at in script.times[1:])
        throttled = [event for event in events if isinstance(event, Throttled)]
        assert [(event.attempt, round(event.pause)) for event in throttled] == [(1, 30)]
        assert throttled[0].rate is not None
        assert rate is not None
        assert [round(event.wait) for event in events if isinstance(event, RetryScheduled)] == [30]

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

    async def test_no_wait_is_for_ever(self) -> None:
        """A wait that makes no sense holds up nobody else, even where there is no `max_retry_after`."""
        script = Script(status(429, retry_after="9" * 400), GOOD)
        async with script.api(retry=RetryPolicy(max_retry_after=None)) as api:
            with pytest.raises((RateLimitError, APITimeoutError)):
                await api.list("corp_1")
            with anyio.fail_after(10):
                await api.list("corp_1")

    async def test_a_wait_that_is_raised_holds_up_nobody(self) -> None:
        """A wait beyond `max_retry_after` is an error of the request that was told it, and no pause of the others."""
        script = Script(status(429, retry_after="86400"), GOOD)
        async with script.api() as api:
            with pytest.raises(RateLimitError) as caught:
                await api.list("corp_1")
            assert caught.value.retry_after == 86400
            await api.list("corp_1")
        assert script.times[1] - script.times[0] < 5

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

    async def test_a_server_that_says_only_when_its_quota_resets(self) -> None:
        """A 429 without `Retry-After` is waited out until the reset that another header tells."""
        script = Script(status(429, x_ratelimit_remaining="0", x_ratelimit_reset="40"), GOOD)
        async with script.api() as api:
            await api.list("corp_1")
        assert 40 <= script.times[1] - script.times[0] <= 41

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

    async def test_a_reset_of_a_quota_that_is_left_is_no_wait(self) -> None:
        """A 429 of a limit that is in no header is not waited out by the clock of another, of which much is left."""
        script = Script(status(429, x_ratelimit_remaining="5900", x_ratelimit_reset="58"), GOOD)
        async with script.api() as api:
            await api.list("corp_1")
        assert script.times[1] - script.times[0] <= 0.5

    async def test_a_moment_is_one_of_the_servers_clock(self) -> None:
        """A reset that is told as a moment is measured against the answer's own `Date`: ours may be wrong."""
        sent = time.time() + 900
        moment = f"{sent + 5:.0f}"
        answer = status(429, x_ratelimit_remaining="0", x_ratelimit_reset=moment, date=formatdate(sent, usegmt=True))
        script = Script(answer, GOOD)
        async with script.api() as api:
            await api.list("corp_1")
        assert 4 <= script.times[1] - script.times[0] <= 6

    async def test_an_overload_with_a_wait_pauses_everyone(self) -> None:
        """A 503 that says when to come back holds back all requests until then, and lets them go one by one."""
        script = Script(status(503, retry_after="60"), *[httpx.Response(200, json=listing("a"))] * 20)
        events: list[Event] = []
        async with script.api(hooks=[events.append]) as api, anyio.create_task_group() as tasks:
            tasks.start_soon(_first_page, api)
            await anyio.sleep(1)
            for _ in range(19):
                tasks.start_soon(_first_page, api)
        assert all(later - script.times[0] >= 60 or later == pytest.approx(60) for later in script.times[1:])
        assert len([event for event in events if isinstance(event, Throttled)]) == 1

    async def test_overloads_are_counted(self) -> None:
        """A server that is overloaded for good is given up, as one that fails is, if it always says when to come back."""
        script = Script(*[status(503, retry_after="2") for _ in range(8)])
        async with script.api() as api:
            with pytest.raises(ServerError) as caught:
                await api.list("corp_1")
        assert caught.value.attempts == 8

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


class TestForeignCustomers:
    """An answer with a customer of another corporation."""

    FOREIGN = httpx.Response(200, json=listing("x", corporation_id="corp_2"))

    async def test_one_is_tried_again(self) -> None:
        """One such answer is thrown away, and the right one is fetched."""
        script = Script(self.FOREIGN, GOOD)
        async with script.api() as api:
            assert [customer.id async for customer in api.list("corp_1")] == ["a"]

    async def test_two_are_an_error(self) -> None:
        """A second such answer is an error that names the stranger; nothing was yielded."""
        script = Script(self.FOREIGN, status(503), self.FOREIGN)
        seen: list[str] = []
        async with script.api() as api:
            with pytest.raises(InvalidResponseError, match="customer of another corporation, 'corp_2'") as caught:
                async for customer in api.list("corp_1"):
                    seen.append(customer.id)
        assert seen == []
        assert (caught.value.attempts, caught.value.status_code) == (3, 200)


class TestTokens:
    """Who is asking, over the life of a token."""

    async def test_a_provider_is_asked_again_after_a_401(self) -> None:
        """When the token has expired in the middle of a list, the provider is asked once and the page is asked for again."""
        first, second = (
            httpx.Response(200, json=listing(name, cursor=cursor)) for name, cursor in (("a", "1"), ("b", None))
        )
        script = Script(first, status(401), second)
        tokens = iter(["first-token", "second-token"])

        async def provide() -> str:
            return next(tokens)

        async with script.api(token=provide) as api:
            assert [customer.id async for customer in api.list("corp_1")] == ["a", "b"]
        assert script.tokens == ["Bearer first-token", "Bearer first-token", "Bearer second-token"]
        assert script.times[2] == script.times[1]

    async def test_a_second_401_is_final(self) -> None:
        """If the new token is refused as well, that is the answer."""
        script, calls = Script(status(401), status(401)), 0

        async def provide() -> str:
            nonlocal calls
            calls += 1
            return f"token-{calls}"

        async with script.api(token=provide) as api:
            with pytest.raises(AuthenticationError):
                await api.list("corp_1")
        assert calls == 2

    async def test_many_requests_share_one_call_of_the_provider(self) -> None:
        """However many requests wait for a token, or were refused with the old one, the provider is called once."""
        calls = 0

        async def provide() -> str:
            nonlocal calls
            calls += 1
            await anyio.sleep(5)
            return f"token-{calls}"

        async def server(request: httpx.Request) -> httpx.Response:
            await anyio.sleep(1)
            good = request.headers["Authorization"] == "Bearer token-2"
            return httpx.Response(200, json=listing("a")) if good else status(401)

        script = Script(*[server] * 40)
        async with script.api(token=provide) as api, anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(_first_page, api)
        assert calls == 2

    async def test_a_provider_that_fails_is_not_hidden(self) -> None:
        """An exception of the provider reaches the caller as itself, and is not retried."""

        async def provide() -> str:
            raise LookupError("vault is sealed")

        async with Script().api(token=provide) as api:
            with pytest.raises(LookupError, match="vault is sealed"):
                await api.list("corp_1")

    async def test_a_provider_that_is_cancelled_hands_over(self) -> None:
        """If the request whose turn it is to ask is cancelled, the next one asks; nobody waits for ever."""
        calls = 0

        async def provide() -> str:
            nonlocal calls
            calls += 1
            await anyio.sleep(5)
            return "good-token"

        script = Script(GOOD)
        async with script.api(token=provide) as api, anyio.create_task_group() as tasks:
            with anyio.move_on_after(2):
                tasks.start_soon(self._later, api)
                await api.list("corp_1")
        assert calls == 2
        assert script.tokens == ["Bearer good-token"]

    @staticmethod
    async def _later(api: AsyncCustomersAPI) -> None:
        await anyio.sleep(1)
        await _first_page(api)

    async def test_the_token_is_renewed_once_for_a_page(self) -> None:
        """A page that was refused with the new token, even after another fault, is refused."""
        script = Script(status(401), status(503), status(401))
        tokens = iter(["token-1", "token-2", "token-3"])

        async def provide() -> str:
            return next(tokens)

        async with script.api(token=provide) as api:
            with pytest.raises(AuthenticationError):
                await api.list("corp_1")
        assert script.tokens == ["Bearer token-1", "Bearer token-2", "Bearer token-2"]

    async def test_a_provider_that_is_no_async_function(self) -> None:
        """A provider that returns a token at once, and not a promise of one, is told what is wanted of it."""

        def provide() -> str:
            return "s3cr3t"

        async with Script().api(token=provide) as api:
            with pytest.raises(TypeError, match="token: the provider must be an async function"):
                await api.list("corp_1")

    async def test_attempts_count_what_was_sent(self) -> None:
        """If the limiter lets the request with a new token not begin in time, the one that was refused still counts."""

        async def provide() -> str:
            return f"token-{len(script.requests)}"

        script = Script(status(401))
        async with script.api(token=provide, rate_limit=FixedRate(1, per=60)) as api:
            with pytest.raises(RateLimitError) as caught:
                await api.list("corp_1", max_wait=5)
        assert (caught.value.attempts, len(script.requests)) == (1, 1)

    async def test_a_provider_may_fall_short_of_a_token(self) -> None:
        """What a provider returns is checked like any token."""

        async def provide() -> str:
            return "line\nbreak"

        async with Script().api(token=provide) as api:
            with pytest.raises(ValueError, match="token: the one from the provider contains a blank or") as caught:
                await api.list("corp_1")
        assert "break" not in str(caught.value)
