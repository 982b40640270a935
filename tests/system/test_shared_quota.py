"""Clients that share one quota through Redis, over real sockets: the API is emulated, and so is Redis."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import pytest
from redis import Redis

from commenda_customers import AsyncCustomersAPI
from commenda_customers.limits import _redis_calls
from commenda_customers.limits.redis import RedisLimiter
from commenda_customers.testing import Emulator, RateLimit
from redis_servers import working_redis
from waiting import until

pytestmark = pytest.mark.anyio

SIZES = {f"secret-corp-{number}": 200 for number in range(6)}


@pytest.fixture
def stoppable_redis() -> Iterator[tuple[str, ExitStack]]:
    """Serve a Redis in memory, which stops when the stack is closed."""
    with ExitStack() as stack:
        yield stack.enter_context(working_redis()), stack


async def read(server: Emulator, limiter: RedisLimiter, corporations: list[str], into: dict[str, list[str]]) -> None:
    """Stream the customers of corporations, and collect their ids."""
    async with (
        AsyncCustomersAPI(server.token, base_url=server.base_url, rate_limit=limiter) as api,
        api.stream(corporations, limit=10) as stream,
    ):
        async for customer in stream:
            into.setdefault(customer.corporation_id, []).append(customer.id)


async def test_two_clients_keep_to_one_limit(stoppable_redis: tuple[str, ExitStack]) -> None:
    """Each customer comes once, and Redis learns nothing about corporations, customers or tokens."""
    url, _ = stoppable_redis
    read_ids: dict[str, list[str]] = {}
    with Redis.from_url(url, decode_responses=True, protocol=2) as redis:
        async with (
            Emulator(SIZES, rate_limit=RateLimit(rate=100, burst=20)) as server,
            RedisLimiter(url, quota="prod") as one,
            RedisLimiter(url, quota="prod") as other,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(read, server, one, list(SIZES)[:3], read_ids)
            tasks.start_soon(read, server, other, list(SIZES)[3:], read_ids)
        keys = list(redis.scan_iter())
        stored = str([redis.get(key) if key.endswith(":state") else redis.xrange(key) for key in keys])
        expiries = [redis.ttl(key) for key in keys]

    assert read_ids == {name: [customer["id"] for customer in server.customers(name)] for name in SIZES}
    assert '"success"' in stored.replace("\\", "")
    secrets = [server.token, *SIZES, *(name for names in read_ids.values() for name in names)]
    assert [secret for secret in secrets if secret in stored] == []
    assert {"log", "state"} <= {key.rpartition(":")[2] for key in keys} <= {"log", "state", "notices"}
    assert all(0 < seconds <= 300 for seconds in expiries)


async def test_no_request_fails_when_redis_stops(
    stoppable_redis: tuple[str, ExitStack], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Redis stops in the middle, the client goes on, and says so once."""
    monkeypatch.setattr(_redis_calls, "TIMEOUT", 60)
    monkeypatch.setattr(_redis_calls, "_PATIENCE", 120)
    url, stack = stoppable_redis
    read_ids: dict[str, list[str]] = {}
    async with (
        Emulator(SIZES, rate_limit=RateLimit(rate=200, burst=20)) as server,
        RedisLimiter(url, quota="prod") as limiter,
        anyio.create_task_group() as tasks,
    ):
        assert "shared with 0 other processes" in repr(limiter)
        tasks.start_soon(read, server, limiter, list(SIZES), read_ids)
        await until(lambda: len(server.requests) > 20)
        await anyio.to_thread.run_sync(stack.close)
        await until(lambda: "alone" in repr(limiter))

    assert read_ids == {name: [customer["id"] for customer in server.customers(name)] for name in SIZES}
    assert warnings(caplog) == [
        f"rate limit of prod: not shared with other processes for now: Redis at {url.removeprefix('redis://')}"
    ]


def warnings(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return the warnings of the limiter, without the reasons of the system."""
    texts = [record.getMessage() for record in caplog.records if record.name == "commenda_customers.limits"]
    assert {record.levelno for record in caplog.records if record.name == "commenda_customers.limits"} == {logging.WARNING}
    return [text.partition(" cannot be used now")[0] for text in texts]
