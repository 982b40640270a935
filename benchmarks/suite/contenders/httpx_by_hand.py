"""
What a good engineer writes without an SDK: a loop over httpx or httpx2, and a gather of such loops.

The client is httpx's default one, which closes all but 20 idle connections. If it kept more of them, the pool of httpx would
need 1.5 times as long for 64 requests in flight.
"""

import asyncio  # noqa: TID251 - a program for asyncio uses its gather
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import anyio
import httpx
from pydantic import BaseModel

from commenda_customers import Customer

from ..corporations import EXTENSIONS, PER_PAGE
from . import TOKEN, Read

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Listing(BaseModel):
    customers: list[Customer]
    total_customers: int
    cursor: str | None = None


class Envelope(BaseModel):
    data: Listing


class OwnAddress(BaseModel):
    line1: str | None = None
    line2: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None


class OwnExemptions(BaseModel):
    total_certificates: int
    certificate_types: list[str]
    total_exempted_states: int
    exempted_states: list[str]
    active_exemptions_count: int
    inactive_exemptions_count: int
    expired_exemptions_count: int
    non_expired_exemptions_count: int


class OwnCustomer(BaseModel):
    id: str
    corporation_id: str
    name: str | None = None
    email: str | None = None
    created_at: datetime
    external_id: str | None = None
    source_platform: str | None = None
    source_platform_id: str | None = None
    business_identification_number: str | None = None
    shipping_address: OwnAddress | None = None
    exemption_metadata: OwnExemptions | None = None


class OwnListing(BaseModel):
    customers: list[OwnCustomer]
    total_customers: int
    cursor: str | None = None


class OwnEnvelope(BaseModel):
    data: OwnListing


def query_of(corporation_id: str) -> dict[str, str]:
    """Return the parameters of the first page."""
    return {"corporation_id": corporation_id, "limit": str(PER_PAGE), "extend": ",".join(EXTENSIONS)}


@asynccontextmanager
async def open_httpx(url: str) -> AsyncIterator[Read]:
    """Use the models of the SDK, so that only the rest of the work is compared."""
    async with httpx.AsyncClient(headers=HEADERS, timeout=60) as client:
        yield reader(client, url, Envelope)


@asynccontextmanager
async def open_with_own_models(url: str) -> AsyncIterator[Read]:
    """Use models as a program has them: plain ones, with the fields of the documentation."""
    async with httpx.AsyncClient(headers=HEADERS, timeout=60) as client:
        yield reader(client, url, OwnEnvelope)


@asynccontextmanager
async def open_httpx2(url: str) -> AsyncIterator[Read]:
    import httpx2  # noqa: PLC0415 - may not be installed

    async with httpx2.AsyncClient(headers=HEADERS, timeout=60) as client:
        yield reader(client, url, Envelope)


def reader(client: Any, url: str, envelope: type[Envelope | OwnEnvelope]) -> Read:
    """Return the two programs: a loop for one corporation, and lists that are collected for many."""

    async def count(corporation_id: str) -> int:
        number, query = 0, query_of(corporation_id)
        while True:
            response = await client.get(f"{url}/customers", params=query)
            response.raise_for_status()
            listing = envelope.model_validate_json(response.content).data
            for _customer in listing.customers:
                number += 1
            if not listing.cursor:
                return number
            query["cursor"] = listing.cursor

    async def collect(corporation_id: str) -> list[Any]:
        customers: list[Any] = []
        query = query_of(corporation_id)
        while True:
            response = await client.get(f"{url}/customers", params=query)
            response.raise_for_status()
            listing = envelope.model_validate_json(response.content).data
            customers += listing.customers
            if not listing.cursor:
                return customers
            query["cursor"] = listing.cursor

    async def read(ids: Sequence[str], in_flight: int) -> int:
        if len(ids) == 1:
            return await count(ids[0])
        return sum(map(len, await gather(collect, ids, in_flight)))

    return read


async def gather(collect: Callable[[str], Awaitable[list[Any]]], ids: Sequence[str], in_flight: int) -> list[list[Any]]:
    """Collect the lists of many corporations, with so many requests in flight, as programs do."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio
        return await gather_in_a_task_group(collect, ids, in_flight)

    turn = asyncio.Semaphore(in_flight)

    async def in_turn(corporation_id: str) -> list[Any]:
        async with turn:
            return await collect(corporation_id)

    return await asyncio.gather(*map(in_turn, ids))


async def gather_in_a_task_group(
    collect: Callable[[str], Awaitable[list[Any]]], ids: Sequence[str], in_flight: int
) -> list[list[Any]]:
    """Do the same without asyncio's gather."""
    turn = anyio.Semaphore(in_flight)
    lists: list[list[Any]] = []

    async def in_turn(corporation_id: str) -> None:
        async with turn:
            lists.append(await collect(corporation_id))

    async with anyio.create_task_group() as tasks:
        for each in ids:
            tasks.start_soon(in_turn, each)
    return lists
