"""
A customer as a row of a table: the columns, their order, and their types.

Each field of a nested part has its own column. `extra` has all undocumented fields as a JSON object.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, cast

from pydantic_core import to_json

from ..models import Address, Customer, ExemptionMetadata

COLUMNS_VERSION = 1
"""Changes if the columns, their order or their meaning change."""

_CUSTOMER = (
    "corporation_id",
    "id",
    "name",
    "email",
    "created_at",
    "external_id",
    "source_platform",
    "source_platform_id",
    "business_identification_number",
)
_ADDRESS = ("line1", "line2", "line3", "city", "state", "postal_code", "country")
_EXEMPTION = (
    "total_certificates",
    "certificate_types",
    "total_exempted_states",
    "exempted_states",
    "active_exemptions_count",
    "inactive_exemptions_count",
    "expired_exemptions_count",
    "non_expired_exemptions_count",
)

COLUMNS: tuple[str, ...] = (
    *_CUSTOMER,
    *(f"shipping_address_{name}" for name in _ADDRESS),
    *(f"exemption_metadata_{name}" for name in _EXEMPTION),
    "extra",
)
"""The columns of `CSVFile`, `ParquetFolder` and `SQLiteDatabase`, in this order."""

TIMES = frozenset({"created_at"})
"""Columns that hold a time in UTC."""
INTEGERS = frozenset(f"exemption_metadata_{name}" for name in _EXEMPTION if name.endswith(("_count", "_certificates"))) | {
    "exemption_metadata_total_exempted_states"
}
"""Columns that hold an integer."""
LISTS = frozenset({"exemption_metadata_certificate_types", "exemption_metadata_exempted_states"})
"""Columns that hold a tuple of strings. All others hold text."""

Row = tuple[Any, ...]

_customer_values = cast("Callable[[Customer], Row]", attrgetter(*_CUSTOMER))
_address_values = cast("Callable[[Address], Row]", attrgetter(*_ADDRESS))
_exemption_values = cast("Callable[[ExemptionMetadata], Row]", attrgetter(*_EXEMPTION))
_NO_ADDRESS = (None,) * len(_ADDRESS)
_NO_EXEMPTION = (None,) * len(_EXEMPTION)


def flatten(customer: Customer) -> Row:
    """Return a customer's values in the order of `COLUMNS`: `str`, `int`, `datetime`, a tuple of `str`, or `None`."""
    address, exemption = customer.shipping_address, customer.exemption_metadata
    return (
        *_customer_values(customer),
        *(_NO_ADDRESS if address is None else _address_values(address)),
        *(_NO_EXEMPTION if exemption is None else _exemption_values(exemption)),
        _extra(customer, address, exemption),
    )


def _extra(customer: Customer, address: Address | None, exemption: ExemptionMetadata | None) -> str | None:
    """Return the undocumented fields as JSON. Those of a nested part are under the name of the part."""
    extra = customer.model_extra
    of_address = address and address.model_extra
    of_exemption = exemption and exemption.model_extra
    if not (extra or of_address or of_exemption):
        return None

    nested = {"shipping_address": of_address, "exemption_metadata": of_exemption}
    fields = {**(extra or {}), **{name: part for name, part in nested.items() if part}}
    return to_json(fields, inf_nan_mode="null").decode()


def time_texts(values: Sequence[datetime | None]) -> list[str | None]:
    """Return times as ISO 8601 texts. pydantic writes many at once, several times as fast as `isoformat`."""
    texts: list[str | None] = json.loads(to_json(values))
    return texts


def within_int64(row: Row) -> Row:
    """Move the integers that do not fit into 64 bits to `extra`. JSON has no such limit."""
    values = dict(zip(COLUMNS, row, strict=True))
    extra: dict[str, Any] = json.loads(values["extra"] or "{}")
    for column in INTEGERS:
        value = values[column]
        if value is not None and not -(1 << 63) <= value < 1 << 63:
            values[column] = None
            extra.setdefault("exemption_metadata", {})[column.removeprefix("exemption_metadata_")] = value
    values["extra"] = json.dumps(extra) if extra else None
    return tuple(values.values())
