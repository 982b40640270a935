"""Bytes and headers to a page or an error, without any network."""

import json
import math
import re
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers import (
    APIStatusError,
    CursorRejectedError,
    CustomerPage,
    InvalidResponseError,
    NotFoundError,
)
from commenda_customers._wire import decode_page, foreign_corporation, status_error
from raw_server import listing

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def decode(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> CustomerPage:
    """Decode a body, given as bytes or as what to write as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return decode_page(status, headers or {}, body, corporation_id="corp_1", redact=bytes)


def wrapped(content: Any) -> dict[str, Any]:
    """Put a listing into the other documented envelope."""
    return {"data": content, "message": "Successfully fetched customers."}


@pytest.mark.parametrize("envelope", [lambda content: content, wrapped], ids=["bare", "wrapped"])
def test_both_envelopes_are_read(envelope: Any) -> None:
    """The bare and the wrapped envelope give the same page."""
    page = decode(envelope(listing("a", "b", cursor="next")))
    assert [customer.id for customer in page] == ["a", "b"]
    assert (page.corporation_id, page.total_customers, page.cursor) == ("corp_1", 2, "next")


@pytest.mark.parametrize("envelope", [lambda content: content, wrapped], ids=["bare", "wrapped"])
@pytest.mark.parametrize("end", [{"cursor": None}, {}, {"cursor": ""}], ids=["null", "absent", "empty"])
def test_all_ends_of_a_list_are_alike(envelope: Any, end: dict[str, Any]) -> None:
    """A cursor that is null, absent or empty means that there is no next page."""
    content = {"customers": [], "total_customers": 0, **end}
    assert decode(envelope(content)).cursor is None


def test_a_listing_without_customers_may_say_null() -> None:
    """Some servers write an empty array as null; that is an empty page and no error."""
    assert len(decode(wrapped({"customers": None, "cursor": "next"}))) == 0


def test_a_byte_order_mark_is_no_part_of_the_json() -> None:
    """A body that begins with a UTF-8 byte order mark is read (RFC 8259, section 8.1, leaves it open)."""
    assert len(decode(b"\xef\xbb\xbf" + json.dumps(listing("a")).encode())) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b'{"customers": [',
        b"<html>",
        b'{"customers": [], "cursor": "\xff"}',
        b"\xff\xfe{\x00}\x00",
    ],
    ids=["empty", "blank", "cut", "cut in a list", "html", "invalid utf-8", "utf-16"],
)
def test_a_body_that_is_no_json_is_transient(body: bytes) -> None:
    """A body that is no JSON is a transient error, which says what came."""
    with pytest.raises(InvalidResponseError, match=f"not JSON: {len(body)} bytes of 'text/x'") as caught:
        decode(body, headers={"content-type": "text/x"})
    assert caught.value.transient


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, r"neither documented envelope: an object with 0 keys$"),
        (
            {"error": "x", "message": "y"},
            "neither documented envelope: an object with 2 keys, among them 'error', 'message'$",
        ),
        ({"data": None, "message": "y"}, "neither documented envelope"),
        ({"data": {"result": 1}}, "neither documented envelope"),
        ([], "not a list of customers: a JSON list; body: Input should be an object"),
        ("text", "not a list of customers: a JSON str"),
        ({"data": []}, "not a list of customers: .*; data: Input should be an object"),
        ({"customers": [{"id": "a"}]}, r"not valid: row 0 \(id 'a'\): corporation_id: Field required$"),
        ({"customers": {}, "cursor": 5, "total_customers": "x"}, "customers: .*; total_customers: .*; cursor: "),
        ({"customers": [{}, {}]}, "row 0: id: Field required, corporation_id: Field required; row 1: id: "),
        ({"total_customers": "x", "cursor": 1, "data": 1, "customers": 1}, "; and 1 more"),
        ([0] * 50_000, "not a list of customers: 150,000 bytes of JSON"),
    ],
)
def test_json_in_no_envelope_is_final(content: Any, words: str) -> None:
    """JSON in neither envelope is a final error, which says what is wrong with it."""
    with pytest.raises(InvalidResponseError, match=words) as caught:
        decode(content)
    assert not caught.value.transient


@pytest.mark.parametrize("before", [b"", b'{"customers":', b'{"x":'])
def test_json_of_any_depth_is_an_error(before: bytes) -> None:
    """JSON that is nested deeply is refused like any other, also where the parser just manages to read it."""
    depths = [*range(2, 1100), *range(1100, 20_000, 500), 100_000]
    for depth in depths:
        with pytest.raises(InvalidResponseError):
            decode(before + b"[" * depth + b"]" * depth + b"}" * len(before[:1]))


def test_errors_about_bodies_show_no_customer() -> None:
    """What may be customers' data is in no error, nor in the exception behind it; HTML is shown."""
    for content in (
        {"customers": [{"id": "a", "email": ["jane@example.com"], "name": {"jane": "jane"}}]},
        {f"jane{number}@example.com": number for number in range(1000)},
        {f"jane_{number}" * 10: number for number in range(1000)},
        b'{"customers": [{"id": "jane@example.com"',
    ):
        with pytest.raises(InvalidResponseError) as caught:
            decode(content)
        shown = f"{caught.value} {caught.value.body_excerpt} {caught.value.__cause__}"
        assert "jane" not in shown
        assert len(str(caught.value)) < 300
        assert caught.value.__context__ is None, "it would hold the whole body"

    with pytest.raises(InvalidResponseError) as caught:
        decode(b"<html>Please log in</html>")
    assert caught.value.body_excerpt == "<html>Please log in</html>"


def test_errors_about_bodies_name_the_response() -> None:
    """The error of a bad response has its status and its request id."""
    with pytest.raises(InvalidResponseError) as caught:
        decode(b"", status=203, headers={"x-request-id": "req-1"})
    assert (caught.value.status_code, caught.value.request_id) == (203, "req-1")


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (204, {}, "204 No Content"),
        (205, {}, "205 Reset Content"),
        (200, {"content-length": "0"}, "200 OK"),
        (202, {"transfer-encoding": "chunked"}, "202 Accepted"),
        (299, {"content-length": "0"}, "299"),
    ],
)
def test_a_success_without_a_body_is_final(status: int, headers: dict[str, str], words: str) -> None:
    """A 2xx that is complete and empty says what came, and is final: the same would come again."""
    with pytest.raises(InvalidResponseError, match=f"answered {words} without a body: a page was expected") as caught:
        decode(b"", status=status, headers=headers)
    assert not caught.value.transient
    assert caught.value.status_code == status


