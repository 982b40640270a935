"""The thirteen parameters: what goes on the wire, and what is refused before any request."""

from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers.query import _WIRE_FORM, CustomerFilters, CustomersQuery, Selection, check_cursor

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
items = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=","), min_size=1)
TEXTS = ("name", "search_term", "exemption_jurisdiction", "expiration_status", "exemption_status")
LISTS = ("source_platforms", "source_platform_ids", "extend", "certificate_types")


def build(corporation_id: Any = "corp_1", limit: Any = 100, **filters: Any) -> CustomersQuery:
    """Build a query without the type checker's help, as a user may."""
    return Selection.build(limit=limit, **filters).of(corporation_id)


def test_all_filters_have_a_form_on_the_wire() -> None:
    """Each filter that is declared can be written, and nothing else can."""
    assert set(_WIRE_FORM) == set(CustomerFilters.__annotations__)
    assert set(_WIRE_FORM) == {*TEXTS, *LISTS, "has_exemption"}


@given(
    corporation_id=words,
    limit=st.integers(1, 100),
    cursor=st.none() | words,
    filters=st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(TEXTS, st.none() | words),
            **dict.fromkeys(LISTS, st.none() | st.lists(items, min_size=1) | st.lists(items, min_size=1).map(tuple)),
            "has_exemption": st.none() | st.booleans(),
        },
    ),
)
def test_a_server_reads_what_was_given(corporation_id: str, limit: int, cursor: str | None, filters: dict[str, Any]) -> None:
    """A server that decodes the URL reads each parameter once, and exactly as it was given."""
    query = build(corporation_id, limit, **filters).at(cursor)
    read = parse_qsl(httpx.URL(f"http://h/customers?{query}").query.decode("ascii"), keep_blank_values=True)

    expected = {"corporation_id": corporation_id, "limit": str(limit)}
    for name, value in filters.items():
        if isinstance(value, bool):
            expected[name] = "true" if value else "false"
        elif value is not None:
            expected[name] = value if isinstance(value, str) else ",".join(value)
    if cursor is not None:
        expected["cursor"] = cursor
    assert len(read) == len(expected)
    assert dict(read) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"corporation_id": ""}, ValueError, "corporation_id: must not be empty$"),
        ({"corporation_id": None}, TypeError, "corporation_id: expected a str, got NoneType"),
        ({"corporation_id": "\ud800"}, ValueError, "corporation_id: .* not valid Unicode"),
        ({"limit": 0}, ValueError, "limit: must be from 1 to 100, got 0"),
        ({"limit": 101}, ValueError, "limit: must be from 1 to 100, got 101"),
        ({"limit": True}, TypeError, "limit: expected an int, got bool"),
        ({"limit": "10"}, TypeError, "limit: expected an int, got str"),
        ({"name": ""}, ValueError, "name: must not be empty"),
        ({"search_term": 5}, TypeError, "search_term: expected a str, got int"),
        ({"extend": "shipping_address"}, TypeError, "extend: expected a list of str, got str"),
        ({"extend": 5}, TypeError, "extend: expected a list of str, got int"),
        ({"extend": {"shipping_address"}}, TypeError, "extend: expected a list of str, got set"),
        ({"source_platforms": []}, ValueError, "source_platforms: must not be empty"),
        ({"source_platforms": ["A", ""]}, ValueError, r"source_platforms\[1\]: must not be empty"),
        ({"source_platform_ids": ["a,b"]}, ValueError, r"source_platform_ids\[0\]: 'a,b' contains a comma"),
        ({"certificate_types": [1]}, TypeError, r"certificate_types\[0\]: expected a str, got int"),
        ({"has_exemption": "true"}, TypeError, "has_exemption: expected a bool, got str"),
        ({"has_exemption": 1}, TypeError, "has_exemption: expected a bool, got int"),
        (
            {"source_platform_ids": [f"id-{n}" for n in range(9000)]},
            ValueError,
            "source_platform_ids: .* too long for a",
        ),
        ({"name": "ü" * 11_000}, ValueError, "name: 11,000 characters are too long for a URL"),
        ({"serch_term": "acme"}, TypeError, "serch_term: not a parameter of GET /customers; it has name, search_term"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    """An argument that breaks a rule is refused, with its name and the rule in the message."""
    with pytest.raises(error, match=words):
        build(**arguments)


class Status(str, Enum):  # noqa: UP042 - StrEnum would print as its value
    """An enumeration as users write it."""

    ACTIVE = "ACTIVE"


class Size(IntEnum):
    """An enumeration of numbers."""

    SMALL = 20


def test_members_of_enumerations_are_their_values() -> None:
    """A member of an enumeration goes on the wire as its value, whatever `str()` makes of it."""
    query = build(Status.ACTIVE, Size.SMALL, exemption_status=Status.ACTIVE, certificate_types=[Status.ACTIVE])
    assert query == build("ACTIVE", 20, exemption_status="ACTIVE", certificate_types=["ACTIVE"])
    assert {value for _, value in parse_qsl(query.at(None))} == {"ACTIVE", "20"}


def test_arguments_are_not_changed() -> None:
    """Sequences of any kind are taken, and left as they were."""
    extend = ("shipping_address", "exemption_metadata")
    filters = MappingProxyType({"extend": extend})
    assert build(**filters) == build(extend=list(extend))
    assert extend == ("shipping_address", "exemption_metadata")


@pytest.mark.parametrize(("cursor", "error"), [("", ValueError), (5, TypeError)])
def test_invalid_cursors_are_refused(cursor: Any, error: type[Exception]) -> None:
    """An empty cursor, which would read everything again, is refused."""
    with pytest.raises(error, match="cursor"):
        check_cursor(cursor)
