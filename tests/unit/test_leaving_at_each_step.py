"""Lists and streams that are cancelled after one step of the event loop, after two, and so on to their end."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

import virtual_time
from cancelling import WAYS, Cancel
from commenda_customers import AsyncCustomersAPI, Checkpoint, Token
from commenda_customers.testing import Emulator

CORPORATIONS = {"corp_1": 5, "corp_2": 3}


class Reading:
    """What a program has read, until it was stopped."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.checkpoint: Checkpoint | None = None

    async def read_list(self, api: AsyncCustomersAPI) -> None:
        customers = api.list("corp_1", limit=2, resume=self.checkpoint).__aiter__()
        try:
            async for customer in customers:
                self.ids.append(customer.id)
        except BaseException as exc:
            assert isinstance(exc, anyio.get_cancelled_exc_class()), repr(exc)  # noqa: PT017 - it may be none at all
            raise
        finally:
            self.checkpoint = customers.checkpoint()

    async def read_stream(self, api: AsyncCustomersAPI) -> None:
        stream = api.stream(CORPORATIONS, concurrency=2, limit=2, resume=self.checkpoint)
        try:
            async with stream:
                async for customer in stream:
                    self.ids.append(customer.id)
        except BaseException as exc:
            assert isinstance(exc, anyio.get_cancelled_exc_class()), repr(exc)  # noqa: PT017
            raise
        finally:
            self.checkpoint = stream.checkpoint()


class Stepping(httpx.ASGITransport):
    """A transport that waits before and after each exchange, as a network does."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await checkpoint()
        response = await super().handle_async_request(request)
        await checkpoint()
        return response


Read = Callable[[Reading, AsyncCustomersAPI], Awaitable[None]]


async def short_lived() -> Token:
    """Return a token that is renewed with each request."""
    await checkpoint()
    return Token(TOKEN, expires_in=0)


TOKEN = "emulator-token"


@asynccontextmanager
async def nothing_left(api: AsyncCustomersAPI) -> AsyncGenerator[None]:
    """Check that the block leaves no permit, no connection in use and no task."""
    before = {task.id for task in anyio.get_running_tasks()}
    yield
    for _ in range(3):
        await checkpoint()
    assert {task.id for task in anyio.get_running_tasks()} <= before
    assert api.rate_limit is not None
    snapshot = api.rate_limit.snapshot()
    assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
    assert api._fetcher.http.connections.value == 100


@pytest.mark.parametrize("token", [TOKEN, short_lived])
@pytest.mark.parametrize("read", [Reading.read_list, Reading.read_stream])
@pytest.mark.parametrize(("backend", "cancel"), WAYS)
def test_it_can_be_cancelled_at_each_step(backend: str, cancel: Cancel, read: Read, token: Any) -> None:
    """Cancelled at any step, it ends as itself and leaves nothing behind; its checkpoint has exactly what was yielded."""

    async def main() -> None:
        server = Emulator(CORPORATIONS, token=TOKEN)
        names = ["corp_1"] if read is Reading.read_list else list(CORPORATIONS)
        everyone = sorted(customer["id"] for name in names for customer in server.customers(name))
        outcomes: list[bool] = []
        while len(outcomes) < 20 or any(outcomes[-10:]):  # trio runs tasks in random order
            http_client = httpx.AsyncClient(transport=Stepping(server))
            api = AsyncCustomersAPI(token, base_url=server.base_url, http_client=http_client)
            reading = Reading()
            async with nothing_left(api):
                was_cancelled = await cancel(lambda reading=reading, api=api: read(reading, api), len(outcomes))  # type: ignore[misc]
            outcomes.append(was_cancelled)
            if was_cancelled:
                await read(reading, api)
            assert sorted(reading.ids) == everyone
        assert any(outcomes)

    virtual_time.run(main, backend)


@pytest.mark.parametrize(("backend", "cancel"), WAYS)
def test_closing_can_be_cancelled_at_each_step(backend: str, cancel: Cancel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose `aclose` is cancelled at any step is closed, and can be closed again."""
    closed: list[str] = []

    async def close_slowly(_transport: httpx.AsyncHTTPTransport) -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        closed.append("closed")

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "aclose", close_slowly)

    async def main() -> None:
        for steps in range(20):
            closed.clear()
            api = AsyncCustomersAPI(TOKEN, base_url="http://127.0.0.1:1")
            await api.__aenter__()
            await cancel(api.aclose, steps)
            await api.aclose()
            assert "closed" in closed
            with pytest.raises(RuntimeError, match="closed; make a new one"):
                await api.list("corp_1")

    virtual_time.run(main, backend)
