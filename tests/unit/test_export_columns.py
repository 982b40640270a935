"""Customers as rows of a table."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers import Address, Customer, ExemptionMetadata
from commenda_customers.export import COLUMNS
from commenda_customers.export.columns import INTEGERS, LISTS, TIMES, flatten, within_int64

NESTED = {"shipping_address": Address, "exemption_metadata": ExemptionMetadata}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=5,
)
undocumented = st.dictionaries(texts.map(lambda text: f"new_{text}"), jsons, max_size=2)


def optional(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with some of these fields, and with unknown fields."""
    fields = st.fixed_dictionaries({}, optional={name: st.none() | strategy for name, strategy in values.items()})
    return st.builds(lambda known, other: {**other, **known}, fields, undocumented)


def values_of(model: Any) -> dict[str, st.SearchStrategy[Any]]:
    kinds: dict[str, st.SearchStrategy[Any]] = {"str": texts, "int": st.integers(), "tuple": st.lists(texts, max_size=3)}
    return {
        name: next((kinds[kind] for kind in ("tuple", "int") if kind in str(field.annotation)), texts)
        for name, field in model.model_fields.items()
    }


records = st.builds(
    lambda ids, other: {**other, **ids},
    st.fixed_dictionaries({"id": texts, "corporation_id": texts}),
    optional(
        {
            **{name: texts for name in Customer.model_fields if name not in {"id", "corporation_id", *NESTED}},
            "created_at": st.datetimes(timezones=st.just(UTC)),
            **{name: optional(values_of(model)) for name, model in NESTED.items()},
        }
    ),
)


def rebuilt(row: tuple[Any, ...]) -> dict[str, Any]:
    """Return the fields of a customer, from its row."""
    values = dict(zip(COLUMNS, row, strict=True))
    extra = json.loads(values.pop("extra") or "{}")
    fields = {name: values[name] for name in Customer.model_fields if name in values}
    for part in NESTED:
        own = {name.removeprefix(f"{part}_"): value for name, value in values.items() if name.startswith(f"{part}_")}
        fields[part] = {**own, **extra.pop(part, {})}
    return {**fields, **extra}


def comparable(customer: Customer) -> dict[str, Any]:
    """Return the fields of a customer. A missing part is the same as a part without values."""
    fields = customer.model_dump()
    for part, model in NESTED.items():
        fields[part] = fields[part] or model().model_dump()
    return fields


def test_every_documented_field_is_a_column_once() -> None:
    """Each field of the models has one column. All other fields share the last column."""
    own = [name for name in Customer.model_fields if name not in NESTED]
    parts = [f"{part}_{name}" for part, model in NESTED.items() for name in model.model_fields]
    assert sorted(COLUMNS) == sorted([*own, *parts, "extra"])
    assert COLUMNS[:2] == ("corporation_id", "id")
    assert COLUMNS[-1] == "extra"


@given(records)
def test_a_row_has_all_that_the_customer_has(record: dict[str, Any]) -> None:
    """The row has everything to rebuild the customer, including undocumented fields."""
    customer = Customer.model_validate(record)
    assert comparable(Customer.model_validate(rebuilt(flatten(customer)))) == comparable(customer)


@given(records)
def test_each_column_has_its_type(record: dict[str, Any]) -> None:
    """A column holds times in UTC, integers, tuples of texts, or texts."""
    row = flatten(Customer.model_validate(record))
    for column, value in zip(COLUMNS, row, strict=True):
        kind = datetime if column in TIMES else int if column in INTEGERS else tuple if column in LISTS else str
        assert value is None or isinstance(value, kind), column


def test_extra_is_always_json() -> None:
    """A number that JSON cannot express becomes null."""
    infinite = Customer.model_validate_json('{"id": "1", "corporation_id": "c", "score": 1e999, "name2": "é"}')
    assert flatten(infinite)[-1] == '{"score":null,"name2":"é"}'


@pytest.mark.parametrize("number", [-(1 << 63) - 1, 1 << 63])
def test_integers_of_more_than_64_bits_move_to_extra(number: int) -> None:
    """An integer of more than 64 bits moves to `extra`, under its documented name. All others stay."""
    metadata = {"total_certificates": number, "total_exempted_states": (1 << 63) - 1, "new": 1}
    customer = Customer.model_validate({"id": "1", "corporation_id": "c", "exemption_metadata": metadata})
    row = dict(zip(COLUMNS, within_int64(flatten(customer)), strict=True))
    assert row["exemption_metadata_total_certificates"] is None
    assert row["exemption_metadata_total_exempted_states"] == (1 << 63) - 1
    assert json.loads(row["extra"]) == {"exemption_metadata": {"new": 1, "total_certificates": number}}


@given(records)
def test_rows_without_such_integers_stay_the_same(record: dict[str, Any]) -> None:
    """The move to `extra` loses nothing, for any numbers."""
    customer = Customer.model_validate(record)
    assert comparable(Customer.model_validate(rebuilt(within_int64(flatten(customer))))) == comparable(customer)
