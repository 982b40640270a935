"""Programs that end in the middle, and processes that run out of something."""

import gc
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from commenda_customers import APIConnectionError, AsyncCustomersAPI, RetryPolicy
from commenda_customers.events import Event, RetryScheduled
from emulated import ServeEmulator
from raw_server import TOKEN, Connection, RawServer, listing, ok
from script import Script
from waiting import until

GOOD = ok(listing("a"))


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Use up all file descriptors of the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))
    taken: list[int] = []
    try:
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            yield
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not show its file descriptors")
async def test_no_file_descriptors(raw_server: RawServer) -> None:
    """Without file descriptors a request fails with one clear error, as if it could not connect; later ones succeed."""
    raw_server.behave(raw_server.answers(GOOD))
    retry = RetryPolicy(max_attempts=2, initial_wait=0.01)
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=retry) as api:
        with no_descriptors_left(), pytest.raises(APIConnectionError, match="Too many open files") as caught:
            await api.list("corp_1")
        assert caught.value.attempts == 2
        assert len(await api.list("corp_1")) == 1


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not show its file descriptors")
async def test_no_file_descriptors_for_the_certificates() -> None:
    """A client that cannot read its certificates, because there are no file descriptors, tries again."""
    events: list[Event] = []
    retry = RetryPolicy(max_attempts=2, initial_wait=0.01)
    async with AsyncExitStack() as stack:
        api = AsyncCustomersAPI(TOKEN, base_url="https://127.0.0.1:1", retry=retry, hooks=[events.append])
        stack.push_async_callback(api.aclose)
        with no_descriptors_left(), pytest.raises(APIConnectionError, match="Too many open files"):
            await api.list("corp_1")
        assert len([event for event in events if isinstance(event, RetryScheduled)]) == 1
        with pytest.raises(APIConnectionError, match=r"127\.0\.0\.1"):
            await api.list("corp_1")


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not show its file descriptors")
async def test_clients_leave_nothing(raw_server: RawServer) -> None:
    """Hundreds of clients that were opened, used and closed leave no descriptor, no thread and no object behind."""
    sent = raw_server.answers(GOOD)
    raw_server.behave(sent)

    async def use(clients: int) -> tuple[int, int, int]:
        for _ in range(clients):
            async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
                await api.list("corp_1")
        for thread in raw_server._threads[1:]:
            await anyio.to_thread.run_sync(thread.join)
        del raw_server._threads[1:], raw_server._sockets[:], raw_server.requests[:]
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count(), sum(map(_is_of_clients, gc.get_objects()))

    await use(50)
    descriptors, threads, objects = await use(50)
    after = await use(300)
    assert after[0] <= descriptors
    assert after[1] <= threads
    assert after[2] < objects + 150


def _is_of_clients(each: object) -> bool:
    """Return whether an object is of the SDK or a library below it. Coverage keeps objects of its own for each thread."""
    return str(type(each).__module__).partition(".")[0] in {"commenda_customers", "httpx", "httpcore", "h11", "anyio"}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_blocked_event_loop(raw_server: RawServer, backend: str) -> None:
    """A response that came in time, while the program blocked the event loop past the timeout, costs no page."""

    def late(connection: Connection) -> None:
        while connection.read_request():
            asked.set()
            sent.wait(120)
            connection.send(GOOD)

    asked, sent = threading.Event(), threading.Event()
    raw_server.behave(late)

    async def block() -> None:
        await until(asked.is_set)
        sent.set()
        time.sleep(3)

    async def main() -> None:
        retry = RetryPolicy(max_attempts=2, initial_wait=0.01)
        async with (
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, timeout=2, retry=retry) as api,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(block)
            assert len(await api.list("corp_1")) == 1

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_large_page_among_slow_tasks(backend: str) -> None:
    """A page of a megabyte that came in time is read, although other tasks run for longer than the timeout meanwhile."""
    rows = [{"id": f"{number}", "corporation_id": "corp_1", "name": "N" * 400} for number in range(2500)]
    script = Script(httpx.Response(200, json={"customers": rows}))

    async def block_often() -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            if script.requests:
                time.sleep(0.2)

    async def main() -> None:
        async with script.api(timeout=2) as api, anyio.create_task_group() as tasks:
            tasks.start_soon(block_often)
            assert len(await api.list("corp_1")) == len(rows)
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)


