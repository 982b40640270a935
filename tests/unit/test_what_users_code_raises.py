"""What a program's own code raises inside of the client: hooks, token providers, ids, limiters, and hooks of httpx."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest

from commenda_customers import AdaptiveLimiter, AsyncCustomersAPI, Checkpoint, CustomerPage, Feedback, Permit
from commenda_customers.events import (
    Event,
    InvalidCustomerReceived,
    PageFailed,
    PageFetched,
    RequestFailed,
    RequestSent,
    ResponseReceived,
    RetryScheduled,
    Throttled,
)
from commenda_customers.export import export
from raw_server import listing
from script import Script, status

pytestmark = pytest.mark.anyio


class OwnError(Exception):
    """What the program itself raises."""


MISTAKES: list[Callable[[], BaseException]] = [
    OwnError,
    KeyboardInterrupt,
    lambda: SystemExit(3),
    lambda: BaseExceptionGroup("the program's own group", [KeyboardInterrupt()]),
    lambda: TimeoutError("the program's own"),  # of a token provider, it is an outage
]
KINDS: list[type[Event]] = [
    RequestSent,
    ResponseReceived,
    RequestFailed,
    RetryScheduled,
    Throttled,
    PageFetched,
    InvalidCustomerReceived,
    PageFailed,
]


class Memory:
    """A sink that keeps nothing."""

    async def open(self) -> Checkpoint | None:
        return None

    async def write(self, page: CustomerPage) -> None: ...

    async def commit(self, checkpoint: Checkpoint) -> None: ...

    async def finish(self) -> None: ...


async def await_pages(api: AsyncCustomersAPI) -> None:
    await api.list("corp_1", invalid_customers="collect")
    await api.list("corp_1", cursor="2", invalid_customers="collect")


async def read_list(api: AsyncCustomersAPI) -> None:
    async for _customer in api.list("corp_1", invalid_customers="collect"):
        pass


async def read_stream(api: AsyncCustomersAPI) -> None:
    async with api.stream(["corp_1"], invalid_customers="collect") as stream:
        async for _customer in stream:
            pass


async def collect_stream(api: AsyncCustomersAPI) -> None:
    async with api.stream(["corp_1"], errors="collect", invalid_customers="collect") as stream:
        async for _customer in stream:
            pass


async def export_all(api: AsyncCustomersAPI) -> None:
    await export(api, ["corp_1"], Memory())


Read = Callable[[AsyncCustomersAPI], Awaitable[None]]
READS: list[Read] = [await_pages, read_list, read_stream, collect_stream, export_all]


def every_event() -> Script:
    """Answer in a way that leads to each kind of event."""
    row = {**listing("a", cursor="2"), "customers": [{"id": "a", "corporation_id": "corp_1"}, {"id": "!"}]}
    return Script(status(503), status(429, retry_after="1"), httpx.Response(200, json=row), status(404))


async def is_raised_as_itself(script: Script, api: AsyncCustomersAPI, read: Read, mistake: BaseException) -> None:
    """Check that reading raises what the program raised, leaves nothing behind, and that the client still works."""
    before = {task.id for task in anyio.get_running_tasks()}
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is looked at below
        await read(api)
    assert caught.value is mistake
    await anyio.lowlevel.checkpoint()
    assert {task.id for task in anyio.get_running_tasks()} <= before
    assert api.rate_limit is not None
    snapshot = api.rate_limit.snapshot()
    assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
    assert api._fetcher.http.connections.value == 100
    script.answers[:] = [httpx.Response(200, json=listing("a"))]
    assert len(await api.list("corp_1")) == 1


class Once:
    """Raises an exception once."""

    def __init__(self, mistake: BaseException) -> None:
        self._left = [mistake]

    def __call__(self) -> None:
        if self._left:
            raise self._left.pop()


@pytest.mark.parametrize("make", MISTAKES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", READS)
async def test_a_hook(read: Read, kind: type[Event], make: Callable[[], BaseException]) -> None:
    """What a hook raises, for any event, reaches the program unchanged."""
    mistake, script = make(), every_event()
    fail = Once(mistake)

    def hook(event: Event) -> None:
        if isinstance(event, kind):
            fail()

    async with script.api(hooks=[hook]) as api:
        await is_raised_as_itself(script, api, read, mistake)


@pytest.mark.parametrize("make", MISTAKES[:-1])
@pytest.mark.parametrize("read", READS)
async def test_a_token_provider(read: Read, make: Callable[[], BaseException]) -> None:
    """What a token provider raises, unless it may pass, reaches the program unchanged."""
    mistake, script = make(), every_event()
    fail = Once(mistake)

    async def provide() -> str:
        await anyio.sleep(1)
        fail()
        return "test-token"

    async with script.api(token=provide) as api:
        await is_raised_as_itself(script, api, read, mistake)


@pytest.mark.parametrize("make", MISTAKES)
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("when", ["request", "response"])
async def test_a_hook_of_httpx(when: str, read: Read, make: Callable[[], BaseException]) -> None:
    """What a hook of the program's HTTP client raises reaches the program unchanged."""
    mistake, script = make(), every_event()
    fail = Once(mistake)

    async def hook(_message: Any) -> None:
        fail()

    transport = httpx.MockTransport(script)
    async with (
        httpx.AsyncClient(transport=transport, event_hooks={when: [hook]}) as client,
        script.api(http_client=client) as api,
    ):
        await is_raised_as_itself(script, api, read, mistake)


