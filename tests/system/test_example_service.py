"""The web service of the examples, over real HTTP on both of its sides."""

import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn

from commenda_customers.testing import Emulator, RateLimit, faults

pytestmark = pytest.mark.anyio

EXAMPLES = str(Path(__file__).parent.parent.parent / "examples")


@pytest.fixture
def anyio_backend() -> str:
    """FastAPI's server runs on asyncio."""
    return "asyncio"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the example as uvicorn does."""
    pytest.importorskip("fastapi")
    monkeypatch.syspath_prepend(EXAMPLES)
    import service

    yield service.app
    del sys.modules["service"]


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the application on a socket; yield a client of it. Its API is the fixture `commenda_emulator`."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
    with listening() as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                yield client
            server.should_exit = True


@pytest.mark.commenda_emulator({"corp_1": 1234}, faults=[faults.Drop(probability=0.1), faults.Status(at=[2])])
async def test_it_streams_json_lines(app: Any, commenda_emulator: Emulator) -> None:
    """Each line of the answer is a customer, in the server's order, whatever goes wrong behind the service."""
    async with served(app) as client:
        answer = await client.get("/corporations/corp_1/customers")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert [line["id"] for line in lines] == [customer["id"] for customer in commenda_emulator.customers("corp_1")]


@pytest.mark.commenda_emulator({"corp_1": 100_000, "corp_2": 3}, latency=0.01)
async def test_a_caller_that_disconnects_ends_the_iteration(app: Any, commenda_emulator: Emulator) -> None:
    """When the caller disconnects, no further pages are requested, and the service continues to serve others."""
    async with served(app) as client:
        async with client.stream("GET", "/corporations/corp_1/customers") as answer:
            async for _line in answer.aiter_lines():
                break
        await anyio.sleep(0.3)
        asked = len(commenda_emulator.requests)
        await anyio.sleep(0.3)
        assert len(commenda_emulator.requests) == asked < 100
        assert len((await client.get("/corporations/corp_2/customers")).text.splitlines()) == 3


@pytest.mark.commenda_emulator({"corp_1": 1000, "empty": 0}, faults=[faults.WrongEnvelope(at=[4])])
async def test_refusals_become_statuses(app: Any, commenda_emulator: Emulator) -> None:
    """What fails before the first customer is a status; what fails later is a last line that says so."""
    async with served(app) as client:
        assert (await client.get("/corporations/nobody/customers")).status_code == 404
        assert (await client.get(f"/corporations/{'x' * 60_001}/customers")).status_code == 400
        assert (await client.get("/corporations/empty/customers")).text == ""
        lines = (await client.get("/corporations/corp_1/customers")).text.splitlines()
    assert len(lines) == 101
    last = json.loads(lines[-1])
    assert last["error"].startswith("the response has neither documented envelope")
    assert len(last["resume"]["positions"][0]["yielded"]) == 100


@pytest.mark.commenda_emulator({"corp_1": 10}, rate_limit=RateLimit(rate=0.05, burst=1))
async def test_a_busy_service_says_so(app: Any, commenda_emulator: Emulator) -> None:
    """When the rate limit would make the caller wait for long, the answer is 503 with the time to come back."""
    async with served(app) as client:
        await client.get("/corporations/corp_1/customers")
        refused = await client.get("/corporations/corp_1/customers")
    assert refused.status_code == 503
    assert 2 < int(refused.headers["retry-after"]) < 30
