"""JSON Lines of invalid rows, and the reader of all JSON Lines files."""

import json
from collections.abc import Iterator
from typing import IO

from ..models import CustomerPage


def encode_invalid(page: CustomerPage) -> bytes:
    """
    Return the invalid rows of a page, one on each line.

    A line has `corporation_id`, `id` (`null` if the row has none), `index` (the place of the row on its page, from 0),
    `errors` (one text for each invalid field) and `raw` (the row itself).
    """
    return b"".join(
        json.dumps(
            {
                "corporation_id": page.corporation_id,
                "id": row.id,
                "index": row.index,
                "errors": row.errors,
                "raw": row.raw,
            }
        ).encode()
        + b"\n"
        for row in page.invalid_customers
    )


def read_lines(file: IO[str]) -> Iterator[tuple[str | None, bytes]]:
    """Yield the corporation and the bytes of each line."""
    for line in file:
        yield json.loads(line)["corporation_id"], line.encode()
