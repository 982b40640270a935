"""Clients with other options, which share all else. Time is virtual."""

from dataclasses import replace
from typing import Any

import anyio
import pytest

from commenda_customers import APITimeoutError, Event, FixedRate, RateLimitError, RetryPolicy, ServerError
from script import GOOD, Script, hang, status

pytestmark = pytest.mark.anyio


async def test_each_option_replaces_its_own() -> None:
    """An option that is given holds for the new client; one that is not is that of the first. `None` is no timeout."""
    seen: list[Event] = []
    script = Script(hang, status(503), GOOD, GOOD)
    async with script.api(timeout=3, retry=RetryPolicy(max_attempts=1), hooks=[seen.append]) as api:
        began = anyio.current_time()
        with pytest.raises(APITimeoutError, match="timeout of 7 s"):
            await api.with_options(timeout=7).list("corp_1")
        assert anyio.current_time() - began == 7
        assert seen
        seen.clear()
        assert len(await api.with_options(retry=RetryPolicy(max_attempts=2), hooks=()).list("corp_1")) == 1
        assert seen == []
        other = api.with_options(timeout=None)
        assert len(await other.list("corp_1")) == 1
        assert (other._fetcher.timeout, api._fetcher.timeout) == (None, 3)
        assert (other._fetcher.retry, other._fetcher.hooks) == (api._fetcher.retry, api._fetcher.hooks)


async def test_the_token_and_the_limiter_are_shared() -> None:
    """A token function is called once for both clients, and both wait at one limiter."""
    calls = 0

    async def provide() -> str:
        nonlocal calls
        calls += 1
        return f"token-{calls}"

    script = Script(GOOD, GOOD)
    async with script.api(token=provide, rate_limit=FixedRate(1, per=10)) as api:
        other = api.with_options(timeout=1)
        assert (other.rate_limit, other.base_url) == (api.rate_limit, api.base_url)
        await other.list("corp_1")
        await api.list("corp_1")
    assert script.tokens == ["Bearer token-1"] * 2
    assert script.times[1] - script.times[0] == pytest.approx(10)


async def test_only_the_first_client_is_opened_and_closed() -> None:
    """A client made by `with_options` refuses both; once the first is closed, its use is an error that says so."""
    async with Script(GOOD).api() as api:
        other = api.with_options(timeout=1).with_options(hooks=())
        with pytest.raises(RuntimeError, match="shares the connections of another client"):
            await other.aclose()
        with pytest.raises(RuntimeError, match="shares the connections of another client"):
            async with other:
                pass
        await other.list("corp_1")
    with pytest.raises(RuntimeError, match="closed; make a new one"):
        await other.list("corp_1")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"retry": None}, TypeError),
        ({"hooks": [5]}, TypeError),
        ({"hooks": None}, TypeError),
    ],
)
async def test_bad_options_are_refused_by_name(options: dict[str, Any], error: type[Exception]) -> None:
    """They are checked as those of the constructor are."""
    api = Script().api()
    with pytest.raises(error, match=next(iter(options))):
        api.with_options(**options)
    assert "unchanged" in repr(type(api).with_options.__kwdefaults__)


