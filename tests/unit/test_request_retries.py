"""Which failures of a request are retried, when, and for how long."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import httpx
import pytest

from commenda_customers import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncCustomersAPI,
    CustomersError,
    InvalidResponseError,
    RateLimitError,
    RetryPolicy,
    ServerError,
)
from raw_server import listing
from script import GOOD, Answer, Script, brotli, drip, hang, status

pytestmark = pytest.mark.anyio


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
        httpx.Response(200),
        hang,
        drip,
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
async def test_transient_faults_are_retried(fault: Answer) -> None:
    """Each transient fault is retried, and the customers are read."""
    script = Script(fault, fault, GOOD)
    async with script.api() as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a"]
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        *[(status(code), APIStatusError) for code in (302, 400, 401, 403, 404, 405, 409, 410, 422, 501)],
        (httpx.Response(200, json={"error": "no"}), InvalidResponseError),
        *[(httpx.Response(code, content=b""), InvalidResponseError) for code in (204, 205)],
        (httpx.Response(200, headers={"Content-Length": "0"}), InvalidResponseError),
        (httpx.ProxyError("407 Proxy Authentication Required"), APIConnectionError),
        (httpx.Response(200, json=[]), InvalidResponseError),
        (httpx.Response(200, json={"customers": [{"id": 1}]}), InvalidResponseError),
        (brotli, InvalidResponseError),
        (httpx.LocalProtocolError("illegal header"), APIConnectionError),
        (httpx.UnsupportedProtocol("ftp"), APIConnectionError),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)[:60]),
)
async def test_other_faults_fail_at_once(fault: Answer, error: type[CustomersError]) -> None:
    """Each other fault is raised after one request, with its position."""
    script = Script(fault)
    async with script.api() as api:
        with pytest.raises(error) as caught:
            await api.list("corp_1", cursor="abc")
    assert (caught.value.corporation_id, caught.value.cursor, caught.value.attempts) == ("corp_1", "abc", 1)
    assert len(script.requests) == 1


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
async def test_retry_after_is_kept(answer: Answer, least: float, most: float) -> None:
    """The next attempt waits as long as the server asks, or else for the backoff."""
    script = Script(answer, GOOD)
    async with script.api() as api:
        await api.list("corp_1")
    waited = script.times[1] - script.times[0]
    assert least <= waited <= most or waited == pytest.approx(least)


async def test_retry_after_may_be_a_date() -> None:
    """`Retry-After` as a date is measured against the wall clock."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    script = Script(status(429, retry_after=date), GOOD)
    async with script.api() as api:
        await api.list("corp_1")
    assert 58 <= script.times[1] - script.times[0] <= 60.5


@pytest.mark.parametrize(("code", "error"), [(429, RateLimitError), (503, ServerError)])
async def test_a_wait_of_a_day_is_raised_at_once(code: int, error: type[CustomersError]) -> None:
    """The error of a wait beyond `max_retry_after` is raised at once, with the wait."""
    script = Script(status(code, retry_after="86400"))
    async with script.api() as api:
        began = anyio.current_time()
        with pytest.raises(error) as caught:
            await api.list("corp_1")
    assert anyio.current_time() == began
    assert (caught.value.retry_after, caught.value.attempts) == (86400, 1)


async def test_an_outage_is_not_multiplied() -> None:
    """Hundreds of requests together ask a few times while a server is down, and all succeed after that."""
    up_at = anyio.current_time() + 20

    async def down_at_first(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=listing("a")) if anyio.current_time() >= up_at else status(503)

    script = Script(*[down_at_first] * 5000)
    async with script.api() as api, anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(_first_page, api)
    assert sum(at < up_at for at in script.times) < 40
    assert len(script.requests) < 400


async def test_timeout_and_deadline_end_a_request() -> None:
    """`timeout` ends each attempt and `deadline` the request, whatever the server does."""
    script = Script(drip, hang, hang, drip, hang)
    async with script.api(timeout=10, retry=RetryPolicy(max_attempts=None, deadline=45, max_wait=0.001)) as api:
        began = anyio.current_time()
        with pytest.raises(APITimeoutError, match="deadline of 45 s; before that: .* timeout of 10 s") as caught:
            await api.list("corp_1")
    assert anyio.current_time() - began == pytest.approx(45, abs=0.1)
    assert (caught.value.corporation_id, caught.value.attempts) == ("corp_1", 5)


async def test_without_limits_it_is_patient() -> None:
    """A request without limits waits for a response that takes a day."""

    async def tomorrow(_request: httpx.Request) -> httpx.Response:
        await anyio.sleep(86400)
        return GOOD

    script = Script(*[status(429, retry_after="86400")] * 20, tomorrow)
    policy = RetryPolicy(max_attempts=None, deadline=None, max_retry_after=None)
    async with script.api(timeout=None, retry=policy) as api:
        assert len(await api.list("corp_1")) == 1


async def _first_page(api: AsyncCustomersAPI) -> None:
    assert len(await api.list("corp_1")) == 1


@pytest.mark.parametrize(
    ("text", "is_transient"),
    [
        ("502 Bad Gateway", True),
        ("407 Proxy Authentication Required", False),
        ("Proxy Server could not connect: Host unreachable.", True),
        ("Proxy Server could not connect: Connection not allowed by ruleset.", False),
        ("Invalid username/password", False),
        ("Requested NO AUTH from proxy server, but got USERNAME/PASSWORD.", False),
        ("40 " + "x" * 10_000, True),
    ],
)
async def test_a_proxy_may_refuse_for_good(text: str, is_transient: bool) -> None:
    """A proxy that wants a password or does not allow the address is final, over HTTP and over SOCKS."""
    script = Script(*[httpx.ProxyError(text)] * 2)
    async with script.api(retry=RetryPolicy(max_attempts=2), rate_limit=None) as api:
        with pytest.raises(APIConnectionError, match=r"the proxy refused the connection to api\.example: ") as caught:
            await api.list("corp_1")
    assert (caught.value.transient, len(script.requests)) == (is_transient, 1 + is_transient)
    assert len(str(caught.value)) < 500
