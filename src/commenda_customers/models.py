"""
What the API returns, as immutable pydantic models.

A customer needs an `id` and a `corporation_id`. The API page does not say which fields are required or nullable. So every
other field may be absent or null; both become `None`. `model_extra` has the undocumented fields. Enumerations are open:
undocumented values stay unchanged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, GetPydanticSchema
from pydantic_core import core_schema

__all__ = ["Address", "Customer", "CustomerPage", "ExemptionMetadata", "InvalidCustomer"]


def _in_utc(moment: datetime) -> datetime:
    """Return *moment* in UTC. Without an offset it is in UTC already."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)

    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("out of range in UTC") from exc


_UTCDatetime = Annotated[
    datetime,
    # The first choice reads the documented form, seconds since the epoch, inside pydantic's compiled core. A Python
    # validator on every row would cost a page of 100 customers a tenth of its time.
    GetPydanticSchema(
        lambda _source, _handler: core_schema.union_schema(
            [
                core_schema.datetime_schema(tz_constraint=0),
                core_schema.no_info_after_validator_function(_in_utc, core_schema.datetime_schema()),
            ],
            mode="left_to_right",
        )
    ),
]


_Strings = Annotated[tuple[str, ...], Field(fail_fast=True)]
"""Fails at the first bad item: a small body can hold a million of them, each with an error to collect."""


class _Model(BaseModel):
    # Validation errors must not show values: they may be customers' data, and errors end up in logs.
    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)


class Address(_Model):
    """
    Where a customer receives goods. Needs `extend=["shipping_address"]`.

    The API page documents two names for the street lines: `line1` and `address_line_1`. Both become `line1`.
    """

    line1: str | None = Field(default=None, validation_alias=AliasChoices("line1", "address_line_1"))
    """First street line."""
    line2: str | None = Field(default=None, validation_alias=AliasChoices("line2", "address_line_2"))
    """Second street line."""
    line3: str | None = Field(default=None, validation_alias=AliasChoices("line3", "address_line_3"))
    """Third street line."""
    city: str | None = None
    """City."""
    state: str | None = None
    """Subdivision, the part of its ISO 3166-2 code after the hyphen."""
    postal_code: str | None = None
    """Postal code, in the form of its country."""
    country: str | None = None
    """ISO 3166 code of two letters."""

    def model_post_init(self, _context: Any, /) -> None:
        """Read the other spelling of a street line if the first one is null."""
        extra = self.model_extra
        if not extra:
            return

        for number in "123":
            line, other = f"line{number}", f"address_line_{number}"
            if getattr(self, line) is None and isinstance(extra.get(other), str):
                object.__setattr__(self, line, extra.pop(other))  # the model is frozen for everyone else


class ExemptionMetadata(_Model):
    """A summary of a customer's tax exemptions. Needs `extend=["exemption_metadata"]`."""

    total_certificates: int | None = None
    """Number of exemption certificates."""
    certificate_types: _Strings | None = None
    """Types of these certificates, for example `SINGLE_STATE`."""
    total_exempted_states: int | None = None
    """Number of states with an exemption."""
    exempted_states: _Strings | None = None
    """Those states."""
    active_exemptions_count: int | None = None
    """Number of exemptions that are active."""
    inactive_exemptions_count: int | None = None
    """Number of exemptions that are inactive."""
    expired_exemptions_count: int | None = None
    """Number of exemptions that have expired."""
    non_expired_exemptions_count: int | None = None
    """Number of exemptions that have not expired."""


class Customer(_Model):
    """A customer of one corporation."""

    id: str
    """The API's identifier of the customer."""
    corporation_id: str
    """The corporation that the customer belongs to."""
    name: str | None = None
    """Name of the customer."""
    email: str | None = None
    """E-mail address."""
    created_at: _UTCDatetime | None = None
    """When the customer was created, in UTC."""
    external_id: str | None = None
    """The identifier that the caller gave when the customer was created."""
    source_platform: str | None = None
    """Where the customer was imported from, for example `SHOPIFY`."""
    source_platform_id: str | None = None
    """The customer's identifier there."""
    business_identification_number: str | None = None
    """VAT id, EIN, GST number, or the like."""
    shipping_address: Address | None = None
    """Present with `extend=["shipping_address"]`."""
    exemption_metadata: ExemptionMetadata | None = None
    """Present with `extend=["exemption_metadata"]`."""


@dataclass(frozen=True, slots=True)
class InvalidCustomer:
    """
    A row of a page that is not a valid customer. Its `repr` shows only the id, and no other data of the customer.

    Attributes:
        index: The position of the row on the page, as the server sent it; the first is 0.
        id: The API's identifier of the customer, if the row has one.
        errors: What is wrong, one text for each field, such as `name: Input should be a valid string`. The texts never
            contain values.
        raw: The row, parsed from JSON. It may be anything: an object, a list, a number, `None`. What is nested deeper than
            200 levels is `None`.
    """

    index: int
    id: str | None
    errors: tuple[str, ...]
    raw: Any = field(repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class CustomerPage:
    """One page of a corporation's customer list. Iterable and sized."""

    corporation_id: str
    """The corporation. Every customer of the page belongs to it."""
    customers: tuple[Customer, ...]
    """The customers, in the server's order. A page may be empty. The list ends only if there is no cursor."""
    total_customers: int | None = None
    """How many customers match the query, as the server counts them; `None` if it sent no count."""
    cursor: str | None = None
    """The cursor of the next page; `None` on the last page."""
    invalid_customers: tuple[InvalidCustomer, ...] = ()
    """The rows that are not valid, with `invalid_customers="collect"`."""

    def __iter__(self) -> Iterator[Customer]:
        return iter(self.customers)

    def __len__(self) -> int:
        return len(self.customers)


def share_field_names(customers: Sequence[Customer]) -> None:
    """
    Let *customers* that wait for their consumer share equal sets of field names.

    pydantic makes a set for each model. The sets are more than half of the memory of a page, and nearly half of the objects
    that the garbage collector visits. To share them takes 50 microseconds a page. With 64 pages in memory, that saves the
    collector 100 to 250 microseconds a page.
    """
    addresses = [customer.shipping_address for customer in customers if customer.shipping_address is not None]
    exemptions = [customer.exemption_metadata for customer in customers if customer.exemption_metadata is not None]
    shared: dict[tuple[str, ...], set[str]] = {}
    for model in (*customers, *addresses, *exemptions):
        names = model.__pydantic_fields_set__
        # The models are frozen, and pydantic copies the set before it changes one, as in `model_copy`.
        object.__setattr__(model, "__pydantic_fields_set__", shared.setdefault(tuple(names), names))
