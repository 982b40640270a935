"""The pager of stripe's SDK, over httpx, with its own objects."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import stripe

from . import TOKEN, Read
from .httpx_by_hand import gather, query_of


@asynccontextmanager
async def open_stripe(url: str) -> AsyncIterator[Read]:
    http_client: Any = stripe.HTTPXClient()
    client: Any = stripe.StripeClient(TOKEN, base_addresses={"api": url}, http_client=http_client)

    async def customers_of(corporation_id: str) -> AsyncIterator[Any]:
        page = await client.v1.customers.list_async(query_of(corporation_id))
        pager: AsyncIterator[Any] = page.auto_paging_iter()
        return pager

    async def collect(corporation_id: str) -> list[Any]:
        return [customer async for customer in await customers_of(corporation_id)]

    async def read(ids: Sequence[str], in_flight: int) -> int:
        if len(ids) > 1:
            return sum(map(len, await gather(collect, ids, in_flight)))
        number = 0
        async for _customer in await customers_of(ids[0]):
            number += 1
        return number

    try:
        yield read
    finally:
        await http_client.close_async()
