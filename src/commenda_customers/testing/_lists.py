"""The list of one corporation: customers made from a seed, or the records of a test."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from ._data import EXTENSIONS, make_customer, to_wire
from ._filters import Filters, matches

_KEPT_RESULTS = 64
"""Results of filters that a list remembers. To make a million customers for every page would take too long."""


class CustomerRows(Protocol):
    """What a corporation has, in the order of the API."""

    def matching(self, filters: Filters) -> Sequence[int]:
        """Return the numbers of the rows that meet all *filters*, from 0, in order."""
        ...

    def row(self, number: int, extend: Sequence[str]) -> Any:
        """Return a row as the API lists it, with the parts in *extend*."""
        ...


class MadeRows:
    """Customers made from a seed. They are made on demand and never stored."""

    def __init__(self, seed: int, corporation_id: str, size: int, address_keys: Mapping[str, str]) -> None:
        self._seed = seed
        self._corporation_id = corporation_id
        self._size = size
        self._address_keys = address_keys
        self._search = lru_cache(_KEPT_RESULTS)(self._find)

    def __len__(self) -> int:
        return self._size

    def matching(self, filters: Filters) -> Sequence[int]:
        return self._search(filters) if filters else range(self._size)

    def row(self, number: int, extend: Sequence[str]) -> Any:
        return to_wire(make_customer(self._seed, self._corporation_id, number), extend, self._address_keys)

    def _find(self, filters: Filters) -> Sequence[int]:
        return [number for number in range(self._size) if matches(self.row(number, EXTENSIONS), filters)]


class GivenRows:
    """Records of a test, served as they are."""

    def __init__(self, rows: Sequence[Any]) -> None:
        # A copy: the test may change its list while a request is served.
        self._rows = tuple(rows)

    def matching(self, filters: Filters) -> Sequence[int]:
        if not filters:
            return range(len(self._rows))

        return [number for number, row in enumerate(self._rows) if matches(row, filters)]

    def row(self, number: int, extend: Sequence[str]) -> Any:  # noqa: ARG002 - a record has the parts that it has
        return self._rows[number]