class FailingLimiter(AdaptiveLimiter):
    """A limiter of the program that fails once, in one of its methods, before or after it has done its work."""

    def __init__(self, method: str, mistake: BaseException) -> None:
        super().__init__()
        self._method = method
        self._fail = Once(mistake)

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        if self._method == "acquire":
            self._fail()
        return await super().acquire(again=again, max_wait=max_wait)

    def release(self, permit: Permit, feedback: Feedback) -> None:
        super().release(permit, feedback)
        if self._method == "release":
            self._fail()


@pytest.mark.parametrize("make", MISTAKES)
@pytest.mark.parametrize("method", ["acquire", "release"])
@pytest.mark.parametrize("read", READS)
async def test_a_limiter(read: Read, method: str, make: Callable[[], BaseException]) -> None:
    """What a limiter of the program raises reaches the program unchanged."""
    mistake, script = make(), every_event()
    async with script.api(rate_limit=FailingLimiter(method, mistake)) as api:
        await is_raised_as_itself(script, api, read, mistake)


@pytest.mark.parametrize("make", MISTAKES)
@pytest.mark.parametrize("errors", ["raise", "collect"])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("after", [0, 1])
async def test_ids(after: int, is_async: bool, errors: Any, make: Callable[[], BaseException]) -> None:
    """What the program raises while it makes ids reaches the program unchanged."""
    mistake, script = make(), every_event()

    def ids() -> Iterator[str]:
        yield from ["corp_1"][:after]
        raise mistake

    async def async_ids() -> AsyncGenerator[str]:
        for name in ids():
            yield name

    async def read(api: AsyncCustomersAPI) -> None:
        async with api.stream(async_ids() if is_async else ids(), errors=errors, invalid_customers="collect") as stream:
            async for _customer in stream:
                pass

    async with script.api() as api:
        await is_raised_as_itself(script, api, read, mistake)


@pytest.mark.parametrize("make", MISTAKES)
async def test_the_end_of_a_generator_of_ids(make: Callable[[], BaseException]) -> None:
    """What the program raises when the stream closes its generator of ids reaches the program unchanged."""
    mistake, script = make(), every_event()

    async def ids() -> AsyncGenerator[str]:
        try:
            yield "corp_1"
            await anyio.sleep_forever()
        finally:
            raise mistake

    async def read(api: AsyncCustomersAPI) -> None:
        async with api.stream(ids(), invalid_customers="collect") as stream:
            async for _customer in stream:
                break

    async with script.api() as api:
        await is_raised_as_itself(script, api, read, mistake)


@pytest.mark.parametrize("make", MISTAKES)
async def test_the_body_of_a_loop(make: Callable[[], BaseException]) -> None:
    """An exception of the program's own block passes the blocks of the client and of the stream unchanged."""
    mistake, script = make(), every_event()

    async def read_a_little(api: AsyncCustomersAPI) -> None:
        async with api.stream(["corp_1"], invalid_customers="collect") as stream:
            async for _customer in stream:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep, 1)
                raise mistake

    async with script.api() as api:
        await is_raised_as_itself(script, api, read_a_little, mistake)
