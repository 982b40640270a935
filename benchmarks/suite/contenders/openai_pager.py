"""The pager of openai's SDK, with its own models for the same fields."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from openai import AsyncOpenAI
from openai._base_client import BaseAsyncPage, BasePage, PageInfo, make_request_options
from openai._models import BaseModel

from . import TOKEN, Read
from .httpx_by_hand import gather, query_of


class Address(BaseModel):
    line1: str | None = None
    line2: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None


class ExemptionMetadata(BaseModel):
    total_certificates: int
    certificate_types: list[str]
    total_exempted_states: int
    exempted_states: list[str]
    active_exemptions_count: int
    inactive_exemptions_count: int
    expired_exemptions_count: int
    non_expired_exemptions_count: int


class Customer(BaseModel):
    id: str
    corporation_id: str
    created_at: int
    name: str | None = None
    email: str | None = None
    external_id: str | None = None
    source_platform: str | None = None
    source_platform_id: str | None = None
    business_identification_number: str | None = None
    shipping_address: Address | None = None
    exemption_metadata: ExemptionMetadata | None = None


class Listing(BaseModel):
    customers: list[Customer]
    total_customers: int
    cursor: str | None = None


class CustomersPage(BaseAsyncPage[Customer], BasePage[Customer]):
    """What openai's generator writes for an API whose list is in `data`."""

    data: Listing

    def _get_page_items(self) -> list[Customer]:
        return self.data.customers

    def next_page_info(self) -> PageInfo | None:
        cursor = self.data.cursor
        return PageInfo(params={"cursor": cursor}) if cursor else None


@asynccontextmanager
async def open_openai(url: str) -> AsyncIterator[Read]:
    async with AsyncOpenAI(api_key=TOKEN, base_url=url) as client:

        def customers_of(corporation_id: str) -> AsyncIterator[Customer]:
            options = make_request_options(query=query_of(corporation_id))
            pager = client.get_api_list("/customers", page=CustomersPage, options=options, model=Customer)
            return pager.__aiter__()

        async def collect(corporation_id: str) -> list[Customer]:
            return [customer async for customer in customers_of(corporation_id)]

        async def read(ids: Sequence[str], in_flight: int) -> int:
            if len(ids) > 1:
                return sum(map(len, await gather(collect, ids, in_flight)))
            number = 0
            async for _customer in customers_of(ids[0]):
                number += 1
            return number

        yield read
