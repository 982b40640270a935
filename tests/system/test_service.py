"""Use inside an asyncio service, with its own event loop and tasks: no anyio in sight."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import httpx
import httpx2
import pytest
import pytest_asyncio

from commenda_customers import AsyncCustomersAPI, Checkpoint, RetryPolicy
from commenda_customers.testing import Emulator, faults

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Emulator]:
    """Serve some corporations, with some faults."""
    plan = [faults.Drop(probability=0.05), faults.Status(probability=0.05)]
    async with Emulator({f"corp_{number}": 120 for number in range(6)}, faults=plan) as emulator:
        yield emulator


@pytest_asyncio.fixture
async def api(server: Emulator) -> AsyncIterator[AsyncCustomersAPI]:
    """Open the client as a service does at its start, and close it at its end."""
    async with AsyncCustomersAPI(server.token, base_url=server.base_url, retry=RetryPolicy(initial_wait=0.01)) as client:
        yield client


async def test_tasks_of_a_service_share_a_client(server: Emulator, api: AsyncCustomersAPI) -> None:
    """Tasks that asyncio runs at once each read their corporation through the one client."""

    async def read(corporation_id: str) -> list[str]:
        return [customer.id async for customer in api.list(corporation_id, limit=25)]

    lists = await asyncio.gather(*(read(corporation_id) for corporation_id in server.corporations))
    assert lists == [[c["id"] for c in server.customers(corporation_id)] for corporation_id in server.corporations]


async def test_a_handler_may_await_one_page(api: AsyncCustomersAPI) -> None:
    """A request handler awaits a page, under the time limit of its own framework."""
    async with asyncio.timeout(60):
        page = await api.list("corp_0", limit=20)
    assert (len(page), page.total_customers) == (20, 120)


async def test_cancelling_a_task_is_clean() -> None:
    """A reading task that is cancelled ends as cancelled, and the client still works."""
    async with (
        Emulator({"corp_0": 120}, faults=[faults.Hang(at=[2])]) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url) as api,
    ):
        customers: list[str] = []

        async def read() -> None:
            async for customer in api.list("corp_0", limit=50):
                customers.append(customer.id)

        task = asyncio.create_task(read())
        while len(server.requests) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(customers) == 50
        assert len(await api.list("corp_0")) == 100


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_timeouts_of_asyncio_return_the_connections(library: Any) -> None:
    """Requests that `asyncio.timeout` ends at any point return their connections."""
    limits = library.Limits(max_connections=3, max_keepalive_connections=1)
    async with (
        Emulator({"corp_0": 10}, latency=0.002) as server,
        library.AsyncClient(limits=limits) as client,
        AsyncCustomersAPI(server.token, base_url=server.base_url, http_client=client) as api,
    ):
        for number in range(150):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(number * 0.0001):
                    await asyncio.gather(api.list("corp_0"), api.list("corp_0"), api.list("corp_0"))
        async with asyncio.timeout(60):
            pages = await asyncio.gather(*[api.list("corp_0") for _ in range(6)])
    assert [len(page) for page in pages] == [10] * 6


@pytest.mark.parametrize("errors", [None, "raise", "collect"])
async def test_a_cancelled_future_does_not_end_a_list(errors: Any) -> None:
    """A future that somebody else cancelled raises `CancelledError`; it is not taken for the end of a corporation."""

    async def share(_request: httpx.Request) -> httpx.Response:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future
        raise AssertionError

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(share)) as client,
        AsyncCustomersAPI("token-0", base_url="https://api.example", http_client=client) as api,
    ):
        with pytest.raises(asyncio.CancelledError):
            if errors is None:
                await api.list("corp_1")
            async with api.stream(["corp_1", "corp_2"], errors=errors) as stream:
                [customer async for customer in stream]


async def test_a_cancelled_task_closes_its_client(server: Emulator) -> None:
    """A task that asyncio cancels inside `async with` closes the connections of the client."""
    opened = asyncio.Event()

    async def use() -> None:
        async with AsyncCustomersAPI(server.token, base_url=server.base_url) as api:
            await api.list("corp_0")
            clients.append(api)
            opened.set()
            await asyncio.sleep(3600)

    clients: list[AsyncCustomersAPI] = []
    task = asyncio.create_task(use())
    await opened.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RuntimeError, match="closed"):
        await clients[0].list("corp_0")
    gc.collect()  # an open socket would be a warning, and so an error


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_a_stream_may_be_cancelled_by_asyncio(server: Emulator, api: AsyncCustomersAPI, way: str) -> None:
    """A stream that asyncio cancels at any time ends as cancelled, and its checkpoint resumes it exactly."""
    came: list[str] = []
    checkpoint: Checkpoint | None = None

    async def read() -> None:
        nonlocal checkpoint
        stream = api.stream(server.corporations, concurrency=3, limit=10, resume=checkpoint)
        try:
            async with stream:
                async for customer in stream:
                    came.append(customer.id)
        finally:
            checkpoint = stream.checkpoint()

    for number in count():  # until one run has the time to end
        task = asyncio.create_task(read())
        seconds = 0.001 * 1.08**number
        try:
            if way == "cancel":
                await asyncio.wait([task], timeout=seconds)
                task.cancel()
                await task
            else:
                async with asyncio.timeout(seconds):
                    await task
        except (asyncio.CancelledError, TimeoutError):
            continue
        break
    assert sorted(came) == sorted(
        c["id"] for corporation_id in server.corporations for c in server.customers(corporation_id)
    )