def test_a_foreign_customer_is_found() -> None:
    """One customer of another corporation anywhere on a page is found."""
    good = decode(listing("a", "b"))
    bad = decode({"customers": [*listing("a")["customers"], *listing("b", corporation_id="corp_2")["customers"]]})
    assert foreign_corporation(good) is None
    assert foreign_corporation(bad) == "corp_2"
    assert len(foreign_corporation(decode(listing("a", corporation_id="x" * 10_000))) or "") < 300


@pytest.mark.parametrize(
    ("status", "cls"),
    [(400, CursorRejectedError), (410, CursorRejectedError), (422, CursorRejectedError), (404, NotFoundError)],
)
def test_a_refused_cursor_has_its_error(status: int, cls: type[APIStatusError]) -> None:
    """A status that refuses a request with a cursor says that it is about the cursor; 404 does not."""
    error = status_error(status, {}, b'{"message": "why"}', cursor="abc")
    assert (type(error), error.transient, error.status_code) == (cls, False, status)
    assert ("no longer accepts the cursor: " in str(error)) is (cls is CursorRejectedError)
    assert 'why"}' in str(error)


@pytest.mark.parametrize("name", ["x-request-id", "request-id", "x-correlation-id"])
def test_a_request_id_has_one_of_three_names(name: str) -> None:
    """The request id is read from each of its usual headers."""
    assert status_error(500, {name: "req-1"}, b"").request_id == "req-1"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"customers":[%s]}', "row 2: id: Field required, corporation_id: Field required; and more"),
        (
            b'{"customers":[{"id":"a","corporation_id":"b","exemption_metadata":{"exempted_states":[%s]}}]}',
            "exempted_states.0",
        ),
        (
            b'{"customers":[{"id":"a","corporation_id":"b","exemption_metadata":{"certificate_types":[%s]}}]}',
            "certificate_types.0",
        ),
    ],
)
def test_many_bad_items_are_as_quickly_refused_as_one(body: bytes, where: str) -> None:
    """The first few bad rows, or bad items of a row, refuse a page. Parsing takes thirty times the memory of the body."""
    body %= b",".join([b"{}"] * 100_000)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidResponseError, match=re.escape(where)):
            decode(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30 * len(body)


def test_a_cursor_beside_its_envelope_is_read() -> None:
    """A cursor beside `data` is read like one inside, so that a list never ends because of it."""
    page = decode({"data": {"customers": listing("a")["customers"]}, "cursor": "next", "total_customers": 9})
    assert (len(page), page.cursor, page.total_customers) == (1, "next", 9)


def test_headers_are_shortened() -> None:
    """What a server writes into its headers does not flood the log."""
    headers = {"location": "x" * 60_000, "x-request-id": "y" * 60_000}
    error = status_error(302, headers, b"")
    assert len(str(error)) < 1000


CONTROLS = st.text(alphabet="ab \n\r\t\x00\x1b\x7f\u0085\u200b\u2028\u202e\ufeff\U0001f600", max_size=1000)


@given(st.binary(max_size=3000) | CONTROLS.map(str.encode))
def test_an_excerpt_is_one_short_printable_line(body: bytes) -> None:
    """Whatever bytes an error body holds, its excerpt can be printed in one line of a log or terminal."""
    excerpt = status_error(500, {}, body).body_excerpt
    assert excerpt is None or (excerpt.isprintable() and 0 < len(excerpt) <= 201)


def row(**fields: Any) -> dict[str, Any]:
    """Return a customer."""
    return {"id": "a", "corporation_id": "corp_1", **fields}


class TestRowByRow:
    """Pages that cannot be read at once."""

    @staticmethod
    def collect(body: str) -> CustomerPage:
        return decode_page(200, {}, body.encode(), corporation_id="corp_1", redact=bytes, collect_invalid=True)

    @given(st.lists(st.sampled_from([row(x=1), row(x=2.5, y=[None, {"z": "\ud83d\ude00"}]), row(x=math.inf)]), max_size=4))
    def test_an_invalid_row_changes_no_other(self, rows: list[dict[str, Any]]) -> None:
        """Valid rows are read the same, whether there is an invalid row beside them or not."""
        alone = self.collect(json.dumps({"customers": rows}))
        together = self.collect(json.dumps({"customers": [*rows, row(name=5)]}))
        assert together.customers == alone.customers
        assert [each.index for each in together.invalid_customers] == [len(rows)]

    def test_a_page_without_rows_is_empty(self) -> None:
        """If a page has no rows, a string that is slightly wrong changes nothing else."""
        page = self.collect('{"customers": null, "message": "Caf\\ud83d", "cursor": "next"}')
        assert (len(page), page.invalid_customers, page.cursor) == (0, (), "next")

    @pytest.mark.parametrize("others", ["", "5,"])
    def test_control_characters_are_read_as_they_are(self, others: str) -> None:
        """A tab or a zero inside of a string, which JSON forbids, costs no row, also not beside one that is not valid."""
        page = self.collect('{"customers":[' + others + '{"id":"a\tb\x00","corporation_id":"corp_1"}]}')
        assert [customer.id for customer in page] == ["a\tb\x00"]

    def test_an_integer_of_thousands_of_digits_is_one_row(self) -> None:
        """A number that Python does not read costs no page."""
        content = json.dumps({"customers": [row(), row(name="N"), row(credit="N")]})
        page = self.collect(content.replace('"N"', "9" * 5000))
        assert [each.index for each in page.invalid_customers] == [1]
        assert page.customers[1].model_dump_json().endswith('"credit":null}')

    def test_a_page_that_is_nested_too_deeply_is_final(self) -> None:
        """It would come again, so it is not retried."""
        with pytest.raises(InvalidResponseError, match="nested too deeply") as caught:
            self.collect('{"customers":[' + "[" * 100_000 + "]" * 100_000 + "]}")
        assert not caught.value.transient

    def test_a_customer_that_cannot_be_written_is_not_valid(self) -> None:
        """A customer with an undocumented field that is nested too deeply to be JSON again is an invalid row."""
        deep = json.loads("[" * 400 + "]" * 400)
        page = self.collect(json.dumps({"customers": [row(), row(id="x", field=deep)]}))
        assert (len(page), page.customers[0].model_extra) == (1, {})
        assert [(each.id, each.errors) for each in page.invalid_customers] == [("x", ("the row is nested too deeply",))]

    @pytest.mark.parametrize("owner", [5, None, {"name": "jane"}, ["jane"]])
    def test_an_owner_that_is_no_string_is_not_shown(self, owner: Any) -> None:
        """What is not the id of a corporation may be anything, so only its type is shown."""
        page = self.collect(json.dumps({"customers": [row(corporation_id=owner)]}))
        assert foreign_corporation(page) == f"of type {type(owner).__name__}"

    def test_an_object_behind_a_byte_order_mark_is_described(self) -> None:
        """The description of a body that is no listing copes with a byte order mark."""
        with pytest.raises(InvalidResponseError, match="an object with 1 keys, among them 'error'"):
            decode(b'\xef\xbb\xbf{"error": "maintenance"}')

    def test_a_body_of_backslashes_is_refused_soon(self) -> None:
        """Millions of escapes take no time for each."""
        with pytest.raises(InvalidResponseError, match="not JSON"):
            decode(b"\\" * 2**24)

    def test_pages_with_invalid_rows_can_be_hashed(self) -> None:
        """Events and pages may be kept in sets."""
        page = self.collect(json.dumps({"customers": [row(name=5, x={})]}))
        assert len({page, page}) == 1
