"""The public surface as a user's type checker sees it. It is checked, never run."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Literal, assert_type

import httpx
import httpx2
from pydantic import SecretStr

from commenda_customers import (
    AdaptiveLimiter,
    Address,
    APIStatusError,
    AsyncCustomersAPI,
    Checkpoint,
    CursorRejectedError,
    Customer,
    CustomerFilters,
    CustomerList,
    CustomerPage,
    CustomersError,
    CustomerStream,
    Event,
    ExemptionMetadata,
    FixedRate,
    LimiterSnapshot,
    PageFailed,
    PageFetched,
    RateLimiter,
    RateLimitError,
    RequestFailed,
    ResumableIterator,
    RetryPolicy,
    RetryScheduled,
    StreamProgress,
    Token,
    TokenProvider,
)
from commenda_customers.export import (
    COLUMNS,
    CSVFile,
    JSONLinesFile,
    OutputError,
    OutputRefusedError,
    ParquetFolder,
    Sink,
    SQLiteDatabase,
    Summary,
    export,
    shard,
)
from commenda_customers.limits.redis import RedisLimiter
from commenda_customers.testing import Emulator, FaultPlan, RateLimit, ReceivedRequest, faults


async def provider() -> str:
    return "token"


async def expiring() -> Token:
    return Token(SecretStr("token"), expires_in=3600)


async def either() -> str | SecretStr | Token:
    return Token("token")


def on_event(event: Event) -> None:
    if isinstance(event, RetryScheduled):
        assert_type(event.error, CustomersError)
        assert_type(event.wait, float)
    elif isinstance(event, RequestFailed):
        assert_type(event.error, CustomersError)
    elif isinstance(event, PageFetched | PageFailed):
        assert_type(event.attempts, int)
        assert_type(event.request_id, str | None)


async def clients(own: httpx.AsyncClient, other: httpx2.AsyncClient) -> None:
    AsyncCustomersAPI()
    AsyncCustomersAPI("token", base_url="https://api.example/v1", timeout=None)
    AsyncCustomersAPI(SecretStr("token"), http_client=own, max_response_bytes=1)
    AsyncCustomersAPI(expiring)
    providers: list[TokenProvider] = [provider, expiring, either]
    AsyncCustomersAPI(providers[0])
    AsyncCustomersAPI(Token("token"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncCustomersAPI(http_client=httpx.Client())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncCustomersAPI(token=provider, http_client=other, hooks=[on_event], retry=RetryPolicy(max_attempts=None, deadline=60))


async def options(api: AsyncCustomersAPI) -> None:
    assert_type(api.with_options(timeout=None), AsyncCustomersAPI)
    await api.with_options(timeout=2, retry=RetryPolicy(deadline=2), hooks=[on_event]).list("corp_123", max_wait=2)
    api.with_options(retry=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    api.with_options(timeout="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    api.with_options(token="other")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def limits(limiter: RateLimiter) -> None:
    AsyncCustomersAPI("token", rate_limit=None)
    AsyncCustomersAPI("token", rate_limit=limiter)
    AsyncCustomersAPI("token", rate_limit="adaptive")
    AsyncCustomersAPI("token", rate_limit="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    api = AsyncCustomersAPI("token", rate_limit=AdaptiveLimiter())
    assert_type(api.rate_limit, RateLimiter | None)
    assert_type(FixedRate(10, per=1.0).snapshot(), LimiterSnapshot)
    async with RedisLimiter("redis://localhost", quota="prod", max_in_flight=10) as shared:
        assert_type(shared, RedisLimiter)
        AsyncCustomersAPI("token", rate_limit=shared)
    assert_type(limiter.estimate_wait(), float)
    await api.list("corp_123", max_wait=0.5)


async def lists(api: AsyncCustomersAPI) -> None:
    async with api as entered:
        assert_type(entered, AsyncCustomersAPI)

    customers = api.list(
        "corp_123",
        limit=50,
        cursor=None,
        name="Acme Corporation",
        search_term="acme",
        source_platforms=["SHOPIFY"],
        source_platform_ids=("shopify-1",),
        extend=["shipping_address", "exemption_metadata"],
        certificate_types=["BLANKET"],
        exemption_jurisdiction="US_CA",
        expiration_status="ACTIVE",
        exemption_status="ACTIVE",
        has_exemption=True,
    )
    assert_type(customers, CustomerList)
    assert_type(await customers, CustomerPage)
    async for customer in customers:
        assert_type(customer, Customer)
    async for page in customers.pages():
        assert_type(page, CustomerPage)
        assert_type([customer for customer in page], list[Customer])
        assert_type(len(page), int)
        assert_type(page.cursor, str | None)
    async with aclosing(aiter(customers)) as iteration:
        assert_type(iteration, ResumableIterator[Customer])
        generators: list[AsyncGenerator[Customer, None]] = [iteration]
        assert_type(generators[0], AsyncGenerator[Customer, None])
        assert_type(iteration.checkpoint(), Checkpoint)
    api.list("corp_123", resume=iteration.checkpoint())

    filters: CustomerFilters = {"search_term": "acme"}
    api.list("corp_123", **filters)
    # Editors complete the documented values; others are allowed.
    documented: Literal["shipping_address", "exemption_metadata"] = "exemption_metadata"
    undocumented: list[str] = ["tax_ids"]
    api.list("corp_123", extend=[documented, "tax_ids"], certificate_types=["MULTI_STATE", "PURPOSE_WHOLESALE"])
    api.list("corp_123", extend=undocumented, expiration_status="EXPIRED", exemption_status="REVOKED")
    # Mistakes that a type checker must find.
    api.list("corp_123", serch_term="acme")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    api.list("corp_123", extend=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    api.list("corp_123", limit="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def streams(api: AsyncCustomersAPI, ids: AsyncIterator[str]) -> None:
    async with api.stream(ids, concurrency=8, errors="collect", limit=50, name="Acme") as stream:
        assert_type(stream, CustomerStream)
        async for customer in stream:
            assert_type(customer, Customer)
            assert_type(stream.checkpoint(), Checkpoint)
        async for page in stream.pages():
            assert_type(page, CustomerPage)
        assert_type(stream.progress.remaining, int | None)
        assert_type(stream.progress.corporations["corp_123"].pages, int)
        assert_type(stream.failures["corp_123"], CustomersError)
    api.stream(ids, errors="collect", max_failures=20)
    api.stream({"corp_123": 1}, resume=Checkpoint.model_validate_json("{}"))
    api.stream(["corp_123"], errors="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def fields(customer: Customer) -> None:
    assert_type(customer.id, str)
    assert_type(customer.corporation_id, str)
    assert_type(customer.name, str | None)
    assert_type(customer.created_at, datetime | None)
    assert_type(customer.shipping_address, Address | None)
    assert_type(customer.exemption_metadata, ExemptionMetadata | None)


async def errors(api: AsyncCustomersAPI) -> None:
    try:
        await api.list("corp_123")
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except CursorRejectedError as error:
        assert_type(error.cursor_age, float | None)
    except APIStatusError as error:
        assert_type(error.status_code, int | None)
    except CustomersError as error:
        assert_type(error.corporation_id, str | None)
        assert_type(error.cursor, str | None)
        assert_type(error.attempts, int)
        assert_type(error.transient, bool)
        assert_type(error.checkpoint, Checkpoint | None)


async def emulators() -> AsyncIterator[str]:
    async with Emulator(
        {"corp_123": 10},
        faults=[faults.Drop(at=[1]), faults.Status(500, probability=0.1, corporation_id="corp_123", pages=range(2, 5))],
        rate_limit=RateLimit(rate=5),
    ) as server:
        assert_type(server.base_url, str)
        assert_type(server.token, str)
        assert_type(server.requests, list[ReceivedRequest])
        yield server.base_url


def emulators_without_an_event_loop() -> None:
    with Emulator({"corp_1": 10, "corp_2": [{"id": "1"}, None]}) as server:
        assert_type(server.faults, FaultPlan)
        outage = faults.Status(503)
        server.faults.add(outage)
        server.faults.remove(outage)
        server.rate_limit = RateLimit(rate=1)
        server.rate_limit = None


class OwnSink:
    async def open(self) -> Checkpoint | None:
        return None

    async def write(self, page: CustomerPage) -> None: ...

    async def commit(self, checkpoint: Checkpoint) -> None: ...

    async def finish(self) -> None: ...


async def exports(api: AsyncCustomersAPI) -> None:
    sinks: list[Sink] = [
        OwnSink(),
        JSONLinesFile("customers.jsonl.gz"),
        CSVFile(Path("customers.csv"), escape_formulas=False, fresh=True),
        ParquetFolder("customers"),
        SQLiteDatabase("customers.db", retry_within=60),
    ]

    def note(progress: StreamProgress) -> None:
        assert_type(progress.customers, int)

    for sink in sinks:
        summary = await export(
            api, ["corp_123"], sink, on_progress=note, commit_every=10, max_failures=3, has_exemption=True
        )
        assert_type(summary, Summary)
        assert_type(summary.customers, int)
        assert_type(summary.failures["corp_123"], CustomersError)
    assert_type(COLUMNS, tuple[str, ...])
    assert_type(shard(iter(["corp_123"]), 2, of=8), list[str])
    try:
        await export(api, iter(["corp_123"]), sinks[0], errors="raise", invalid_customers="raise")
    except OutputRefusedError:
        pass
    except OutputError:
        pass
