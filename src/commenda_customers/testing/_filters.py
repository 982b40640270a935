"""
The filters of the list, which look at a customer in the form of the API, with address and metadata.

A test may serve customers of any shape. A field that is missing, or has another type, does not match.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

Customer = Mapping[str, Any]
Filters = tuple[tuple[str, str], ...]
"""Names and values of the filters of a request."""


def matches(customer: Any, filters: Filters) -> bool:
    """Return whether a customer meets all *filters*. What is not an object has no fields to ask for, and meets any."""
    return not is_object(customer) or all(FILTERS[name](customer, value) for name, value in filters)


def is_object(row: Any) -> TypeGuard[Customer]:
    """Return whether a row is an object of JSON."""
    return isinstance(row, Mapping)


def _is_one_of(field: str) -> Callable[[Customer, str], bool]:
    return lambda customer, value: customer.get(field) in value.split(",")


def _has_one_of(field: str) -> Callable[[Customer, str], bool]:
    def holds(customer: Customer, value: str) -> bool:
        found = _metadata(customer).get(field)
        return isinstance(found, list) and any(wanted in found for wanted in value.split(","))

    return holds


def _counts(fields: Mapping[str, str]) -> Callable[[Customer, str], bool]:
    return lambda customer, value: _count(customer, fields[value]) > 0


def _count(customer: Customer, field: str) -> float:
    found = _metadata(customer).get(field)
    return found if isinstance(found, int | float) else 0


def _text(customer: Customer, field: str) -> str:
    found = customer.get(field)
    return found if isinstance(found, str) else ""


def _metadata(customer: Customer) -> Customer:
    metadata = customer.get("exemption_metadata")
    return metadata if is_object(metadata) else {}


_EXPIRATIONS = {"ACTIVE": "non_expired_exemptions_count", "EXPIRED": "expired_exemptions_count"}
_STATUSES = {"ACTIVE": "active_exemptions_count", "INACTIVE": "inactive_exemptions_count"}

FILTERS: Mapping[str, Callable[[Customer, str], bool]] = {
    "name": lambda customer, value: customer.get("name") == value,
    "search_term": lambda customer, value: value.casefold() in _text(customer, "name").casefold(),
    "source_platforms": _is_one_of("source_platform"),
    "source_platform_ids": _is_one_of("source_platform_id"),
    "certificate_types": _has_one_of("certificate_types"),
    "exemption_jurisdiction": _has_one_of("exempted_states"),
    "expiration_status": _counts(_EXPIRATIONS),
    "exemption_status": _counts(_STATUSES),
    "has_exemption": lambda customer, value: (_count(customer, "total_certificates") > 0) == (value == "true"),
}
"""What each filter parameter asks of a customer."""

CLOSED_VALUES: Mapping[str, frozenset[str]] = {
    "expiration_status": frozenset(_EXPIRATIONS),
    "exemption_status": frozenset(_STATUSES),
    "has_exemption": frozenset({"true", "false"}),
}
"""Parameters that know only these values; any other is a bad request."""
