"""All parameters of `GET /customers`, checked before any request and written in the form of the API page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, Self, TypedDict, Unpack, cast
from urllib.parse import urlencode

__all__ = ["CustomerFilters"]

MAX_LIMIT = 100
"""The largest page, according to the API page (section *Query Parameters*)."""

_MAX_QUERY_LENGTH = 60_000
"""httpx refuses URLs of 65,536 characters; the difference is for the cursor. Most servers accept far less."""


class CustomerFilters(TypedDict, total=False):
    """
    The filters of a list: keyword arguments of `AsyncCustomersAPI.list` and `AsyncCustomersAPI.stream`.

    `None` leaves a filter out. Editors complete the values that the vendor documents; any other text is sent as it is.
    """

    name: str | None
    """Only customers with exactly this name."""
    search_term: str | None
    """Only customers with this text in their name."""
    source_platforms: Sequence[Literal["SHOPIFY"] | str] | None
    """Only customers imported from one of these platforms, such as `SHOPIFY`."""
    source_platform_ids: Sequence[str] | None
    """Only customers with one of these ids at their platform."""
    extend: Sequence[Literal["shipping_address", "exemption_metadata"] | str] | None
    """Parts to add to each customer: `shipping_address`, `exemption_metadata`."""
    certificate_types: Sequence[Literal["SINGLE_STATE", "MULTI_STATE", "BLANKET"] | str] | None
    """Only customers with one of these certificates: `SINGLE_STATE`, `MULTI_STATE`, `BLANKET`."""
    exemption_jurisdiction: str | None
    """Only customers with an exemption in this jurisdiction, such as `US_CA`."""
    expiration_status: Literal["ACTIVE", "EXPIRED"] | str | None
    """Only customers with a certificate in this state of expiry: `ACTIVE`, `EXPIRED`."""
    exemption_status: Literal["ACTIVE", "INACTIVE"] | str | None
    """Only customers with an exemption in this status: `ACTIVE`, `INACTIVE`."""
    has_exemption: bool | None
    """`True`: only customers that have exemptions. `False`: only those that have none."""


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    if not value:
        raise ValueError(f"{name}: must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"{name}: {value!r} is not valid Unicode text") from exc

    return str.__str__(value)  # the value of a member of an enumeration; plain str() would return its name


def _comma_separated(name: str, value: object) -> str:
    # A set has another order in each process, so its checkpoints would belong to another query.
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        hint = f"; for a single one write {name}=[...]" if isinstance(value, str) else ""
        raise TypeError(f"{name}: expected a list of str, got {type(value).__name__}{hint}")

    items = [_text(f"{name}[{index}]", item) for index, item in enumerate(cast("Sequence[object]", value))]
    if not items:
        raise ValueError(f"{name}: must not be empty; leave it out instead")
    for index, item in enumerate(items):
        if "," in item:
            raise ValueError(f"{name}[{index}]: {item!r} contains a comma, which separates values in the API")

    return ",".join(items)


def _page_size(limit: object) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit: expected an int, got {type(limit).__name__}")
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit: must be from 1 to {MAX_LIMIT}, got {limit}")

    return int(limit)


def _flag(name: str, value: object) -> str:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")

    return "true" if value else "false"


_WIRE_FORM: dict[str, Callable[[str, object], str]] = {
    "name": _text,
    "search_term": _text,
    "source_platforms": _comma_separated,
    "source_platform_ids": _comma_separated,
    "extend": _comma_separated,
    "certificate_types": _comma_separated,
    "exemption_jurisdiction": _text,
    "expiration_status": _text,
    "exemption_status": _text,
    "has_exemption": _flag,
}


PARAMETERS = ("corporation_id", "cursor", "limit", *_WIRE_FORM)
"""All thirteen parameters."""


@dataclass(frozen=True, slots=True)
class Selection:
    """
    The filters and the page size, for any corporation.

    Attributes:
        limit: Customers per page, 1 to 100.
        filters: The filters in use, by name, in the form of the API page.
        collect_invalid: Whether a page is read although some of its rows are not valid.
    """

    limit: int
    filters: tuple[tuple[str, str], ...] = ()
    collect_invalid: bool = False

    @classmethod
    def build(cls, *, limit: int, collect_invalid: bool = False, **filters: Unpack[CustomerFilters]) -> Self:
        """
        Check all arguments.

        Raises:
            TypeError: An argument has a wrong type, or is not one of the API's parameters.
            ValueError: An argument breaks a rule of the API page. The message names it.
        """
        limit = _page_size(limit)
        given: dict[str, Any] = dict(filters)
        for name in given:
            if name not in _WIRE_FORM:
                raise TypeError(f"{name}: not a parameter of GET /customers; it has {', '.join(_WIRE_FORM)}")

        wire = tuple((name, form(name, given[name])) for name, form in _WIRE_FORM.items() if given.get(name) is not None)
        _check_length(wire)
        return cls(limit, wire, collect_invalid)

    @property
    def fingerprint(self) -> str:
        """A short hash of the filters, for checkpoints. The limit may change between two runs."""
        return blake2b(json.dumps(self.filters).encode(), digest_size=12).hexdigest()

    def of(self, corporation_id: str, *, name: str = "corporation_id") -> "CustomersQuery":
        """
        Return the query for one corporation.

        Raises:
            TypeError: The id is not a `str`. The message calls it *name*.
            ValueError: The id is empty, or the query is too long for a URL.
        """
        params = [("corporation_id", _text(name, corporation_id)), ("limit", str(self.limit)), *self.filters]
        return CustomersQuery(params[0][1], self, _check_length(params))


@dataclass(frozen=True, slots=True)
class CustomersQuery:
    """
    A checked query for one corporation.

    Attributes:
        corporation_id: The corporation.
        selection: The filters and the page size.
        first: The query of the URL of the first page. Filters and limit go with every page.
    """

    corporation_id: str
    selection: Selection
    first: str = field(repr=False)

    def at(self, cursor: str | None) -> str:
        """Return the query of the URL of the page at *cursor*."""
        return self.first if cursor is None else f"{self.first}&{urlencode({'cursor': cursor})}"


def _check_length(params: Sequence[tuple[str, str]]) -> str:
    """Return the query of a URL with these parameters."""
    query = urlencode(params)
    if len(query) > _MAX_QUERY_LENGTH:
        name, value = max(params, key=lambda parameter: len(parameter[1]))
        raise ValueError(f"{name}: {len(value):,} characters are too long for a URL")

    return query


def check_cursor(cursor: str | None) -> str | None:
    """Return *cursor* if it is valid; `None` is the first page."""
    return None if cursor is None else _text("cursor", cursor)
