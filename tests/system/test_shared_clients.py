"""Clients with other options over a real socket, in front of an emulated API."""

import pytest

from commenda_customers import AsyncCustomersAPI, FixedRate, RateLimitError, RetryPolicy
from commenda_customers.testing import Emulator
from raw_server import TOKEN, RawServer, listing, ok

pytestmark = pytest.mark.anyio


async def test_connections_are_shared(raw_server: RawServer) -> None:
    """Requests of both clients go over one connection, one after the other."""
    raw_server.behave(raw_server.answers(*[ok(listing("a"))] * 3))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
        for client in (api, api.with_options(timeout=60), api):
            assert len(await client.list("corp_1")) == 1
    assert raw_server.connections == 1


async def test_the_limiter_is_shared() -> None:
    """A handler of web requests is told how long the limiter holds it back, because of a request of the other client."""
    async with (
        Emulator({"corp_1": 3}) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url, rate_limit=FixedRate(1, per=3600)) as api,
    ):
        assert len(await api.list("corp_1")) == 3
        with pytest.raises(RateLimitError, match="would hold the request back") as caught:
            await api.with_options(retry=RetryPolicy(deadline=2)).list("corp_1", max_wait=5)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 3000
    assert len(server.requests) == 1
