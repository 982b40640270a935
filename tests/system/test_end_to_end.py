"""The main job, over real HTTP: every customer of a corporation, whatever happens on the way."""

from typing import Any

import anyio
import httpx
import httpx2
import pytest

from commenda_customers import (
    AsyncCustomersAPI,
    AuthenticationError,
    CursorLoopError,
    InvalidResponseError,
    RequestSent,
    RetryPolicy,
)
from commenda_customers.testing import Emulator, RateLimit, faults

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(max_attempts=None, deadline=120, initial_wait=0.01, max_wait=0.05)
MAYHEM = (
    faults.Hang(at=[5]),
    faults.Slow(at=[9], delay=0.01, piece=20),
    faults.Slow(at=[11], delay=0.001, piece=2000),
    faults.ForeignCustomer(at=[13]),
    faults.Drop(probability=0.12),
    faults.CutBody(probability=0.08),
    faults.Status(status=503, at=[15], headers={"Retry-After": "0.01"}),
    faults.Status(status=503, probability=0.08),
    faults.TooManyRequests(probability=0.04, retry_after_ms="10"),
    faults.NotJSON(probability=0.08),
    faults.EmptyPage(probability=0.08),
)


def everyone(emulator: Emulator, corporation_id: str = "corp_1", **params: str) -> list[str]:
    """Return the ids that an iteration must bring."""
    return [customer["id"] for customer in emulator.customers(corporation_id, **params)]


@pytest.mark.parametrize(
    ("library", "envelope", "limiter"),
    # A limiter takes the refusals for a limit, which makes the job ten seconds longer. It knows no HTTP: once is enough.
    [(None, "wrapped", "adaptive"), (httpx, "bare", None), (httpx2, "wrapped", None)],
    ids=["own client", "httpx", "httpx2"],
)
async def test_every_customer_comes_despite_faults(library: Any, envelope: Any, limiter: Any) -> None:
    """Every customer arrives once and in order while half of the responses are broken, with each HTTP client."""
    async with Emulator({"corp_1": 250}, seed=3, envelope=envelope, faults=MAYHEM) as server:
        client = None if library is None else library.AsyncClient()
        async with AsyncCustomersAPI(
            server.token, base_url=server.base_url, http_client=client, timeout=0.5, retry=QUICK, rate_limit=limiter
        ) as api:
            came = [customer.id async for customer in api.list("corp_1", limit=10)]
        if client is not None:
            await client.aclose()
        assert came == everyone(server)
        assert len(server.requests) > 35


async def test_many_corporations_through_a_rate_limit() -> None:
    """A rate limit slows lists that are read at the same time, and no customer is lost or repeated."""
    rate, was_refused = 80.0, False
    while not was_refused:  # a machine may be too busy for a rate
        limit = RateLimit(rate=rate, burst=5, retry_after="fraction")
        came: dict[str, list[str]] = {}
        async with (
            Emulator({f"corp_{number}": 100 + number for number in range(12)}, rate_limit=limit) as server,
            AsyncCustomersAPI(server.token, base_url=server.base_url, retry=QUICK) as api,
            anyio.create_task_group() as tasks,
        ):
            for corporation_id in server.corporations:
                tasks.start_soon(_read, api, corporation_id, came)
        assert came == {corporation_id: everyone(server, corporation_id) for corporation_id in server.corporations}
        was_refused = 429 in {request.status for request in server.requests}
        rate /= 2


async def _read(api: AsyncCustomersAPI, corporation_id: str, came: dict[str, list[str]]) -> None:
    came[corporation_id] = [customer.id async for customer in api.list(corporation_id, limit=20)]


