"""What an error about a page says, word by word, and what is collected in place of an error."""

import json
from typing import Any

import pytest

from commenda_customers import CustomerPage, InvalidResponseError
from commenda_customers._wire import decode_page, foreign_corporation
from raw_server import listing

HEADERS = {"x-request-id": "req-1"}
DEEP = b"[" * 100_000


def decode(content: Any, *, collect: bool = False) -> CustomerPage:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return decode_page(201, HEADERS, body, corporation_id="corp_1", redact=bytes, collect_invalid=collect)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (DEEP, "the response is nested too deeply"),
        (b"<html>", "the response is not JSON: 6 bytes of 'no content type'"),
        ({"a": 1}, "the response has neither documented envelope: an object with 1 keys, among them 'a'"),
        (
            {"customers": {}, "cursor": 5, "total_customers": "x"},
            (
                "the response is not a list of customers: an object with 3 keys, among them 'cursor', 'customers', "
                "'total_customers'; customers: Input should be a valid tuple; total_customers: Input should be a valid "
                "integer, unable to parse string as an integer; cursor: Input should be a valid string"
            ),
        ),
        (
            {"data": {"cursor": 5}},
            (
                "the response is not a list of customers: an object with 1 keys, among them 'data'; "
                "data.cursor: Input should be a valid string"
            ),
        ),
        ({"customers": [5]}, "customers of the page are not valid: row 0: the row is not an object"),
    ],
    ids=["deep", "html", "neither", "no list", "nested field", "row"],
)
def test_an_error_says_what_is_wrong_and_of_which_response(content: Any, message: str) -> None:
    """Every error about a body has the whole reason, the status and the request id."""
    with pytest.raises(InvalidResponseError) as caught:
        decode(content)
    assert caught.value.message == message
    assert (caught.value.status_code, caught.value.request_id) == (201, "req-1")


@pytest.mark.parametrize("body", [b'  {"id": "jane', b'\n[{"id": "jane'])
def test_json_that_was_cut_is_not_shown(body: bytes) -> None:
    """What begins like JSON may be a list of customers, also after white space."""
    with pytest.raises(InvalidResponseError) as caught:
        decode(body)
    assert caught.value.body_excerpt is None


@pytest.mark.parametrize("wrap", [lambda content: content, lambda content: {"data": content}], ids=["bare", "wrapped"])
def test_many_rows_may_be_invalid(wrap: Any) -> None:
    """Up to 10,000 invalid rows are collected beside the valid ones, in both envelopes. With one more, it is no list."""
    rows: list[Any] = [*listing("a", "b")["customers"], *[0] * 10_000]
    page = decode(wrap({"customers": rows, "cursor": "next"}), collect=True)
    assert ([customer.id for customer in page], len(page.invalid_customers), page.cursor) == (["a", "b"], 10_000, "next")
    with pytest.raises(InvalidResponseError, match=r"row 2: the row is not an object; .*; and more "):
        decode(wrap({"customers": [*rows, 0]}), collect=True)


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"created_at": [1]}, ["created_at: Input should be a valid datetime"]),
        ({"created_at": "x"}, ["created_at: Input should be a valid datetime or date, input is too short"]),
        ({"exemption_metadata": 5}, ["exemption_metadata: Input should be an object"]),
        (
            {"exemption_metadata": {"exempted_states": ["OH", 5]}},
            ["exemption_metadata.exempted_states.1: Input should be a valid string"],
        ),
        (
            {"name": 5, "shipping_address": {"city": []}},
            ["name: Input should be a valid string", "shipping_address.city: Input should be a valid string"],
        ),
    ],
    ids=["no time", "text", "no object", "item", "two"],
)
def test_a_row_says_which_fields_are_wrong(fields: dict[str, Any], errors: list[str]) -> None:
    """Each wrong field is named once, by its path in the row, in the words of JSON and not of Python."""
    page = decode({"customers": [{"id": "a", "corporation_id": "corp_1", **fields}]}, collect=True)
    assert [list(row.errors) for row in page.invalid_customers] == [errors]


def test_the_raw_row_is_kept_as_far_as_it_is_json() -> None:
    """A row that is not valid is kept as it came. A number that JSON cannot hold becomes null."""
    (row,) = decode(
        b'{"customers": [{"id": 5, "x": 2.5, "y": [1, 1e999, {"z": 1e999}], "t": true}]}', collect=True
    ).invalid_customers
    assert row.raw == {"id": 5, "x": 2.5, "y": [1, None, {"z": None}], "t": True}
    page = decode(b'{"customers": ["text", [1e999]]}', collect=True)
    assert [row.raw for row in page.invalid_customers] == ["text", [None]]


@pytest.mark.parametrize(
    ("rows", "end"), [(3, "row 2: the row is not an object"), (4, "row 2: the row is not an object; and more")]
)
def test_three_rows_are_named(rows: int, end: str) -> None:
    """An error names up to three rows, and says so if there are others."""
    with pytest.raises(InvalidResponseError) as caught:
        decode({"customers": [0] * rows})
    assert caught.value.message.endswith(end)


@pytest.mark.parametrize(
    ("owner", "found"),
    [
        ({}, None),
        ({"corporation_id": "corp_1"}, None),
        ({"corporation_id": "corp_2"}, "corp_2"),
        ({"corporation_id": ["corp_2"]}, "of type list"),
        ({"corporation_id": None}, "of type NoneType"),
    ],
    ids=repr,
)
def test_an_invalid_row_may_be_of_another_corporation(owner: dict[str, Any], found: str | None) -> None:
    """A row that is not valid belongs to the page if it does not say otherwise. What is no string is not shown."""
    page = decode({"customers": [{"id": "a", "name": 5, **owner}]}, collect=True)
    assert foreign_corporation(page) == found