def _depth() -> int:
    frame, count = sys._getframe(), 0
    while frame := frame.f_back:  # type: ignore[assignment]  # it ends with None
        count += 1
    return count


async def _from_deep(calls: int, function: Callable[[], Awaitable[None]]) -> None:
    await (_from_deep(calls - 1, function) if calls > 0 else function())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_reused_connection_at_the_recursion_limit(raw_server: RawServer, backend: str) -> None:
    """If the stack is too deep for a request on an open connection, the call raises RecursionError, and sends nothing."""
    raw_server.behave(raw_server.answers(*[GOOD] * 200))

    async def main() -> None:
        async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, rate_limit=None) as api:

            async def fetch() -> None:
                assert len(await api.list("corp_1")) == 1

            await fetch()
            for left in [*range(2, 250, 2), 700]:  # where coverage is measured, calls count twice
                sent = len(raw_server.requests)
                try:
                    await _from_deep(sys.getrecursionlimit() - _depth() - left, fetch)
                except RecursionError:
                    assert len(raw_server.requests) == sent
                else:
                    assert left > 50
            await fetch()

    anyio.run(main, backend=backend)
    assert raw_server.connections == 1


START = """
import anyio, asyncio, sys, threading
from commenda_customers import AsyncCustomersAPI
IDS = ["corp_1", "corp_2"]
"""
PROGRAMS = {
    "in a stream": """
async def main():
    async with AsyncCustomersAPI() as api, api.stream(IDS, limit=2) as stream:
        async for customer in stream:
            sys.exit(3)
anyio.run(main, backend=BACKEND)
""",
    "a client that was never closed": """
async def main():
    async for customer in AsyncCustomersAPI().list("corp_1", limit=2):
        sys.exit(3)
anyio.run(main, backend=BACKEND)
""",
    "a global client": """
api = AsyncCustomersAPI()
async def main():
    async for customer in api.list("corp_1", limit=2):
        break
anyio.run(main, backend=BACKEND)
sys.exit(3)
""",
    "a stream in a daemon thread": """
started = threading.Event()
async def main():
    async with AsyncCustomersAPI() as api:
        while True:
            async with api.stream(IDS, limit=2) as stream:
                async for customer in stream:
                    started.set()
threading.Thread(target=lambda: anyio.run(main, backend=BACKEND), daemon=True).start()
started.wait(60)
sys.exit(3)
""",
    "a stream that is left open": """
async def main():
    api = AsyncCustomersAPI()
    stream = api.stream(IDS, limit=2)
    await stream.__aenter__()
    async for customer in stream:
        sys.exit(3)
asyncio.run(main())
""",
    "an event loop that is left open": """
async def main():
    async with AsyncCustomersAPI() as api, api.stream(IDS, limit=2) as stream:
        async for customer in stream:
            loop.stop()
            await asyncio.sleep(60)
loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_forever()
sys.exit(3)
""",
}


ON_ASYNCIO = {"a stream that is left open", "an event loop that is left open"}
"""Trio ends what is left open, and closes its event loops itself."""


@pytest.mark.parametrize(
    ("program", "backend"),
    [
        (name, backend)
        for backend in ("asyncio", "trio")
        for name in PROGRAMS
        if backend == "asyncio" or name not in ON_ASYNCIO
    ],
)
def test_the_program_ends(serve: ServeEmulator, program: str, backend: str) -> None:
    """A program that ends while a list or a stream is open keeps its exit code, and prints nothing."""
    serve({"corp_1": 300, "corp_2": 300})
    code = START + f"BACKEND = {backend!r}\n" + PROGRAMS[program]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
