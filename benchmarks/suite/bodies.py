"""
The responses that the server sends, made in advance.

A page is made from a template, into which the name of the corporation and the number of the page are written. So every
customer has an id of its own.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from commenda_customers.testing._data import make_customer, to_wire

from .corporations import EXTENSIONS, PER_PAGE, pages_of

_CORPORATION, _PAGE = "~corporation~~~", "~page"
"""Placeholders for the name of a corporation and the number of a page. They are as long as these, which is faster."""


@dataclass(frozen=True)
class Kind:
    """
    What the pages of a path are like.

    Attributes:
        customers: How many are on a page, whatever the client asks for.
        envelope: The vendor whose pager understands the page.
        is_compressed: Sent with gzip.
        delay: Seconds that the server takes.
    """

    customers: int = PER_PAGE
    envelope: str = "commenda"
    is_compressed: bool = False
    delay: float = 0.0


KINDS = {
    "commenda": Kind(),
    "commenda-gzip": Kind(is_compressed=True),
    "stripe": Kind(envelope="stripe"),
    "stripe-gzip": Kind(envelope="stripe", is_compressed=True),
    "slow": Kind(delay=0.05),
    "thousand": Kind(1000),
    "4MiB": Kind(7000),
}
"""By the first part of the path."""


@lru_cache(maxsize=2048)
def compressed(kind: Kind, corporation_id: str, page: int) -> bytes:
    """Return a page, compressed as a server would."""
    return gzip.compress(body(kind, corporation_id, page), compresslevel=6)


def body(kind: Kind, corporation_id: str, page: int) -> bytes:
    """Return page number *page* of a corporation."""
    text = _template(kind, is_last=page + 1 == pages_of(corporation_id))
    return text.replace(_CORPORATION.encode(), corporation_id.encode()).replace(_PAGE.encode(), f"{page:05}".encode())


@lru_cache
def _template(kind: Kind, *, is_last: bool) -> bytes:
    content = _ENVELOPES[kind.envelope](_rows(kind.customers), is_last)
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


@lru_cache
def _rows(number: int) -> Sequence[dict[str, Any]]:
    rows = [to_wire(make_customer(0, "corp", each), EXTENSIONS, {}) for each in range(number)]
    return [row | {"id": f"cust_{_PAGE}{each:04}", "corporation_id": _CORPORATION} for each, row in enumerate(rows)]


def _commenda(rows: Sequence[dict[str, Any]], is_last: bool) -> dict[str, Any]:  # noqa: FBT001 - a table calls it
    # The client asks for the page after this one by the number of this one.
    return {"data": {"customers": rows, "total_customers": 100_000, "cursor": None if is_last else f"after_{_PAGE}"}}


def _stripe(rows: Sequence[dict[str, Any]], is_last: bool) -> dict[str, Any]:  # noqa: FBT001 - a table calls it
    rows = [{"object": "customer", **row} for row in rows]
    return {"object": "list", "data": rows, "has_more": not is_last, "url": "/v1/customers"}


_ENVELOPES = {"commenda": _commenda, "stripe": _stripe}
