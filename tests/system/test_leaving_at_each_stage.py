"""Lists and streams that are left while a request is at each of its stages, on real sockets, in each way that there is."""

import asyncio
import gc
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from behaviours import connections_of
from commenda_customers import AsyncCustomersAPI, FixedRate
from commenda_customers.events import Event, RetryScheduled
from raw_server import TOKEN, Connection, RawServer, listing, ok
from waiting import until

STAGES = ["connecting", "TLS handshake", "token", "limiter", "retry", "head", "body"]
AFTER_A_PAGE = ["limiter", "retry", "head", "body"]
"""Stages that one request can be at while others succeed."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
REFUSAL = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: 60\r\n\r\n"


class OwnError(Exception):
    """What the program itself raises."""


@dataclass
class Stalled:
    """A client whose requests stop at one stage; only the first of `corp_1` does not, where that is possible."""

    api: AsyncCustomersAPI
    is_reached: Callable[[], bool]
    recover: Callable[[], None] | None = None


class StallingServer(RawServer):
    """Answers the requests for `corp_1`. To each other it sends some bytes, and then nothing more until it has recovered."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stalled = 0
        self.is_good = False
        self._stage = stage
        self.behave(self._answer)

    def _answer(self, connection: Connection) -> None:
        while head := connection.read_request():
            name = head.partition(b"corporation_id=")[2][:6].decode()
            if name == "corp_1" or self.is_good:
                connection.send(ok(listing("a", corporation_id=name)))
                continue
            self.stalled += 1
            connection.send({"retry": REFUSAL, "body": HEAD}.get(self._stage, b""))
            if self._stage != "retry":
                connection.wait_for_end()

    def recover(self) -> None:
        self.is_good = True


