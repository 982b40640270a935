"""The client and the emulated API in one process: rates and pauses, exact to the millisecond."""

import anyio
import pytest

from commenda_customers import AsyncCustomersAPI, FixedRate
from commenda_customers.testing import Emulator, RateLimit
from emulated import connected

pytestmark = pytest.mark.anyio


async def read(api: AsyncCustomersAPI, corporation_id: str, *, limit: int, expected: int) -> None:
    assert len([customer async for customer in api.list(corporation_id, limit=limit)]) == expected


async def test_few_requests_are_refused_once_the_limit_is_known() -> None:
    """The limiter finds the rate of the server, and few requests are refused."""
    limit = RateLimit(rate=100, burst=10, retry_after=None)
    server = Emulator({f"corp_{number}": 40 for number in range(12)}, rate_limit=limit, latency=0.02)
    began = anyio.current_time()
    async with connected(server) as api:
        async with anyio.create_task_group() as tasks:
            for corporation_id in server.corporations:
                tasks.start_soon(lambda name=corporation_id: read(api, name, limit=1, expected=40))
        assert api.rate_limit is not None
        learned = api.rate_limit.snapshot().rate
    refused = [request.status for request in server.requests].count(429)
    assert 0 < refused < 0.1 * 480
    assert learned is not None
    assert 50 < learned < 150
    assert anyio.current_time() - began < 1.5 * 480 / 100


async def test_a_fixed_rate_holds_at_the_server() -> None:
    """The server never sees more requests than the fixed rate allows."""
    server = Emulator({"corp_1": 30, "corp_2": 30})
    async with connected(server, rate_limit=FixedRate(5, per=0.2)) as api, anyio.create_task_group() as tasks:
        for corporation_id in server.corporations:
            tasks.start_soon(lambda name=corporation_id: read(api, name, limit=2, expected=30))
    times = [request.at for request in server.requests]
    assert len(times) == 30
    assert min(later - first for first, later in zip(times, times[5:], strict=False)) == pytest.approx(0.2)


async def test_a_stream_that_is_not_read_sends_no_requests() -> None:
    """While the program does not ask for more, the server is asked for one page of each corporation in flight."""
    server = Emulator({f"corp_{number}": 1000 for number in range(10)})
    async with connected(server) as api, api.stream(server.corporations, concurrency=4) as stream:
        async for _customer in stream:
            await anyio.sleep(3600)
            assert len(server.requests) == 5
            break
