"""Outages: the whole client against a server that takes nothing for a while, in virtual time."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import httpx
import pytest

from commenda_customers import AdaptiveLimiter, APIConnectionError, AsyncCustomersAPI, FixedRate, RateLimiter, ServerError
from raw_server import listing
from script import URL, status

pytestmark = [pytest.mark.anyio, pytest.mark.one_python]

Failure = Callable[[], Awaitable[httpx.Response]]

LATENCY = 0.4
"""Seconds. Each page costs a millisecond of real time: a faster server would only make the tests slower."""


def responds(code: int) -> Failure:
    """Return a way to fail."""

    async def fail() -> httpx.Response:
        return status(code)

    return fail


def raises(error: Exception) -> Failure:
    """Return a way to fail."""

    async def fail() -> httpx.Response:
        raise error

    return fail


FAILURES: dict[str, Failure] = {
    "502": responds(502),
    "503": responds(503),
    "504": responds(504),
    "a connection that is refused": raises(httpx.ConnectError("refused")),
    "a connection that is closed": raises(httpx.RemoteProtocolError("closed")),
    "a connection that times out": raises(httpx.ConnectTimeout("timed out")),
    "a response that never comes": anyio.sleep_forever,
}


class Server:
    """Serves endless lists, but for an outage. The page of a corporation whose name begins with `bad` always fails."""

    def __init__(self, *, begins: float = 0.0, lasts: float = 0.0, fail: Failure = FAILURES["502"]) -> None:
        self.begins, self.ends, self.fail = begins, begins + lasts, fail
        self.failed = 0
        self.succeeded: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        corporation = request.url.params["corporation_id"]
        began = anyio.current_time()
        await anyio.sleep(LATENCY)
        if corporation.startswith("bad"):
            return status(500)
        if self.begins <= began < self.ends:
            self.failed += 1
            return await self.fail()
        self.succeeded.append(began)
        return httpx.Response(200, json=listing("a", corporation_id=corporation, cursor=str(len(self.succeeded))))

    def api(self, limiter: RateLimiter | None = None) -> AsyncCustomersAPI:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        limiter = AdaptiveLimiter(max_in_flight=12) if limiter is None else limiter
        return AsyncCustomersAPI(token="t", base_url=URL, http_client=client, rate_limit=limiter, timeout=3.0)


async def read(api: AsyncCustomersAPI, corporation: str, *, until: float) -> None:
    async for _ in api.list(corporation).pages():
        if anyio.current_time() >= until:
            return


@pytest.mark.parametrize(
    ("kind", "lasts", "most", "lists"),
    [
        *[(kind, 2.0, 4.0, 12) for kind in FAILURES],
        *[(kind, 60.0, 69.0, 1) for kind in FAILURES],
        *[(kind, 150.0, 165.0, 12) for kind in ("503", "a connection that is refused", "a response that never comes")],
    ],
)
async def test_an_outage_costs_little_more_than_itself(kind: str, lasts: float, most: float, lists: int) -> None:
    """Nothing is lost in an outage, all go on within seconds of its end, and few requests are made while it lasts."""
    await read_through_an_outage(kind, lasts, most, lists)


@pytest.mark.parametrize(("lasts", "most"), [(2.0, 4.0), (60.0, 69.0)])
@pytest.mark.parametrize("kind", ["502", "a response that never comes"])
async def test_an_outage_costs_many_lists_no_more(kind: str, lasts: float, most: float) -> None:
    """It makes no difference if most requests wait for a permit."""
    await read_through_an_outage(kind, lasts, most, 200)


@pytest.mark.parametrize("lists", [1, 12])
@pytest.mark.parametrize("kind", ["502", "a connection that is refused"])
async def test_a_fixed_rate_loses_nothing_in_an_outage(kind: str, lists: int) -> None:
    """A limiter that learns no rate waits for a server all the same, and all go on within seconds at the same rate."""
    await read_through_an_outage(kind, 60.0, 69.0, lists, FixedRate(40, max_in_flight=12))


async def read_through_an_outage(
    kind: str, lasts: float, most: float, lists: int, limiter: RateLimiter | None = None
) -> None:
    server = Server(begins=10.0, lasts=lasts, fail=FAILURES[kind])
    watched = most - lasts + 5  # seconds after the outage: longer than it may take until all go on
    async with server.api(limiter) as api, anyio.create_task_group() as tasks:
        for number in range(lists):
            tasks.start_soon(partial(read, api, f"corp_{number}", until=server.ends + watched))
    before = sum(5 <= at < 10 for at in server.succeeded) / 5
    # What is missing, in seconds at the speed before.
    missing = lasts + watched - sum(10 <= at < server.ends + watched for at in server.succeeded) / before
    assert missing <= most
    assert server.failed <= 1.2 * before * lasts


async def test_a_page_that_always_fails_ends_soon_and_slows_nobody_down() -> None:
    """While other pages come, a page that always fails uses up its attempts within a minute, and nobody waits for it."""
    server = Server()
    ended: list[float] = []

    async def fail(number: int) -> None:
        with pytest.raises(ServerError) as caught:
            await api.list(f"bad_{number}")
        assert caught.value.attempts == 8
        ended.append(anyio.current_time())

    async with server.api() as api, anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(fail, number)
        for number in range(8):
            tasks.start_soon(partial(read, api, f"corp_{number}", until=80))
    assert len(ended) == 3
    assert max(ended) < 75
    assert len(server.succeeded) > 0.95 * 80 * 8 / LATENCY


async def test_a_server_that_never_works_ends_soon() -> None:
    """A server that has never answered is no outage: the attempts are used up."""
    server = Server(lasts=1000, fail=FAILURES["a connection that is refused"])
    async with server.api() as api:
        with pytest.raises(APIConnectionError) as caught:
            await api.list("corp_1")
    assert caught.value.attempts == server.failed == 8
