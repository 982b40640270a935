"""The emulated API on a real socket."""

from typing import Any

import anyio
import httpx
import pytest

from commenda_customers.testing import Emulator, faults
from emulated import CORPORATIONS
from waiting import until

pytestmark = pytest.mark.anyio


async def test_it_serves_on_a_socket() -> None:
    """As a context manager it serves over TCP, on asyncio and on trio, and stops when the block ends."""
    async with Emulator(CORPORATIONS) as server, httpx.AsyncClient(timeout=60) as client:
        url, headers = f"{server.base_url}/customers?corporation_id=corp_2", {"Authorization": f"Bearer {server.token}"}
        response = await client.get(url, headers=headers)
        assert len(response.json()["data"]["customers"]) == 3
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url, headers=headers)


@pytest.mark.parametrize("waiting", [{"faults": [faults.Hang(at=[1])]}, {"latency": 300}], ids=["hang", "latency"])
async def test_it_stops_while_a_request_waits(waiting: dict[str, Any]) -> None:
    """The server stops while a client waits for a response that does not come."""
    began = anyio.current_time()
    async with httpx.AsyncClient(timeout=300) as client, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(httpx.TransportError):
                await client.get(f"{server.base_url}/customers", headers={"Authorization": f"Bearer {server.token}"})

        async with Emulator(CORPORATIONS, **waiting) as server:
            tasks.start_soon(wait)
            await until(lambda: len(server.requests) > 0)
    assert anyio.current_time() - began < 30


async def test_it_serves_once_at_a_time() -> None:
    """A second `async with` of a serving emulator is an error, and the first one keeps serving."""
    async with Emulator(CORPORATIONS) as server:
        with pytest.raises(RuntimeError, match="serving already"):
            async with server:
                pass
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{server.base_url}/customers")).status_code == 401


async def test_a_port_that_is_taken_is_an_error() -> None:
    """Serving on a port that is in use fails at once."""
    async with Emulator(CORPORATIONS) as server:
        port = int(server.base_url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(OSError, match="in use"):
            await Emulator(CORPORATIONS, port=port).__aenter__()
