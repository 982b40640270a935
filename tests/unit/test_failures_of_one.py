"""Pages and servers that fail by themselves: what they cost the others, on the whole client, in virtual time."""

from collections.abc import Callable
from functools import partial

import anyio
import httpx
import pytest

from commenda_customers import AdaptiveLimiter, AsyncCustomersAPI, CustomersError, FixedRate, RateLimiter
from raw_server import listing
from script import URL, status

pytestmark = [pytest.mark.anyio, pytest.mark.one_python]

LATENCY = 0.4
"""Seconds. Each page costs a millisecond of real time: a faster server would only make the tests slower."""


class Server:
    """Serves endless lists. The pages of a corporation whose name begins with `bad` always fail."""

    def __init__(self, fail: Callable[[], httpx.Response], latency: float = LATENCY) -> None:
        self.fail, self.latency = fail, latency
        self.failed_at: list[float] = []
        self.succeeded_at: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        corporation = request.url.params["corporation_id"]
        await anyio.sleep(self.latency)
        now = anyio.current_time()
        if corporation.startswith("bad"):
            self.failed_at.append(now)
            return self.fail()
        self.succeeded_at.append(now)
        return httpx.Response(200, json=listing("a", corporation_id=corporation, cursor=str(now)))

    def api(self, limiter: RateLimiter | None = None) -> AsyncCustomersAPI:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        limiter = AdaptiveLimiter() if limiter is None else limiter
        return AsyncCustomersAPI(token="t", base_url=URL, http_client=client, rate_limit=limiter)

    def rate(self, since: float, until: float) -> float:
        """Return the good pages per second."""
        return sum(since <= at < until for at in self.succeeded_at) / (until - since)


def closed() -> httpx.Response:
    raise httpx.RemoteProtocolError("closed")


FAILURES: dict[str, Callable[[], httpx.Response]] = {
    "500": lambda: status(500),
    "503": lambda: status(503),
    "429": lambda: status(429),
    "a connection that is closed": closed,
}


async def read(api: AsyncCustomersAPI, corporation: str, *, until: float) -> None:
    async for _ in api.list(corporation).pages():
        if anyio.current_time() >= until:
            return


async def fail(api: AsyncCustomersAPI, corporation: str) -> None:
    with pytest.raises(CustomersError):
        await api.list(corporation)


@pytest.mark.parametrize(
    ("kind", "limiter"), [*[(kind, AdaptiveLimiter) for kind in FAILURES], ("500", partial(FixedRate, 1000))]
)
async def test_pages_that_always_fail_slow_nobody_down(kind: str, limiter: Callable[[], RateLimiter]) -> None:
    """Sixteen pages that appear at once and always fail leave eight good lists their speed."""
    server = Server(FAILURES[kind])
    async with server.api(limiter()) as api, anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(partial(read, api, f"corp_{number}", until=35))
        await anyio.sleep(10)
        for number in range(16):
            tasks.start_soon(fail, api, f"bad_{number}")
        await anyio.sleep(25)
        tasks.cancel_scope.cancel()
    assert server.rate(20, 35) > 0.95 * 8 / LATENCY


@pytest.mark.parametrize("kind", ["500", "503", "a connection that is closed"])
async def test_a_page_that_always_fails_delays_those_that_come_later_by_seconds(kind: str) -> None:
    """A page that fails alone looks like an outage. The next page of another corporation finds out that it is none."""
    server = Server(FAILURES[kind])
    async with server.api() as api, anyio.create_task_group() as tasks:
        tasks.start_soon(fail, api, "bad")
        await anyio.sleep(30)
        for number in range(50):
            tasks.start_soon(partial(read, api, f"corp_{number}", until=0))
        await anyio.sleep(15)
        assert len(server.succeeded_at) == 50
        began = anyio.current_time()
    # It was no outage, so the attempts of the page count from now on.
    assert anyio.current_time() - began < 90


async def test_a_page_that_is_always_refused_is_asked_for_ever_less_often() -> None:
    """A page that gets nothing but 429s backs off, although a 429 is no failed attempt."""
    server = Server(FAILURES["429"])
    async with server.api() as api, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(read, api, "corp", until=300))
        await fail(api, "bad")
        tasks.cancel_scope.cancel()
    assert 10 < len(server.failed_at) < 60


async def test_a_client_with_a_wrong_address_does_not_stop_the_others() -> None:
    """Clients that share a limiter have one quota, but not one server: one that is down is the failure of its client."""
    server = Server(FAILURES["500"])
    limiter = AdaptiveLimiter()

    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with server.api(limiter) as good, anyio.create_task_group() as tasks:
        wrong = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
        async with AsyncCustomersAPI(
            token="t", base_url="https://wrong.example", http_client=wrong, rate_limit=limiter
        ) as bad:
            for number in range(8):
                tasks.start_soon(partial(read, good, f"corp_{number}", until=40))
            await anyio.sleep(10)
            async with anyio.create_task_group() as others:
                for number in range(8):
                    others.start_soon(fail, bad, f"bad_{number}")
    assert server.rate(20, 40) > 0.95 * 8 / LATENCY


@pytest.mark.parametrize("kind", ["429", "a connection that is closed"])
async def test_a_quiet_service_learns_the_rate_of_its_bursts(kind: str) -> None:
    """An hour with a request each ten seconds does not make the rate low that a burst after it has."""
    server = Server(FAILURES["500"], latency=0.2)
    refused = iter(range(16))

    async def handle(request: httpx.Request) -> httpx.Response:
        if 3602 < anyio.current_time() < 3603 and next(refused, None) is not None:
            await anyio.sleep(0.1)
            return FAILURES[kind]()
        return await server(request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    async with AsyncCustomersAPI(token="t", base_url=URL, http_client=client) as api, anyio.create_task_group() as tasks:
        for _ in range(360):
            await read(api, "corp", until=0)
            await anyio.sleep(9.8)
        began = anyio.current_time()
        assert began == pytest.approx(3600)
        for number in range(32):
            tasks.start_soon(partial(read, api, f"corp_{number}", until=3615))
    assert server.rate(3610, 3615) > 60