@pytest.mark.parametrize(
    "filters",
    [
        {"search_term": "GmbH"},
        {"source_platforms": ["SHOPIFY", "XERO"]},
        {"source_platform_ids": ["shopify-3", "xero-5", "stripe-7"]},
        {"certificate_types": ["BLANKET", "MULTI_STATE"]},
        {"exemption_jurisdiction": "US_CA"},
        {"expiration_status": "EXPIRED"},
        {"exemption_status": "INACTIVE"},
        {"has_exemption": True},
        {"has_exemption": False, "search_term": "co"},
        {"name": "Tidewater Imports Co."},
    ],
    ids=repr,
)
async def test_filters_reach_the_server(filters: Any) -> None:
    """Each filter brings what the server has for it, on every page."""
    params = {
        name: str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else ",".join(value)
        for name, value in filters.items()
    }
    async with (
        Emulator({"corp_1": 200}) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url, retry=QUICK) as api,
    ):
        assert [customer.id async for customer in api.list("corp_1", limit=5, **filters)] == everyone(server, **params)


async def test_parts_come_typed() -> None:
    """Addresses and exemption metadata are read, in either spelling."""
    cities: list[list[str | None]] = []
    for spelling in ("line", "address_line"):
        async with (
            Emulator({"corp_1": 30}, address_spelling=spelling) as server,  # type: ignore[arg-type]  # a str in a loop is no Literal
            AsyncCustomersAPI(server.token, base_url=server.base_url) as api,
        ):
            page = await api.list("corp_1", extend=["shipping_address", "exemption_metadata"])
        assert all(customer.exemption_metadata is not None for customer in page)
        assert all(customer.model_extra == {} for customer in page)
        cities.append([customer.shipping_address and customer.shipping_address.line1 for customer in page])
    assert cities[0] == cities[1]
    assert all(cities[0])


async def test_a_token_may_expire_during_an_iteration() -> None:
    """A provider is asked again when the server stops accepting the token; a fixed token is an error."""
    async with Emulator({"corp_1": 50}) as server:

        async def provide() -> str:
            return server.token

        for is_provided in (True, False):
            token = provide if is_provided else server.token
            async with AsyncCustomersAPI(token, base_url=server.base_url) as api:
                iteration = aiter(api.list("corp_1", limit=10))
                came = [(await anext(iteration)).id for _ in range(10)]
                server.token = f"{server.token}-renewed"
                if is_provided:
                    came += [customer.id async for customer in iteration]
                    assert came == everyone(server)
                else:
                    with pytest.raises(AuthenticationError, match="invalid or missing token"):
                        await anext(iteration)


async def test_a_failed_iteration_can_be_resumed() -> None:
    """Another iteration resumes from the cursor of the error: together they yield every customer once."""
    async with (
        Emulator({"corp_1": 100}, faults=[faults.WrongEnvelope(at=[4])]) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url) as api,
    ):
        came: list[str] = []
        with pytest.raises(InvalidResponseError) as caught:
            async for customer in api.list("corp_1", limit=10):
                came.append(customer.id)
        assert len(came) == 30
        came += [customer.id async for customer in api.list("corp_1", limit=10, cursor=caught.value.cursor)]
        assert came == everyone(server)


async def test_a_repeated_cursor_is_an_error() -> None:
    """A repeated cursor ends the iteration with an error, after the customers before it."""
    async with (
        Emulator({"corp_1": 100}, faults=[faults.RepeatedCursor(at=[3])]) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url) as api,
    ):
        came: list[str] = []
        with pytest.raises(CursorLoopError):
            async for customer in api.list("corp_1", limit=10):
                came.append(customer.id)
        assert came == everyone(server)[:30]
        assert len(server.requests) == 3


async def test_leaving_early_costs_one_page() -> None:
    """An iteration that is left by `break` has requested one page, and the client still works."""
    sent: list[object] = []
    async with (
        Emulator() as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url, hooks=[sent.append]) as api,
    ):
        async for _customer in api.list("corp_123"):
            break
        assert len([event for event in sent if isinstance(event, RequestSent)]) == 1
        assert len(await api.list("corp_123", limit=3)) == 3
