"""The emulated API on a real socket."""

import threading
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from commenda_customers.testing import Emulator, faults
from commenda_customers.testing._server import LoopbackServer
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


class Broken(faults.Fault):
    def change(self, reply: Any) -> Any:
        raise LookupError("this fault has a bug")


def fetch(server: Emulator) -> httpx.Response:
    """Fetch a page without an event loop."""
    headers = {"Authorization": f"Bearer {server.token}"}
    return httpx.get(f"{server.base_url}/customers?corporation_id=corp_2", headers=headers, timeout=60, trust_env=False)


def test_synchronous_programs_can_use_it() -> None:
    """With a plain `with` it serves clients without an event loop. Its thread ends with the block. It can serve again."""
    server = Emulator(CORPORATIONS)
    before = set(threading.enumerate())
    for _ in range(2):
        with server:
            assert fetch(server).json()["data"]["total_customers"] == 3
            assert set(threading.enumerate()) > before
        assert set(threading.enumerate()) <= before
    assert len(server.requests) == 2


def test_its_own_errors_come_to_light() -> None:
    """The client gets a 500. Leaving the block raises the error, also in place of one that follows from it."""
    with pytest.raises(LookupError, match="this fault has a bug"), Emulator(CORPORATIONS, faults=[Broken(at=[1])]) as server:
        assert [fetch(server).status_code for _ in range(2)] == [500, 200]
    with pytest.raises(LookupError) as caught, Emulator(CORPORATIONS, faults=[Broken()]) as server:
        fetch(server).raise_for_status()
    assert isinstance(caught.value.__context__, httpx.HTTPStatusError)


async def test_its_own_errors_do_not_replace_a_cancellation() -> None:
    """A block that is cancelled stays cancelled. Any other end of the block raises the error of the emulator."""
    with anyio.CancelScope() as scope:
        async with Emulator(CORPORATIONS, faults=[Broken()]) as server:
            assert (await anyio.to_thread.run_sync(fetch, server)).status_code == 500
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(LookupError):
        async with Emulator(CORPORATIONS, faults=[Broken()]) as server:
            assert (await anyio.to_thread.run_sync(fetch, server)).status_code == 500


async def test_what_is_no_json_comes_to_light() -> None:
    """A record that JSON cannot express is an error of the test, and is raised as such."""
    with pytest.raises(TypeError, match="not JSON serializable"), Emulator({"corp_2": [{"id": object()}]}) as server:
        assert fetch(server).status_code == 500


def test_a_server_that_does_not_start_is_an_error() -> None:
    """If the server itself fails, its thread ends and the error is kept for the one who stops it."""
    server = LoopbackServer(Emulator(CORPORATIONS))
    server._socket.close()
    server.start()
    server.stop()
    assert isinstance(server.failure, OSError)