@contextmanager
def silent(*, is_full: bool) -> Iterator[socket.socket]:
    """Open a socket that says nothing to those who connect. If it is full, nobody can connect, and nobody is refused."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as waiting:
        listening.setblocking(False)
        if is_full:
            listening.listen(0)
            for _ in range(2):
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(listening.getsockname())
        yield listening


@asynccontextmanager
async def stalled_before_http(stage: str) -> AsyncGenerator[Stalled]:
    """Open a client that cannot connect, or whose TLS handshake never ends."""
    began, accepted = anyio.current_time(), ExitStack()
    is_connecting, seen = stage == "connecting", list[bool]()

    def is_reached() -> bool:
        if is_connecting:  # which nobody can see
            return anyio.current_time() > began + 0.1
        with suppress(BlockingIOError):
            accepted.enter_context(listening.accept()[0])
            seen.append(True)
        return bool(seen)

    with silent(is_full=is_connecting) as listening, accepted:
        port = listening.getsockname()[1]
        async with AsyncCustomersAPI(TOKEN, base_url=f"http{'' if is_connecting else 's'}://127.0.0.1:{port}") as api:
            yield Stalled(api, is_reached)


@asynccontextmanager
async def stalled_at(stage: str) -> AsyncGenerator[Stalled]:
    """Open a client whose requests stop at a stage. Afterwards nothing may be left of what it did."""
    if stage in {"connecting", "TLS handshake"}:
        async with stalled_before_http(stage) as stalled:
            yield stalled
        return

    events, calls = list[Event](), list[None]()

    async def provide() -> str:
        calls.append(None)
        if not server.is_good:
            await anyio.sleep_forever()
        return TOKEN

    limiters = {"limiter": FixedRate(1, per=3600), "retry": None}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(StallingServer(stage))
        api = await stack.enter_async_context(
            AsyncCustomersAPI(
                provide if stage == "token" else TOKEN,
                base_url=server.url,
                hooks=[events.append],
                rate_limit=limiters.get(stage, "adaptive"),
            )
        )
        if stage == "limiter":
            limiter = api.rate_limit
            assert limiter is not None
            yield Stalled(api, lambda: limiter.snapshot().waiting > 0)
            return
        reached: dict[str, Callable[[], bool]] = {
            "token": lambda: bool(calls),
            "retry": lambda: any(isinstance(event, RetryScheduled) for event in events),
        }
        yield Stalled(api, reached.get(stage, lambda: server.stalled > 0), server.recover)


Use = Callable[[AsyncCustomersAPI], Awaitable[None]]


@contextmanager
def cancelled_as_itself() -> Iterator[None]:
    """Check that the program sees its own cancellation, or that the client was closed, and not a group."""
    try:
        yield
    except BaseException as exc:
        assert isinstance(exc, anyio.get_cancelled_exc_class() | KeyboardInterrupt | RuntimeError), repr(exc)  # noqa: PT017
        raise


async def use_list(api: AsyncCustomersAPI) -> None:
    with cancelled_as_itself():
        async for page in api.list("corp_1").pages():  # uses up what the limiter gives at once
            assert len(page) == 1
        async for _customer in api.list("corp_2"):
            pass


async def use_stream(api: AsyncCustomersAPI) -> None:
    with cancelled_as_itself():
        async with api.stream(["corp_1", "corp_2", "corp_3"]) as stream:
            with cancelled_as_itself():
                async for _customer in stream:
                    pass


async def leave_by_fail_after(use: Use, stalled: Stalled) -> None:
    async with anyio.create_task_group() as tasks:
        with pytest.raises(TimeoutError), anyio.fail_after(60) as scope:
            tasks.start_soon(_end, scope, stalled)
            await use(stalled.api)


async def _end(scope: anyio.CancelScope, stalled: Stalled) -> None:
    await until(stalled.is_reached)
    scope.deadline = -math.inf


async def leave_by_cancelling_a_scope(use: Use, stalled: Stalled) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use, stalled.api)
        await until(stalled.is_reached)
        tasks.cancel_scope.cancel()


async def leave_by_a_sibling(use: Use, stalled: Stalled) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use, stalled.api)
            await until(stalled.is_reached)
            raise OwnError
    assert [type(member) for member in caught.value.exceptions] == [OwnError]


async def leave_by_cancelling_a_task(use: Use, stalled: Stalled) -> None:
    task = asyncio.ensure_future(use(stalled.api))
    await until(stalled.is_reached)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_asyncio_timeout(use: Use, stalled: Stalled) -> None:
    async def end() -> None:
        await until(stalled.is_reached)
        timeout.reschedule(-math.inf)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60) as timeout:
            ending = asyncio.ensure_future(end())
            await use(stalled.api)
    await ending


async def leave_by_a_sibling_of_asyncio(use: Use, stalled: Stalled) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(use(stalled.api))  # type: ignore[arg-type]  # both are coroutine functions
            await until(stalled.is_reached)
            raise OwnError
    assert [type(member) for member in caught.value.exceptions] == [OwnError]


Leave = Callable[[Use, Stalled], Awaitable[None]]
EVERYWHERE: list[Leave] = [leave_by_fail_after, leave_by_cancelling_a_scope, leave_by_a_sibling]
ON_ASYNCIO: list[Leave] = [leave_by_cancelling_a_task, leave_by_asyncio_timeout, leave_by_a_sibling_of_asyncio]


@asynccontextmanager
async def nothing_left(stalled: Stalled) -> AsyncGenerator[None]:
    """Check that no task, permit or connection in use is left by the block, and that the client still works."""
    api = stalled.api
    before = {task.id for task in anyio.get_running_tasks()}
    yield
    await anyio.lowlevel.checkpoint()  # asyncio drops a task one step after its end
    assert {task.id for task in anyio.get_running_tasks()} <= before
    if api.rate_limit is not None:
        snapshot = api.rate_limit.snapshot()
        assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
    http: Any = api._fetcher.http
    assert http.connections.value == 100
    assert all(connection.is_idle() for connection in connections_of(api))
    if stalled.recover is not None:
        stalled.recover()
        assert len(await api.list("corp_2")) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("use", [use_list, use_stream])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("leave", EVERYWHERE)
async def test_it_is_left_as_itself(stage: str, leave: Leave, use: Use) -> None:
    """A cancellation of a list or a stream, at each stage, is raised unchanged, not in a group, and leaves nothing open."""
    async with stalled_at(stage) as stalled, nothing_left(stalled):
        await leave(use, stalled)
    gc.collect()  # an open socket would be a warning, and so an error


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("use", [use_list, use_stream])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("leave", ON_ASYNCIO)
async def test_it_is_left_as_itself_on_asyncio(stage: str, leave: Leave, use: Use) -> None:
    """The same for the cancellations of asyncio, which come only once."""
    async with stalled_at(stage) as stalled, nothing_left(stalled):
        await leave(use, stalled)
    gc.collect()


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["break", "exception", "exception in a task group"])
@pytest.mark.parametrize("stage", AFTER_A_PAGE)
async def test_a_stream_is_left_by_its_own_program(stage: str, way: str) -> None:
    """While requests are at each stage, `break` is quiet, and an exception of the program passes the block unchanged."""
    mine = OwnError("mine")

    async def read(stalled: Stalled) -> None:
        async with stalled.api.stream(["corp_1", "corp_2", "corp_3"]) as stream:
            async for _customer in stream:
                await until(stalled.is_reached)
                if way == "break":
                    break
                raise mine from KeyError("cause")

    async with stalled_at(stage) as stalled, nothing_left(stalled):
        if way == "break":
            await read(stalled)
        elif way == "exception":
            with pytest.raises(OwnError) as caught:
                await read(stalled)
            assert caught.value is mine
        else:
            with pytest.raises(ExceptionGroup) as group:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read, stalled)
            assert group.value.exceptions == (mine,)
        assert way == "break" or isinstance(mine.__cause__, KeyError)
    gc.collect()


@pytest.mark.anyio
@pytest.mark.parametrize("use", [use_list, use_stream])
@pytest.mark.parametrize("stage", ["connecting", "TLS handshake", "head", "body"])
async def test_the_client_is_closed_meanwhile(stage: str, use: Use) -> None:
    """If another task closes the client, requests in flight raise an error immediately, and no connection stays open."""

    async def read(api: AsyncCustomersAPI) -> None:
        with pytest.raises(RuntimeError, match="this AsyncCustomersAPI is closed"), anyio.fail_after(20):
            await use(api)

    async with stalled_at(stage) as stalled:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, stalled.api)
            await until(stalled.is_reached)
            await stalled.api.aclose()
        assert connections_of(stalled.api) == []
    gc.collect()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("use", [use_list, use_stream])
@pytest.mark.parametrize("stage", STAGES)
def test_it_is_left_by_ctrl_c(stage: str, use: Use, backend: str) -> None:
    """Ctrl-C at each stage raises KeyboardInterrupt, not a group, and leaves nothing open."""

    async def main() -> None:
        async with stalled_at(stage) as stalled:
            interrupt = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))

            async def press() -> None:
                await until(stalled.is_reached)
                interrupt.start()

            if backend == "asyncio":
                pressing = asyncio.ensure_future(press())
                await use(stalled.api)
                await pressing
            else:
                import trio

                trio.lowlevel.spawn_system_task(press)
                await use(stalled.api)

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=backend)
    gc.collect()
