"""Requests that wait for a free connection."""

import anyio
import httpx
import pytest

from commenda_customers import (
    AsyncCustomersAPI,
    RetryPolicy,
)
from raw_server import listing
from script import Script, status

pytestmark = pytest.mark.anyio


async def _first_page(api: AsyncCustomersAPI) -> None:
    assert len(await api.list("corp_1")) == 1


async def test_waiting_for_a_connection_is_no_failure() -> None:
    """Requests wait for a free connection, and that time does not count for their timeout."""
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


async def test_waiting_for_a_connection_is_not_against_the_deadline() -> None:
    """The time that a request waits for a connection does not count for its deadline."""

    async def slow(_request: httpx.Request) -> httpx.Response:
        await anyio.sleep(9)
        return httpx.Response(200, json=listing("a"))

    script = Script(*[slow] * 350)
    async with script.api(retry=RetryPolicy(deadline=10), rate_limit=None) as api, anyio.create_task_group() as tasks:
        for _ in range(350):
            tasks.start_soon(_first_page, api)
    assert len(script.requests) == 350


async def test_no_connection_is_held_while_waiting_for_a_retry() -> None:
    """A hundred requests that wait for a retry hold no connection."""
    script = Script(*[status(429, retry_after="60")] * 100, *[httpx.Response(200, json=listing("a"))] * 101)
    async with script.api(rate_limit=None) as api, anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(_first_page, api)
        await anyio.sleep(1)
        began = anyio.current_time()
        await api.list("corp_1")
        assert anyio.current_time() == began
