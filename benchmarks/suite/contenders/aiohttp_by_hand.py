"""The same loops as in `httpx_by_hand.py`, over aiohttp."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from commenda_customers import Customer

from . import Read
from .httpx_by_hand import HEADERS, Envelope, Listing, gather, query_of


@asynccontextmanager
async def open_aiohttp(url: str) -> AsyncIterator[Read]:
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def collect(corporation_id: str) -> list[Customer]:
            customers: list[Customer] = []
            query = query_of(corporation_id)
            while True:
                listing = await fetch(session, url, query)
                customers += listing.customers
                if not listing.cursor:
                    return customers
                query["cursor"] = listing.cursor

        async def count(corporation_id: str) -> int:
            number, query = 0, query_of(corporation_id)
            while True:
                listing = await fetch(session, url, query)
                for _customer in listing.customers:
                    number += 1
                if not listing.cursor:
                    return number
                query["cursor"] = listing.cursor

        async def read(ids: Sequence[str], in_flight: int) -> int:
            if len(ids) == 1:
                return await count(ids[0])
            return sum(map(len, await gather(collect, ids, in_flight)))

        yield read


async def fetch(session: aiohttp.ClientSession, url: str, query: dict[str, str]) -> Listing:
    """Get one page."""
    async with session.get(f"{url}/customers", params=query) as response:
        response.raise_for_status()
        return Envelope.model_validate_json(await response.read()).data
