"""A large page is read in pieces. The outcome is the same page, or the same error, as when it is read at once."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers import CustomerPage, InvalidResponseError
from commenda_customers._wire import decode_in_steps, page, pieces
from fuzz_inputs import INPUTS, TEXTS, damaged
from fuzzing import CORPUS, check_steps, decode_by_steps, stored

SMALL = st.integers(60, 300)
"""Bytes of a piece."""

CONFUSING = st.sampled_from(
    ['},{"id":"', "},{", '"customers":[', 'customers":[', "]", '],"cursor":"x"}', "[]", "null", "\\", '"', "", "a"]
)
STRINGS = CONFUSING | st.lists(CONFUSING, max_size=3).map("".join) | TEXTS
ANY = st.recursive(
    STRINGS | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("id") | STRINGS, inner, max_size=2),
    max_leaves=5,
)
VALID = st.fixed_dictionaries({"id": STRINGS, "corporation_id": STRINGS}, optional={"name": STRINGS, "x": ANY, "y": ANY})
ROWS = st.one_of(VALID, st.fixed_dictionaries({}, optional={"id": ANY, "corporation_id": ANY}), ANY)


def write(value: Any) -> st.SearchStrategy[str]:
    """Write JSON with the blanks that some servers put between its parts."""
    blanks = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " :\r\n")])
    return blanks.map(lambda separators: json.dumps(value, separators=separators))


def members(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Write an object whose names may come twice, in any spelling."""
    names = st.sampled_from(
        [
            *('"customers"', '"customers"', '"customers"', '"data"', '"cursor"', '"total_customers"', '"x"'),
            *('"\\u0063ustomers"', '"\\"customers"', '"x\\\\"', '"Customers"'),
        ]
    )
    pairs = st.builds("{}{}{}".format, names, st.sampled_from([":", " : "]), values)
    return st.lists(pairs, min_size=1, max_size=4).map(lambda parts: "{" + ",".join(parts) + "}")


ARRAYS = st.one_of(
    st.lists(VALID, min_size=4, max_size=20),
    st.builds(list.__add__, st.lists(VALID, min_size=4, max_size=9), st.lists(ROWS, max_size=3)),
    st.lists(ROWS, max_size=9),
).flatmap(write)
LISTINGS = members(ARRAYS | ARRAYS | ANY.flatmap(write))
BODIES = st.one_of(
    st.builds('{{"customers":{}{}'.format, ARRAYS, st.sampled_from(["}", ',"cursor":"c","links":[1]}', "]}", ",}"])),
    st.builds('{{"data":{{"customers":{},"cursor":"c"}},"message":{}}}'.format, ARRAYS, ANY.flatmap(write)),
    members(ARRAYS | LISTINGS | ANY.flatmap(write)),
).map(str.encode)


@given(BODIES | damaged(BODIES), SMALL)
def test_a_page_in_pieces_is_the_same_page(body: bytes, piece: int) -> None:
    """Whatever the body is, and wherever it is cut, the page or the error is the same as without pieces."""
    check_steps(body, piece)


@given(INPUTS["page"], SMALL)
def test_any_body_in_pieces_is_the_same_page(body: bytes, piece: int) -> None:
    """The same holds for the inputs of the other tests of pages."""
    check_steps(body, piece)


@pytest.mark.parametrize("path", stored("page"), ids=lambda path: path.stem)
@pytest.mark.parametrize("piece", [30, 64, 100, 200, 1000])
def test_stored_inputs_in_pieces(path: Any, piece: int) -> None:
    """The same holds for the inputs that once broke a rule."""
    assert path.is_relative_to(CORPUS)
    check_steps(path.read_bytes(), piece)


