"""What a 429 or a 503 with a wait does to the requests of a client."""

import time
from email.utils import formatdate
from itertools import pairwise

import anyio
import httpx
import pytest

from commenda_customers import (
    APITimeoutError,
    AsyncCustomersAPI,
    Event,
    RateLimitError,
    RetryPolicy,
    RetryScheduled,
    ServerError,
    Throttled,
)
from raw_server import listing
from script import GOOD, Script, status

pytestmark = pytest.mark.anyio


async def _first_page(api: AsyncCustomersAPI) -> None:
    assert len(await api.list("corp_1")) == 1


class TestThrottling:
    """Responses that throttle."""

    async def test_a_single_refusal_pauses_nobody(self) -> None:
        """A 429 is retried after its own wait, does not hold other requests back, and is reported by an event."""
        events: list[Event] = []
        script = Script(status(429, retry_after="30"), *[httpx.Response(200, json=listing("a"))] * 9)
        async with script.api(hooks=[events.append]) as api, anyio.create_task_group() as tasks:
            tasks.start_soon(_first_page, api)
            await anyio.sleep(1)
            for _ in range(8):
                tasks.start_soon(_first_page, api)
        assert all(at - script.times[0] < 2 for at in script.times[1:-1])
        assert script.times[-1] - script.times[0] > 29.99
        assert [event.pause for event in events if isinstance(event, Throttled)] == [0]
        assert [event.wait >= 30 for event in events if isinstance(event, RetryScheduled)] == [True]

    @pytest.mark.parametrize("code", [429, 503])
    async def test_refusals_in_a_cluster_pause_all(self, code: int) -> None:
        """Three 429s in a row with a wait, or three 503s, pause all requests until then."""
        events: list[Event] = []
        script = Script(*[status(code, retry_after="30")] * 3, *[httpx.Response(200, json=listing("a"))] * 11)
        async with script.api(hooks=[events.append]) as api, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(_first_page, api)
            await anyio.sleep(1)
            for _ in range(8):
                tasks.start_soon(_first_page, api)
        assert all(at - script.times[0] > 29.99 for at in script.times[3:])
        assert [round(event.pause) for event in events if isinstance(event, Throttled)] == [0, 0, 30]

    @pytest.mark.parametrize("wait", ["90000", "9" * 400], ids=["more than a day", "for ever"])
    async def test_an_absurd_wait_blocks_nobody(self, wait: str) -> None:
        """An absurd wait does not block other requests, even without `max_retry_after`."""
        script = Script(status(429, retry_after=wait), GOOD)
        async with script.api(retry=RetryPolicy(max_retry_after=None)) as api:
            with pytest.raises((RateLimitError, APITimeoutError)):
                await api.list("corp_1")
            with anyio.fail_after(10):
                await api.list("corp_1")

    async def test_a_wait_that_is_raised_blocks_nobody(self) -> None:
        """A wait beyond `max_retry_after` is an error of its own request, and does not pause the others."""
        script = Script(status(429, retry_after="86400"), GOOD)
        async with script.api() as api:
            with pytest.raises(RateLimitError) as caught:
                await api.list("corp_1")
            assert caught.value.retry_after == 86400
            await api.list("corp_1")
        assert script.times[1] - script.times[0] < 5

    async def test_an_outage_of_a_day_is_no_refusal(self) -> None:
        """A 503 with a wait beyond `max_retry_after` neither pauses requests nor lowers their rate."""
        async with Script(status(503, retry_after="86400")).api() as api:
            with pytest.raises(ServerError):
                await api.list("corp_1")
            assert api.rate_limit is not None
            snapshot = api.rate_limit.snapshot()
        assert (snapshot.rate, snapshot.paused_for) == (None, 0)

    async def test_a_reset_of_the_quota_is_a_wait(self) -> None:
        """A 429 without `Retry-After` waits for the reset in another header."""
        script = Script(status(429, x_ratelimit_remaining="0", x_ratelimit_reset="40"), GOOD)
        async with script.api() as api:
            await api.list("corp_1")
        assert 40 <= script.times[1] - script.times[0] <= 41

    async def test_a_reset_of_a_quota_that_is_left_is_no_wait(self) -> None:
        """A 429 does not wait for the reset of a quota of which much is left."""
        script = Script(status(429, x_ratelimit_remaining="5900", x_ratelimit_reset="58"), GOOD)
        async with script.api() as api:
            await api.list("corp_1")
        assert script.times[1] - script.times[0] <= 0.5

    async def test_a_reset_is_measured_by_the_servers_clock(self) -> None:
        """A reset that is a moment is measured against the response's own `Date`."""
        sent = int(time.time()) + 900
        moment = f"{sent + 5}"
        answer = status(429, x_ratelimit_remaining="0", x_ratelimit_reset=moment, date=formatdate(sent, usegmt=True))
        script = Script(answer, GOOD)
        async with script.api() as api:
            await api.list("corp_1")
        assert 4 <= script.times[1] - script.times[0] <= 6

    async def test_an_overload_that_does_not_end_uses_up_the_deadline(self) -> None:
        """A server that always answers 503 with a wait is asked again until the deadline, and no sooner than it says."""
        script = Script(*[status(503, retry_after="20")] * 20)
        async with script.api() as api:
            with pytest.raises(ServerError):
                await api.list("corp_1")
        assert all(later - earlier > 19.99 for earlier, later in pairwise(script.times))
        assert 250 <= script.times[-1] - script.times[0] <= 300


@pytest.mark.parametrize("years", [-10, 10])
async def test_a_clock_that_is_wrong_by_years(years: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A date in `Retry-After` counts from the server's own date: it does not matter that the machine's clock has jumped."""
    server = time.time()
    monkeypatch.setattr(time, "time", lambda: server + years * 365 * 24 * 3600)
    date, after = formatdate(server, usegmt=True), formatdate(server + 60, usegmt=True)
    script = Script(status(429, retry_after=after, date=date), GOOD)
    async with script.api() as api:
        await api.list("corp_1")
    assert 60 <= script.times[1] - script.times[0] < 70


@pytest.mark.parametrize("years", [-10, 10])
async def test_a_wrong_clock_and_a_server_without_one(years: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the server's date, a clock that has jumped costs an error or an early retry, and no sleep of years."""
    server = time.time()
    monkeypatch.setattr(time, "time", lambda: server + years * 365 * 24 * 3600)
    script = Script(status(429, retry_after=formatdate(server + 60, usegmt=True)), GOOD)
    async with script.api() as api:
        if years < 0:
            with pytest.raises(RateLimitError) as caught:
                await api.list("corp_1")
            assert (caught.value.retry_after or 0) > 9 * 365 * 24 * 3600
        else:
            assert len(await api.list("corp_1")) == 1
    assert anyio.current_time() - script.times[0] < 60
