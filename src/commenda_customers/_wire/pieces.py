"""
Reads a large page in pieces, so that it never blocks an event loop for longer than one piece takes.

How it works. The array of customers is cut where one row ends and the next begins. Each piece is validated as an array of
its own. The rest of the body, the envelope, is validated with an empty array in place of the customers. Where to cut is a
guess: the same bytes may be in a string, or deeper inside of a row. A wrong guess cannot give a wrong page, because JSON can
be read in one way only:

- If a piece in brackets is JSON, it is a sequence of complete rows. Several such pieces, with commas between them, are the
  items of one array.
- The envelope is read with `[]` and with `null` in place of the array. If pydantic finds an empty array of customers in
  the first, and `None` in the second, the array is the one that counts. It is not part of a string, not at another level,
  and not the first of two with the same name. Then pydantic would read any other array in this place, too.

If a piece or the envelope is not valid, the next guess is tried. After a few of them, the page must be read at once.
"""

import re
from collections.abc import Generator, Iterator
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, cast

from pydantic import TypeAdapter, ValidationError

from ..models import Customer, InvalidCustomer
from .envelope import Envelope, Rows
from .rows import parse_json, validate_rows

PIECE = 64 * 1024
"""Bytes of a piece: about a millisecond."""

_FARTHEST = 4
"""A row must end within this number of pieces."""

_MOST_GUESSES = 4
"""How many places are tried for the end of a piece, and for the end of the array."""

_ROWS_AT_ONCE = 100

_ARRAY = re.compile(rb'"customers"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_FIRST_KEY = re.compile(rb'\[[ \t\r\n]*(\{(?:[ \t\r\n]*"[^"\\]{0,100}")?)')


def validate_in_pieces(
    text: bytes, *, most: int, piece: int = PIECE
) -> Generator[None, None, tuple[Envelope, tuple[InvalidCustomer, ...]] | None]:
    """
    Return the listing with its valid rows, and the others; `None` if the page must be read at once.

    The result is the same as when the page is read at once. Yields between two pieces.

    Args:
        text: The body, without a byte order mark.
        most: How many invalid rows the caller needs. The result may have one more.
        piece: Bytes that are read in one step.
    """
    array = _find_array(text, longest=piece // 2)
    if array is None:
        return None

    rows, at = _Rows(array.depth, most), array.begin
    while array.ends[0][0] - at > 2 * piece:
        first, last = at + piece, at + _FARTHEST * piece
        for end, following in islice(array.cuts(text, first, last), _MOST_GUESSES):
            yield
            if (yield from rows.read(text[at:end])):
                at = following
                break
        else:
            return None

    for end, envelope in array.ends:
        yield
        if (yield from rows.read(text[at:end])):
            envelope.listing.customers = tuple(rows.customers)
            return envelope, tuple(rows.invalid)

    return None


class _Array(NamedTuple):
    """
    Where the customers are.

    Attributes:
        begin: Where the first row begins.
        ends: Where the array may end, and the envelope that is then around it. The last place comes first.
        depth: How deeply a row is nested in the body.
        row: How a row begins.
    """

    begin: int
    ends: list[tuple[int, Envelope]]
    depth: int
    row: bytes

    def cuts(self, text: bytes, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Return where a row may end, and where the next one then begins."""
        # The first key of a row is rarely also the first key of an object inside of a row.
        pattern = rb"\}[ \t\r\n]*,[ \t\r\n]*(?=%b)" % re.escape(self.row)
        return ((found.start() + 1, found.end()) for found in re.compile(pattern).finditer(text, first, last))


def _find_array(text: bytes, *, longest: int) -> _Array | None:
    """Find the array of customers, if the body has at most *longest* bytes before it, and as many after it."""
    place = _ARRAY.search(text, 0, longest)
    row = place and _FIRST_KEY.match(text, place.end())
    if place is None or row is None:
        return None

    ends: list[tuple[int, Envelope]] = []
    depth, before, end = 2, text[: place.end()], len(text)
    for _ in range(_MOST_GUESSES):
        end = text.rfind(b"]", max(row.end(), len(text) - longest), end)
        if end < 0:
            break

        try:
            envelope, other = (Envelope.model_validate_json(before + value + text[end + 1 :]) for value in (b"[]", b"null"))
        except ValidationError:
            continue
        if envelope.listing.customers == () and other.listing.customers is None:
            ends.append((end, envelope))
            depth = 2 if envelope.data is None else 3

    return _Array(row.start(1), ends, depth, row[1]) if ends else None


class _Rows:
    """The rows so far."""

    def __init__(self, depth: int, most: int) -> None:
        self.customers: list[Customer] = []
        self.invalid: list[InvalidCustomer] = []
        self._depth = depth
        self._most = most

    def read(self, piece: bytes) -> Generator[None, None, bool]:
        """Add the rows of a piece; return whether it consists of complete rows. Yields between many invalid rows."""
        # Nest the piece as deeply as in the body, because the depth of JSON is limited. Each outer array must have one item:
        # then no bracket of the piece has closed it.
        text = b"[" * self._depth + piece + b"]" * self._depth
        try:
            value = _adapter(self._depth).validate_json(text)
        except ValidationError:
            return (yield from self._read_row_by_row(text))

        for _ in range(self._depth - 1):
            (value,) = value
        self.customers += value
        return bool(value)

    def _read_row_by_row(self, text: bytes) -> Generator[None, None, bool]:
        try:
            value = cast("list[Any]", parse_json(text))
            for _ in range(self._depth - 1):
                (value,) = value
        except (ValueError, RecursionError):
            return False

        for first in range(0, len(value), _ROWS_AT_ONCE):
            if len(self.invalid) > self._most:
                break
            customers, invalid = validate_rows(
                value[first : first + _ROWS_AT_ONCE],
                most=self._most - len(self.invalid),
                first=len(self.customers) + len(self.invalid),
            )
            self.customers += customers
            self.invalid += invalid
            yield

        return bool(value)


@cache
def _adapter(depth: int) -> TypeAdapter[Any]:
    rows: Any = Rows
    for _ in range(depth - 1):
        rows = tuple[rows]
    return TypeAdapter(rows)
