"""Tokens that say when they expire."""

import logging
import math
from typing import Any

import anyio
import httpx
import pytest

from commenda_customers import APIConnectionError, AsyncCustomersAPI, Event, FixedRate, RetryPolicy, Token
from raw_server import listing
from script import GOOD, Script, status

pytestmark = pytest.mark.anyio


class Provider:
    """Returns `token-1`, `token-2` and so on, good for *life* seconds. Fails while it is out of order."""

    def __init__(self, life: float | None, *, seconds: float = 0.0) -> None:
        self.life = life
        self.seconds = seconds
        self.failure: Exception | None = None
        self.times: list[float] = []
        self.in_flight = 0

    async def __call__(self) -> Token:
        self.times.append(anyio.current_time())
        number = len(self.times)
        self.in_flight += 1
        assert self.in_flight == 1
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        if self.failure is not None:
            raise self.failure
        return Token(f"token-{number}", expires_in=self.life)


class Server:
    """A server that takes *seconds* for each request; `log` has when each came, and with which token."""

    def __init__(self, provider: Provider, *, seconds: float = 0.0, **options: Any) -> None:
        self.seconds = seconds
        self.log: list[tuple[float, str]] = []
        self.api: AsyncCustomersAPI = Script(*[self._answer] * 1000).api(token=provider, rate_limit=None, **options)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.log.append((anyio.current_time(), request.headers["Authorization"].removeprefix("Bearer ")))
        await anyio.sleep(self.seconds)
        return httpx.Response(200, json=listing("a"))

    async def request_at(self, *times: float) -> None:
        """Send requests, one at a time."""
        for time in times:
            await anyio.sleep_until(time)
            await self.api.list("corp_1")


@pytest.mark.parametrize(("life", "margin"), [(100, 10), (600, 60), (36_000, 60)])
async def test_it_is_renewed_before_it_expires(life: float, margin: float) -> None:
    """A token is renewed when a tenth of its life is left, or one minute if that is less; no request is refused."""
    provider = Provider(life)
    server = Server(provider)
    renewed = life - margin
    await server.request_at(0, renewed - 1, renewed, renewed + 1, renewed + 2)
    assert provider.times == [0, renewed]
    assert [token for _, token in server.log[:2] + server.log[3:]] == ["token-1", "token-1", "token-2", "token-2"]


async def test_nobody_waits_while_it_is_valid() -> None:
    """While the provider is called before the token expires, all requests are sent at once with the old token."""
    provider = Provider(100, seconds=3)
    server = Server(provider)
    await server.request_at(0)
    async with anyio.create_task_group() as tasks:
        for time in (94, 94, 94, 95, 96, 97):
            tasks.start_soon(server.request_at, time)
    assert provider.times == [0, 94]
    times = [3, 94, 94, 94, 95, 96, 97]
    assert [time for time, _ in server.log] == times
    assert [token for _, token in server.log[:6]] == ["token-1"] * 6
    assert server.log[6][1] in {"token-1", "token-2"}  # at the very moment


async def test_the_request_that_renews_it_waits_for_the_provider() -> None:
    """No task outlives a request: a page that comes before the provider has answered is handed out after that."""
    provider = Provider(100, seconds=3)
    server = Server(provider)
    await server.request_at(0, 95)
    assert anyio.current_time() == 98
    await server.request_at(98)
    assert server.log == [(3, "token-1"), (95, "token-1"), (98, "token-2")]


async def test_everybody_waits_when_it_has_expired() -> None:
    """After it has expired, all requests wait for one call of the provider."""
    provider = Provider(100, seconds=3)
    server = Server(provider)
    await server.request_at(0)
    async with anyio.create_task_group() as tasks:
        for time in (103, 103, 104, 105):
            tasks.start_soon(server.request_at, time)
    assert provider.times == [0, 103]
    assert server.log[1:] == [(106, "token-2")] * 4


async def test_an_early_renewal_that_fails_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """The old token is used until it expires. The provider is called again when half of the rest has passed."""
    provider = Provider(100)
    server = Server(provider)
    await server.request_at(0)
    provider.failure = LookupError("vault is sealed")
    await server.request_at(90, 91, 94, 95, 96, 97, 97.5, 98)
    assert provider.times == [0, 90, 95, 97.5]
    assert {token for _, token in server.log} == {"token-1"}
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "the token could not be renewed before it expires: LookupError"
    ] * 3
    with pytest.raises(LookupError, match="vault is sealed"):
        await server.request_at(100)


async def test_a_request_that_fails_while_it_renews() -> None:
    """The error of a request is raised as itself, in no group, after it has renewed the token."""
    provider = Provider(100, seconds=3)
    script = Script(GOOD, status(403), GOOD)
    async with script.api(token=provider) as api:
        await api.list("corp_1")
        await anyio.sleep_until(95)
        with pytest.raises(Exception, match="403"):
            await api.list("corp_1")
        await api.list("corp_1")
    assert script.tokens == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    assert provider.times == [0, 95]