class TestSomebodyWaits:
    """With `max_wait` a page gets its answer or its error in the time that it has."""

    async def test_the_deadline_counts_the_wait_for_the_first_permit(self) -> None:
        """A limiter that would take longer than the deadline allows is an error at once, with the wait."""
        async with Script(GOOD).api(rate_limit=FixedRate(1, per=55)) as api:
            await api.list("corp_1")
            began = anyio.current_time()
            with pytest.raises(RateLimitError, match=r"hold the request back for about 55\.0 s") as caught:
                await api.with_options(retry=RetryPolicy(deadline=2)).list("corp_1", max_wait=60)
        assert anyio.current_time() == began
        assert caught.value.retry_after == pytest.approx(55)

    async def test_max_wait_is_for_all_attempts_together(self) -> None:
        """Each attempt waits with what the attempts before it have left over."""
        script = Script(GOOD, status(500), status(500), GOOD)
        async with script.api(rate_limit=FixedRate(1, per=10)) as api:
            await api.list("corp_1")
            began = anyio.current_time()
            with pytest.raises(RateLimitError, match="longer than max_wait") as caught:
                await api.list("corp_1", max_wait=15)
        assert anyio.current_time() - began < 15
        assert (caught.value.attempts, len(script.requests)) == (1, 2)

    @pytest.mark.parametrize("time", [{"deadline": 2}, {"deadline": 300}], ids=["deadline", "max_wait"])
    async def test_a_pause_that_is_too_long_is_the_error(self, time: dict[str, Any]) -> None:
        """If the limiter pauses for longer than there is time, the error says for how long, and why it pauses."""
        async with Script(status(429)).api(retry=RetryPolicy(**time), rate_limit=_Pausing(pause=55)) as api:
            began = anyio.current_time()
            with pytest.raises(
                RateLimitError, match=r"for about 55\.0 s, .*; before that: the server answered 429"
            ) as caught:
                await api.list("corp_1", max_wait=4)
        assert anyio.current_time() == began
        assert (caught.value.retry_after, caught.value.attempts) == (55, 1)

    async def test_an_error_that_is_not_retried_stays_itself(self) -> None:
        """Where no attempt would follow anyway, the pause of the limiter is not the reason."""
        async with Script(*[status(503, retry_after="20")] * 5).api(rate_limit=_Pausing()) as api:
            with pytest.raises(
                RateLimitError, match=r"for about 30\.0 s, .*; before that: the server answered 503"
            ) as caught:
                await api.list("corp_1", max_wait=1)
            assert (caught.value.status_code, caught.value.retry_after, caught.value.attempts) == (503, 30, 1)
            assert (caught.value.corporation_id, caught.value.transient) == ("corp_1", True)
            assert isinstance(caught.value.__cause__, ServerError)
            with pytest.raises(ServerError):
                await api.with_options(retry=RetryPolicy(max_retry_after=10)).list("corp_1", max_wait=1)

    async def test_a_limiter_that_ignores_max_wait_is_cut_at_the_deadline(self) -> None:
        """The deadline ends the wait, and the error says that the limiter held the request back."""
        async with Script(status(500)).api(rate_limit=_Pausing(pause=0.0, stuck=True)) as api:
            began = anyio.current_time()
            with pytest.raises(RateLimitError, match=r"held the request back for .* s; the deadline is 3 s") as caught:
                await api.with_options(retry=RetryPolicy(deadline=3)).list("corp_1", max_wait=2)
        assert anyio.current_time() - began == pytest.approx(3)
        assert (caught.value.retry_after, caught.value.attempts) == (77, 1)

    async def test_a_free_connection_is_waited_for_within_the_deadline(self) -> None:
        """Without a limiter too, a page for which somebody waits ends at its deadline."""
        script = Script(*[hang] * 100)
        async with script.api(rate_limit=None, timeout=None) as api, anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(_first_page, api)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(APITimeoutError, match="deadline of 2 s"):
                await api.with_options(retry=RetryPolicy(deadline=2)).list("corp_1", max_wait=1)
            tasks.cancel_scope.cancel()


async def _first_page(api: Any) -> None:
    await api.list("corp_0")


class _Pausing(FixedRate):
    """Pauses after each failure. If it is stuck, no second permit is given."""

    def __init__(self, *, pause: float = 30.0, stuck: bool = False) -> None:
        super().__init__(1000)
        self._pause = pause
        self._stuck = stuck

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Any:
        if again and self._stuck:
            await anyio.sleep_forever()
        return await super().acquire(again=again, max_wait=max_wait)

    def estimate_wait(self) -> float:
        return 77.0

    def snapshot(self) -> Any:
        return replace(super().snapshot(), paused_for=self._pause)