def rows(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Return customers."""
    return [{"id": f"cust_{number}", "corporation_id": "corp_1", **fields} for number in range(count)]


MANY = json.dumps(rows(20))
NO_PAGES = {
    "closed and opened again": '{"customers":' + MANY + "," + MANY + "}",
    "an empty row": '{"customers":' + MANY.replace("}, {", "},, {", 1) + "}",
    "an empty row at the beginning": '{"customers":' + MANY.replace("[", "[ ,", 1) + "}",
    "an empty row at the end": '{"customers":' + MANY.replace("]", ",]", 1) + "}",
    # The array may end in two places. What is a string with one end is not a string with the other.
    "inside out": '{"customers":[{":1,":"a","id":"b","corporation_id":"c","name":"' + 200 * "N" + '","y":"],"},{":1,":":9}',
    "cut": '{"customers":' + MANY[:-20] + "]}",
}
OTHER_ARRAYS = {
    "deeper": '{"x":{"customers":' + MANY + '},"customers":[]}',
    "deeper, and no other": '{"x":{"customers":' + MANY + '},"customers":null}',
    "the first of two": '{"customers":' + MANY + ',"customers":[]}',
    "beside data": '{"customers":' + MANY + ',"data":{"customers":[]}}',
    "a name that ends like it": '{"x\\"customers":' + MANY + ',"customers":null}',
    "a string": '{"cursor":"\\"customers\\":' + MANY.replace('"', '\\"') + '","customers":[]}',
}


@pytest.mark.parametrize("body", [*NO_PAGES.values(), *OTHER_ARRAYS.values()], ids=[*NO_PAGES, *OTHER_ARRAYS])
def test_what_looks_like_customers_is_none(body: str) -> None:
    """If something only looks like customers, the body is still read as JSON says: another page, or no page."""
    for piece in range(60, 500):
        check_steps(body.encode(), piece)
    outcome = decode_by_steps(body.encode(), piece=100)
    assert (not outcome.customers) if isinstance(outcome, CustomerPage) else outcome.transient


@pytest.fixture
def _high_recursion_limit() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("_high_recursion_limit")
@pytest.mark.parametrize("levels", [*range(190, 203), *range(990, 1003)])
@pytest.mark.parametrize("before", ['{"customers":', '{"data":{"customers":'])
def test_the_depth_of_a_page_is_that_of_the_whole(levels: int, before: str) -> None:
    """A row is nested as deeply in a piece as in the page, also where no recursion limit of Python applies."""
    deep = json.loads("[" * 180 + "]" * 180)
    text = json.dumps([*rows(9), *rows(1, x="deep"), *rows(9), *rows(1, x=deep)])
    body = before + text.replace('"deep"', "[" * levels + "]" * levels) + "}" * before.count("{")
    for piece in (100, 500, 1000, 2500):
        check_steps(body.encode(), piece)


NAME = "N" * 500
DEEP = json.loads("[" * 900 + "]" * 900)
LARGE = [
    pytest.param({"customers": rows(2000, name=NAME), "cursor": "c"}, id="bare"),
    pytest.param(
        {"message": "m", "data": {"total_customers": 5, "customers": rows(2000, name=NAME), "links": [1]}}, id="wrapped"
    ),
    pytest.param(
        {"customers": rows(1000, name=NAME, tags=[{"id": 1}, {"id": 2}, {"id": "},{"}])}, id="objects inside of a row"
    ),
    pytest.param({"customers": [*rows(1000, name=NAME), *rows(1, name=5), *rows(1000, name=NAME), {}]}, id="invalid rows"),
    pytest.param(
        {"customers": [*rows(1000, name=NAME), *rows(1, name="\ud83d"), *rows(1000, name=NAME)]}, id="half a character"
    ),
    pytest.param({"customers": [*rows(1000, name=NAME), *rows(1, name=DEEP), *rows(1000, name=NAME)]}, id="a deep row"),
    pytest.param({"customers": [{}] * 100_000}, id="only invalid rows"),
]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which each reading of a part of a page appends how many bytes it reads."""
    sizes: list[int] = []

    def counted(read: Callable[..., Any], bytes_of_one: int = 1) -> Callable[..., Any]:
        def call(part: Any, *args: Any, **options: Any) -> Any:
            sizes.append(bytes_of_one * len(part))
            return read(part, *args, **options)

        return call

    adapter = pieces._adapter
    monkeypatch.setattr(pieces, "parse_json", counted(pieces.parse_json))
    monkeypatch.setattr(
        pieces, "validate_rows", counted(pieces.validate_rows, bytes_of_one=600)
    )  # one by one, which is slow
    monkeypatch.setattr(
        pieces, "_adapter", lambda depth: SimpleNamespace(validate_json=counted(adapter(depth).validate_json))
    )
    monkeypatch.setattr(page, "decode_page", lambda *_, **__: pytest.fail("the page was read at once"))
    return sizes


@pytest.mark.parametrize("content", LARGE)
@pytest.mark.parametrize("collect", [False, True])
def test_no_step_reads_a_large_page(content: Any, collect: bool, reading: list[int]) -> None:
    """A page of a megabyte is read in many steps. No step reads a large part of it."""
    body = json.dumps(content).encode()
    steps = decode_in_steps(200, {}, body, corporation_id="corp_1", redact=bytes, collect_invalid=collect)
    most: list[int] = []
    with suppress(StopIteration, InvalidResponseError):
        while True:
            next(steps)
            most.append(sum(reading))
            reading.clear()
    most.append(sum(reading))
    assert len(most) > 5
    assert max(most) <= 6 * pieces.PIECE


@pytest.mark.parametrize("content", LARGE)
@pytest.mark.parametrize("collect", [False, True])
def test_a_large_page_is_the_same_in_steps(content: Any, collect: bool) -> None:
    """It is that which is read at once, and an error of it is final."""
    body = json.dumps(content).encode()
    check_steps(body, 64 * 1024)
    outcome = decode_by_steps(body, collect=collect)
    assert isinstance(outcome, CustomerPage) or not outcome.transient


@pytest.mark.parametrize("size", [0, 10, 100])
def test_a_usual_page_is_read_in_one_step(size: int) -> None:
    """A page of up to 100 customers has no step before its end."""
    steps = decode_in_steps(
        200, {}, json.dumps({"customers": rows(size, name=NAME)}).encode(), corporation_id="corp_1", redact=bytes
    )
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert len(done.value.value) == size
