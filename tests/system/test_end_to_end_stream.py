"""Streams of many corporations, over real HTTP."""

import gc
from collections import defaultdict
from itertools import count
from typing import Any

import anyio
import httpx
import pytest

from commenda_customers import (
    AsyncCustomersAPI,
    Checkpoint,
    CustomersError,
    Event,
    NotFoundError,
    PageFetched,
    RetryPolicy,
    Token,
)
from commenda_customers.testing import Emulator, RateLimit, faults

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(max_attempts=None, deadline=120, initial_wait=0.01, max_wait=0.05)
MAYHEM = (
    faults.ForeignCustomer(at=[13]),
    faults.Drop(probability=0.05),
    faults.CutBody(probability=0.05),
    faults.Status(status=503, probability=0.05),
    faults.NotJSON(probability=0.05),
    faults.EmptyPage(probability=0.05),
)


def held(server: Emulator) -> dict[str, list[str]]:
    """Return the ids that the server holds."""
    return {name: [customer["id"] for customer in server.customers(name)] for name in server.corporations}


async def test_every_customer_comes_despite_faults() -> None:
    """Every customer of every corporation arrives once and in order, despite faults of all kinds and a rate limit."""
    sizes = {f"corp_{number}": 37 * number for number in range(12)}
    came: dict[str, list[str]] = {name: [] for name in sizes}
    async with (
        Emulator(sizes, seed=5, faults=MAYHEM, rate_limit=RateLimit(rate=300, burst=20)) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url, retry=QUICK) as api,
        api.stream(sizes, concurrency=5, limit=20) as stream,
    ):
        async for customer in stream:
            came[customer.corporation_id].append(customer.id)
    assert came == held(server)
    assert stream.progress.finished == 12


async def test_a_token_may_rotate_while_streaming() -> None:
    """Every customer arrives once while the token changes several times, with a provider that fails now and then."""
    sizes = {f"corp_{number}": 200 for number in range(6)}
    came: dict[str, list[str]] = {name: [] for name in sizes}
    calls, pages = count(1), count(1)

    async def provide() -> Token:
        await anyio.sleep(0.001)
        if next(calls) % 3 == 0:
            raise ConnectionResetError("the identity provider restarts")
        return Token(server.token, expires_in=0.05)

    def rotate(event: Event) -> None:
        if isinstance(event, PageFetched) and (number := next(pages)) % 20 == 0:
            server.token = f"token-{number}"

    async with (
        Emulator(sizes, seed=5, faults=[faults.Status(status=503, probability=0.05)]) as server,
        AsyncCustomersAPI(provide, base_url=server.base_url, retry=QUICK, hooks=[rotate]) as api,
        api.stream(sizes, concurrency=4, limit=20) as stream,
    ):
        async for customer in stream:
            came[customer.corporation_id].append(customer.id)
    assert came == held(server)
    assert next(calls) > 3


async def test_interrupted_runs_yield_everything_once() -> None:
    """Runs that timeouts, errors and breaks interrupt together yield every customer once, each with a new client."""
    sizes = {f"corp_{number}": 60 for number in range(6)}
    came: dict[str, list[str]] = defaultdict(list)
    text: str | None = None
    trouble = [*MAYHEM, faults.Status(status=500, probability=0.05)]
    async with Emulator(sizes, seed=2, faults=trouble, latency=0.005) as server:
        for run in count():
            resume = None if text is None else Checkpoint.model_validate_json(text)
            async with AsyncCustomersAPI(server.token, base_url=server.base_url, retry=RetryPolicy(max_attempts=1)) as api:
                stream = api.stream(sizes, concurrency=3, limit=10, resume=resume)
                try:
                    with anyio.move_on_after(0.03 if run % 2 else None):
                        async with stream:
                            async for customer in stream:
                                came[customer.corporation_id].append(customer.id)
                                if run % 3 == 0 and len(came[customer.corporation_id]) % 17 == 0:
                                    break
                            else:
                                break
                except CustomersError as error:
                    assert error.checkpoint == stream.checkpoint()  # noqa: PT017 - most runs raise, not each
                text = stream.checkpoint().model_dump_json()
    assert came == held(server)


@pytest.mark.parametrize("stop", [100, 150])
async def test_it_resumes_at_an_empty_page(stop: int) -> None:
    """An empty page with a cursor, where a run had stopped, does not count as a changed list."""
    async with (
        Emulator({"corp_1": 500}, faults=[faults.EmptyPage(at=[3])]) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url) as api,
    ):
        iteration = aiter(api.list("corp_1"))
        came = [(await anext(iteration)).id for _ in range(stop)]
        while len(server.requests) < 2:  # so that the third request is the first of what follows
            await api.list("corp_1", limit=1)
        came += [customer.id async for customer in api.list("corp_1", resume=iteration.checkpoint())]
    assert came == held(server)["corp_1"]


async def test_one_bad_corporation_among_many() -> None:
    """A refused corporation ends the stream, or is one failure if errors are collected."""
    async with (
        Emulator({f"corp_{number}": 30 for number in range(4)}) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url) as api,
    ):
        with pytest.raises(NotFoundError) as caught:
            async with api.stream([*server.corporations, "nobody"]) as stream:
                [customer async for customer in stream]
        assert caught.value.corporation_id == "nobody"

        async with api.stream(["nobody", *server.corporations], errors="collect") as stream:
            assert len([customer async for customer in stream]) == 120
        assert list(stream.failures) == ["nobody"]


@pytest.mark.parametrize("after", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12])
async def test_a_timeout_leaves_no_connection_in_use(after: float) -> None:
    """A stream that a timeout ends returns all its connections, and nothing warns."""
    limits = httpx.Limits(max_connections=4)
    async with (
        Emulator({f"corp_{number}": 500 for number in range(8)}, latency=0.01) as server,
        httpx.AsyncClient(limits=limits) as client,
        AsyncCustomersAPI(server.token, base_url=server.base_url, http_client=client) as api,
    ):
        with anyio.move_on_after(after):
            async with api.stream(server.corporations, concurrency=8, limit=50) as stream:
                [customer async for customer in stream]
        with anyio.fail_after(60):
            async with api.stream(server.corporations, limit=100) as stream:
                assert len([customer async for customer in stream]) == 4000
    gc.collect()  # an open socket would be a warning, and so an error


async def test_filters_go_with_every_corporation() -> None:
    """The filters and the limit of a stream hold for each of its corporations."""
    filters: dict[str, Any] = {"search_term": "co", "extend": ["shipping_address"]}
    async with (
        Emulator({"corp_1": 80, "corp_2": 90}) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url) as api,
        api.stream(["corp_1", "corp_2"], limit=7, **filters) as stream,
    ):
        came = sorted([customer.id async for customer in stream])
    assert came == sorted(row["id"] for name in server.corporations for row in server.customers(name, search_term="co"))
    assert {request.params["limit"] for request in server.requests} == {"7"}
    assert {request.params["extend"] for request in server.requests} == {"shipping_address"}
