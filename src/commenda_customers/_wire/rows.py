"""
Reads a page row by row, after it could not be read at once: some rows do not validate, or the JSON is slightly wrong.

This is slow and needs more memory, so only such pages are read here.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeGuard

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError

from ..models import Customer, InvalidCustomer
from .errors import one_line

MOST_INVALID = 10_000
"""A page with more rows that do not validate is not a list of customers. A small body can hold millions of them."""

MOST_NAMED = 3
"""Rows that an error names."""

_SURROGATE = re.compile(
    rb"((?:\\\\)++)|\\u[dD](?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})"
)
"""
A surrogate, or a pair of them; or escaped backslashes, after which `u` is only a letter.

`++` is possessive: it stores no position for backtracking, of which there could be millions.
"""

_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""A string, or the begin or end of an array or an object."""

_DEEPEST = 1000
"""Nested levels of JSON that are read. It is Python's default recursion limit."""

_DEEPEST_RAW = 200
"""Nested levels of an invalid row that are kept, so that a program can print, pickle or write it from a deep call stack."""


def parse_json(text: bytes) -> object:
    """
    Parse JSON that a strict parser may refuse.

    A lone surrogate, which is half of a character, becomes U+FFFD. Control characters inside of strings are read as they
    are. An integer of thousands of digits, which Python refuses, becomes infinity, as a float that is too large does.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    if sys.getrecursionlimit() > _DEEPEST:
        _check_depth(text)
    if rb"\u" in text:
        text = _SURROGATE.sub(lambda found: found[0] if found[1] or found[2] else b"\\ufffd", text)
    return json.loads(text.decode(), strict=False, parse_int=_whole)


def _check_depth(text: bytes) -> None:
    """Refuse JSON that is nested too deeply. Before Python 3.12, the parser crashes if the recursion limit is high."""
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += {0x5B: 1, 0x7B: 1, 0x5D: -1, 0x7D: -1}.get(text[token.start()], 0)
        if depth > _DEEPEST:
            raise RecursionError


def _whole(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _writable(value: object, levels: int = _DEEPEST_RAW) -> object:
    """Replace, in place, numbers that JSON cannot hold, and values that are nested too deeply, by `None`."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if levels == 0 and (_is_object(value) or _is_list(value)):
        return None
    if _is_object(value):
        for key, item in value.items():
            value[key] = _writable(item, levels - 1)
    elif _is_list(value):
        for index, item in enumerate(value):
            value[index] = _writable(item, levels - 1)
    return value


def take_rows(content: object) -> list[Any] | None:
    """Take the rows out of a listing in one of the documented envelopes; `None` if there are none."""
    if not _is_object(content):
        return None

    listing = content["data"] if _is_object(content.get("data")) else content
    rows = listing.get("customers")
    if not _is_list(rows):
        return None

    listing["customers"] = []
    return rows


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def validate_rows(
    rows: Sequence[Any], *, most: int, first: int = 0
) -> tuple[tuple[Customer, ...], tuple[InvalidCustomer, ...]]:
    """Return the rows that validate, and the others; stop if there are more others than *most*. Indexes begin at *first*."""
    customers: list[Customer] = []
    invalid: list[InvalidCustomer] = []
    for index, row in enumerate(rows, first):
        try:
            customer = Customer.model_validate(row)
            customer.model_dump_json()
        except (ValidationError, PydanticSerializationError) as exc:
            invalid.append(_invalid(index, row, exc))
            if len(invalid) > most:
                break
        else:
            customers.append(customer)

    return tuple(customers), tuple(invalid)


def _invalid(index: int, row: object, exc: ValidationError | PydanticSerializationError) -> InvalidCustomer:
    if not _is_object(row):
        return InvalidCustomer(index, None, ("the row is not an object",), _writable(row))

    name = row.get("id")
    errors = _problems(exc) if isinstance(exc, ValidationError) else ("the row is nested too deeply",)
    return InvalidCustomer(index, name if isinstance(name, str) else None, errors, _writable(row))


def _problems(exc: ValidationError) -> tuple[str, ...]:
    """Return the first problem of each field."""
    problems: dict[str, str] = {}
    for problem in exc.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"] if _names_a_field(part))
        problems.setdefault(where, message_of(problem))
    return tuple(f"{field}: {message}" for field, message in problems.items())


def message_of(problem: ErrorDetails) -> str:
    """Return what is wrong, in the words of JSON."""
    return "Input should be an object" if problem["type"] == "model_type" else problem["msg"]


def _names_a_field(part: str | int) -> bool:
    """Tell the name of a field or an index from what pydantic calls a choice of a union."""
    return part != "datetime" and "[" not in str(part)


def describe(invalid: Sequence[InvalidCustomer]) -> str:
    """Say which rows are invalid and why, without their values."""
    named = "; ".join(
        f"row {row.index}{'' if row.id is None else f' (id {one_line(row.id)!r})'}: {', '.join(row.errors)}"
        for row in invalid[:MOST_NAMED]
    )
    return f"{named}; and more" if len(invalid) > MOST_NAMED else named
