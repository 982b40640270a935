"""What customers look like, whatever spelling they come in."""

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commenda_customers import Address, Customer, CustomerPage, ExemptionMetadata
from commenda_customers.models import share_field_names

OPTIONAL = [name for name, field in Customer.model_fields.items() if not field.is_required()]


def customer(**fields: Any) -> Customer:
    """Return a customer from its JSON fields."""
    return Customer.model_validate({"id": "cust_1", "corporation_id": "corp_1", **fields})


@given(st.integers(min_value=0, max_value=4_102_444_800))
def test_created_at_is_the_moment_in_utc(seconds: int) -> None:
    """Seconds since the epoch become the same moment as an aware datetime in UTC."""
    created_at = customer(created_at=seconds).created_at
    assert created_at == datetime.fromtimestamp(seconds, UTC)
    assert created_at is not None
    assert created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "written", ["2024-01-23T08:53:20", "2024-01-23T08:53:20Z", "2024-01-23T10:53:20+02:00", "1706000000"]
)
def test_created_at_in_other_forms_is_utc_too(written: str) -> None:
    """The API's neighbours write ISO dates; with or without an offset they come out in UTC."""
    created_at = customer(created_at=written).created_at
    assert created_at == datetime.fromtimestamp(1706000000, UTC)
    assert created_at is not None
    assert created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("nonsense", ["yesterday", True, [], "0001-01-01T00:00:00+02:00"])
def test_created_at_that_is_no_moment_is_refused(nonsense: object) -> None:
    """A value that is no moment is a validation error that does not show it."""
    with pytest.raises(ValidationError) as caught:
        customer(created_at=nonsense)
    assert "yesterday" not in str(caught.value)


MOMENTS = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.integers(-(10**20), 10**20).map(str),
    st.text(alphabet="0123456789-+:.TZ e", max_size=30),
    st.builds(
        "{:04}-{:02}-{:02}T{:02}:{:02}:00{}{:02}:{:02}".format,
        st.sampled_from([0, 1, 2, 1970, 2024, 9999]),
        st.sampled_from([1, 2, 12, 13]),
        st.sampled_from([1, 31, 32]),
        st.sampled_from([0, 23, 24]),
        st.integers(0, 60),
        st.sampled_from("+-"),
        st.integers(0, 25),
        st.integers(0, 60),
    ),
)


@given(MOMENTS)
def test_no_created_at_crashes_the_parser(written: object) -> None:
    """`created_at` is a moment in UTC or a validation error, whatever number or date a server writes."""
    try:
        created_at = customer(created_at=written).created_at
    except ValidationError:
        return
    assert created_at is not None
    assert created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("name", OPTIONAL)
def test_absent_and_null_are_alike(name: str) -> None:
    """A field that is null equals one that is absent."""
    assert getattr(customer(), name) is None
    assert getattr(customer(**{name: None}), name) is None


@pytest.mark.parametrize("model", [Address, ExemptionMetadata])
def test_parts_may_be_empty(model: type[Address | ExemptionMetadata]) -> None:
    """No field of an address or of exemption metadata is required, and all may be null."""
    assert set(dict(model.model_validate({}))) == set(model.model_fields)
    assert set(dict(model.model_validate(dict.fromkeys(model.model_fields))).values()) == {None}


@pytest.mark.parametrize("name", ["id", "corporation_id"])
def test_identity_is_required(name: str) -> None:
    """A customer without an id, or without a corporation, is refused."""
    fields = {"id": "cust_1", "corporation_id": "corp_1"}
    for broken in ({**fields, name: None}, {key: value for key, value in fields.items() if key != name}):
        with pytest.raises(ValidationError, match=name):
            Customer.model_validate(broken)


@pytest.mark.parametrize(
    "written",
    [
        {"line1": "1 Main St", "line2": "Unit 2", "line3": "Dock"},
        {"address_line_1": "1 Main St", "address_line_2": "Unit 2", "address_line_3": "Dock"},
        {"line1": None, "address_line_1": "1 Main St", "line2": "Unit 2", "address_line_3": "Dock"},
    ],
)
def test_both_spellings_of_an_address_are_read(written: dict[str, str | None]) -> None:
    """Street lines come out under one name, whichever spelling, or mixture of spellings, came in."""
    address = Address.model_validate(written)
    assert (address.line1, address.line2, address.line3) == ("1 Main St", "Unit 2", "Dock")
    assert address.model_extra == {}


def test_a_spelling_that_adds_nothing_is_kept_aside() -> None:
    """If both spellings hold a street line, the first is read and the second is not lost."""
    address = Address.model_validate({"line1": "1 Main St", "address_line_1": "Elsewhere", "planet": "Earth"})
    assert address.line1 == "1 Main St"
    assert address.model_extra == {"address_line_1": "Elsewhere", "planet": "Earth"}


def test_unknown_fields_and_values_are_kept() -> None:
    """A field that nobody documented is in `model_extra`, a new value of an enumeration comes through as it is."""
    seen = customer(source_platform="MARS_SHOP", vat_group={"id": 7})
    assert seen.source_platform == "MARS_SHOP"
    assert seen.model_extra == {"vat_group": {"id": 7}}


def test_customers_are_values() -> None:
    """Customers are equal by content, cannot be changed, hash, and survive pickling."""
    one = customer(shipping_address={"city": "Berlin"}, exemption_metadata={"certificate_types": ["BLANKET"]})
    assert one == pickle.loads(pickle.dumps(one))
    assert len({one, pickle.loads(pickle.dumps(one))}) == 1
    with pytest.raises(ValidationError):
        one.name = "other"  # type: ignore[misc]  # what the type checker forbids must fail


def test_models_that_share_their_field_names_are_the_same() -> None:
    """Sharing field names changes no customer: each still says which of its fields were sent, and so does a copy."""
    parts = {"shipping_address": {"city": "Berlin", "planet": 3}, "exemption_metadata": {"total_certificates": None}}
    made = [customer(), customer(name="B"), customer(name="C", **parts), customer(name="D", **parts), customer()]
    page = CustomerPage("corp_1", tuple(each.model_copy(deep=True) for each in made))
    share_field_names(page.customers)
    assert list(page) == made
    assert [each.model_dump(exclude_unset=True) for each in page] == [each.model_dump(exclude_unset=True) for each in made]
    assert pickle.loads(pickle.dumps(page)) == page
    assert len({id(each.model_fields_set) for each in page}) == 3
    changed = page.customers[0].model_copy(update={"email": "e"})
    assert "email" in changed.model_fields_set
    assert page.customers[-1].model_fields_set == {"id", "corporation_id"}


def test_a_page_is_iterable_and_sized() -> None:
    """A page can be iterated over and has a length, and survives pickling."""
    page = CustomerPage("corp_1", (customer(), customer(name="B")), 2, None)
    assert list(page) == list(page.customers)
    assert len(page) == 2
    assert pickle.loads(pickle.dumps(page)) == page
