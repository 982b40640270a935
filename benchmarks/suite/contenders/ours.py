"""The SDK, with each transport: `api.list` for one corporation, `api.stream` for many."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx

from commenda_customers import AsyncCustomersAPI

from ..corporations import EXTENSIONS
from . import TOKEN, Read


@asynccontextmanager
async def open_ours(url: str) -> AsyncIterator[Read]:
    async with AsyncCustomersAPI(TOKEN, base_url=url) as api:
        yield reader(api)


@asynccontextmanager
async def open_with_a_client(url: str) -> AsyncIterator[Read]:
    async with httpx.AsyncClient() as client, AsyncCustomersAPI(TOKEN, base_url=url, http_client=client) as api:
        yield reader(api)


@asynccontextmanager
async def open_with_pyreqwest(url: str) -> AsyncIterator[Read]:
    async with AsyncCustomersAPI(TOKEN, base_url=url, transport="pyreqwest") as api:
        yield reader(api)


@asynccontextmanager
async def open_with_aiohttp(url: str) -> AsyncIterator[Read]:
    from httpx_aiohttp import AiohttpTransport  # noqa: PLC0415 - may not be installed

    async with (
        httpx.AsyncClient(transport=AiohttpTransport()) as client,
        AsyncCustomersAPI(TOKEN, base_url=url, http_client=client) as api,
    ):
        yield reader(api)


def reader(api: AsyncCustomersAPI) -> Read:
    """Return what a program does with the SDK."""

    async def read(ids: Sequence[str], in_flight: int) -> int:
        number = 0
        if len(ids) == 1:
            async for _customer in api.list(ids[0], extend=EXTENSIONS):
                number += 1
            return number

        async with api.stream(ids, concurrency=in_flight, extend=EXTENSIONS) as stream:
            async for _customer in stream:
                number += 1
        return number

    return read
