"""The emulated API with the records of a test."""

from collections.abc import Callable
from typing import Any

import pytest

from commenda_customers.testing import Emulator, faults
from emulated import Asker

pytestmark = pytest.mark.anyio

ODD: list[Any] = [
    {"id": "1", "name": "Alder Labs", "corporation_id": "corp_1"},
    {"id": 2, "name": ["not a name"], "created_at": "yesterday"},
    None,
    ["a", "list"],
    {},
    "text",
    {"id": "1", "corporation_id": "corp_other", "shipping_address": {"line1": "1 Main St"}},
    7.5,
]
EXEMPT = {
    "total_certificates": 2,
    "certificate_types": ["BLANKET"],
    "exempted_states": ["US_CA", "US_NY"],
    "active_exemptions_count": 1,
    "inactive_exemptions_count": 0,
    "expired_exemptions_count": 2,
    "non_expired_exemptions_count": 0,
}
CUSTOMERS: list[Any] = [
    {
        "id": "exempt",
        "name": "Alder Labs",
        "source_platform": "XERO",
        "source_platform_id": "x-1",
        "exemption_metadata": EXEMPT,
    },
    {"id": "plain", "name": "Birch Foods"},
    {"id": "odd", "name": None, "source_platform": ["XERO"], "exemption_metadata": "none"},
    {"id": "odder", "exemption_metadata": {"total_certificates": "2", "certificate_types": "BLANKET"}},
]


def serving(rows: Any, **options: Any) -> Asker:
    return Asker(Emulator({"corp_1": rows, "corp_2": 3}, **options))


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_records_are_served_as_they_are(limit: int) -> None:
    """Rows of any shape come in their order and on their page, with nothing added and nothing left out."""
    asker = serving(ODD)
    assert await asker.read_all(limit=str(limit)) == ODD == list(asker.emulator.customers("corp_1"))
    assert (await asker.data())["total_customers"] == len(ODD)
    assert asker.emulator.corporations == {"corp_1": len(ODD), "corp_2": 3}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("name", "Birch Foods", ["plain"]),
        ("search_term", "LABS", ["exempt"]),
        ("search_term", "none", []),
        ("source_platforms", "SHOPIFY,XERO", ["exempt"]),
        ("source_platform_ids", "x-1", ["exempt"]),
        ("certificate_types", "BLANKET", ["exempt"]),
        ("exemption_jurisdiction", "US_NY,US_TX", ["exempt"]),
        ("exemption_jurisdiction", "US_TX", []),
        ("expiration_status", "EXPIRED", ["exempt"]),
        ("expiration_status", "ACTIVE", []),
        ("exemption_status", "ACTIVE", ["exempt"]),
        ("exemption_status", "INACTIVE", []),
        ("has_exemption", "true", ["exempt"]),
        ("has_exemption", "false", ["plain", "odd", "odder"]),
    ],
)
async def test_filters_look_at_what_a_record_has(name: str, value: str, expected: list[str]) -> None:
    """A field that is missing or of another type does not match; what is no object matches any filter."""
    asker = serving([None, *CUSTOMERS, "text"])
    found = await asker.read_all(**{name: value}, limit="2")
    assert found == list(asker.emulator.customers("corp_1", **{name: value}))
    assert (found[0], found[-1]) == (None, "text")
    assert [customer["id"] for customer in found[1:-1]] == expected


async def test_the_list_may_change_while_it_serves() -> None:
    """A change of the list is seen by the next request."""
    rows = list(CUSTOMERS)
    asker = serving(rows)
    cursor = (await asker.data(limit="3"))["cursor"]
    rows.append({"id": "new"})
    assert [customer["id"] for customer in (await asker.data(cursor=cursor))["customers"]] == ["odder", "new"]
    rows.clear()
    assert (await asker.data(cursor=cursor)) == {"customers": [], "total_customers": 0, "cursor": None}


async def test_a_foreign_customer_among_records() -> None:
    """`ForeignCustomer` changes the first row that is an object; where there is none, it changes nothing."""
    foreign = [faults.ForeignCustomer(belongs_to="corp_9")]
    changed = (await serving([None, {"id": "1"}, {"id": "2"}], faults=foreign).data())["customers"]
    assert changed == [None, {"id": "1", "corporation_id": "corp_9"}, {"id": "2"}]
    assert (await serving([None, 5], faults=foreign).data())["customers"] == [None, 5]


@pytest.mark.parametrize("wrong", ["text", b"bytes", {"id": "1"}, None, 1.5])
def test_neither_a_number_nor_a_list_is_refused(wrong: Any) -> None:
    """What is neither a number nor a list of records is an error that names the corporation."""
    with pytest.raises(TypeError, match=r"corporations\['corp_1'\]: expected a number or a list"):
        Emulator({"corp_1": wrong})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Emulator(faults=[faults.Drop]), "expected a fault such as .*, got Drop"),  # type: ignore[list-item]
        (lambda: Emulator().faults.add("drop"), "expected a fault such as .*, got str"),  # type: ignore[arg-type]
        (lambda: faults.Drop(at=2), "at: expected a collection of numbers, got int"),  # type: ignore[arg-type]
        (lambda: faults.Drop(pages=1), "pages: expected a collection of numbers, got int"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_fault_is_refused(make: Callable[[], object], words: str) -> None:
    """A mistake is an error where it is made, not when a request comes."""
    with pytest.raises(TypeError, match=words):
        make()