async def test_a_provider_that_hangs_does_not_cost_the_page() -> None:
    """An early renewal is given up before the deadline of its request, and when the old token expires."""
    for deadline, ends in ((4, 97), (None, 103)):
        provider = Provider(100, seconds=3)
        server = Server(provider, retry=RetryPolicy(deadline=deadline))
        start = anyio.current_time()
        await server.request_at(start)
        provider.seconds = 1000
        await server.request_at(start + 95)
        assert anyio.current_time() == start + ends
        provider.seconds = 1
        await server.request_at(start + 103)
        assert [(time - start, token) for time, token in server.log] == [(3, "token-1"), (95, "token-1"), (104, "token-3")]


async def test_a_request_that_is_cancelled_while_it_renews() -> None:
    """A request that is cancelled in an early renewal leaves nothing behind: a later one renews the token."""
    provider = Provider(100, seconds=3)
    server = Server(provider, seconds=1)
    await server.request_at(0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.request_at, 94)
        await anyio.sleep_until(96)
        tasks.cancel_scope.cancel()
    assert (anyio.current_time(), provider.in_flight) == (96, 0)
    await server.request_at(97, 99, 103)
    assert provider.times == [0, 94, 99]
    assert server.log[-1] == (103, "token-3")


async def test_a_renewal_in_flight_is_shared_when_the_token_expires() -> None:
    """Requests that come after the token has expired join the early renewal that is in flight."""
    provider = Provider(100, seconds=3)
    server = Server(provider, seconds=15)
    async with anyio.create_task_group() as tasks:
        await server.request_at(0)
        provider.seconds = 8
        tasks.start_soon(server.request_at, 99)
        await server.request_at(104)
    assert provider.times == [0, 99]
    assert server.log[1:] == [(99, "token-1"), (107, "token-2")]


async def test_a_refused_token_is_renewed_before_its_time() -> None:
    """A 401 counts for more than what the provider said."""
    script = Script(GOOD, status(401), GOOD, GOOD)
    provider = Provider(1000)
    async with script.api(token=provider) as api:
        for _ in range(3):
            await api.list("corp_1")
    assert script.tokens == [f"Bearer token-{number}" for number in (1, 1, 2, 2)]
    assert len(provider.times) == 2


@pytest.mark.parametrize("life", [None, math.inf])
async def test_it_may_be_good_for_ever(life: float | None) -> None:
    """A token without a time is used until the server refuses it."""
    provider = Provider(life)
    server = Server(provider)
    await server.request_at(0, 1, 1e6)
    assert provider.times == [0]


async def test_a_token_that_has_expired_already_is_used_once() -> None:
    """A token that is good for no time at all is used by the requests that wait for it, and not by the next."""
    provider = Provider(0, seconds=3)
    server = Server(provider)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.request_at, 0)
        tasks.start_soon(server.request_at, 1)
        tasks.start_soon(server.request_at, 10)
    assert provider.times == [0, 10]
    assert server.log == [(3, "token-1"), (3, "token-1"), (13, "token-2")]


async def test_a_request_that_waited_sends_the_newest_token() -> None:
    """A request that waits for the limiter while others renew the token is sent with the new one."""
    provider = Provider(100)
    script = Script(*[GOOD] * 3)
    async with (
        script.api(token=provider, rate_limit=FixedRate(1, per=60)) as api,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            tasks.start_soon(_first_page, api)
        await anyio.sleep(110)
        with anyio.move_on_after(5):
            await api.list("corp_1")
    assert script.times == [0, 60, 120]
    assert script.tokens == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


async def _first_page(api: AsyncCustomersAPI) -> None:
    await api.list("corp_1")


async def test_a_connection_error_while_it_renews_is_retried() -> None:
    """An attempt that fails beside an early renewal is retried with the new token."""
    script = Script(GOOD, httpx.ConnectError("no route"), GOOD)
    provider = Provider(100)
    errors: list[Any] = []
    async with script.api(token=provider, rate_limit=None, hooks=[errors.append]) as api:
        await api.list("corp_1")
        await anyio.sleep_until(95)
        await api.list("corp_1")
    assert script.tokens[-1] == "Bearer token-2"
    assert any(isinstance(getattr(event, "error", None), APIConnectionError) for event in errors)


async def test_a_program_that_exits_in_an_early_renewal_exits_as_itself() -> None:
    """`SystemExit` from a hook arrives as itself, not in a group."""
    is_over = False

    def leave(_event: Event) -> None:
        if is_over:
            raise SystemExit(3)

    server = Server(Provider(100), hooks=[leave])
    await server.request_at(0)
    is_over = True
    await anyio.sleep_until(95)
    with pytest.raises(SystemExit):
        await server.api.list("corp_1")
