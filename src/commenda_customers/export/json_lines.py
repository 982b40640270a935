"""Customers as JSON Lines."""

import os

from ..models import Customer, CustomerPage
from ._file_sink import FileSink
from ._invalid_rows import read_lines

_to_json = Customer.__pydantic_serializer__.to_json


class JSONLinesFile(FileSink):
    """
    A file with a JSON object for each customer, one on each line.

        await export(api, ["corp_123"], JSONLinesFile("customers.jsonl.gz"))

    The fields have their documented names. Undocumented fields are there too. The encoding is UTF-8. If the file name ends
    with `.gz` or `.zst`, the file is compressed. `.zst` needs the extra `zstd`.

    While the export runs, the customers are in `PATH.partial`, and `PATH.state` has the checkpoint. When the export is
    complete, the file gets its final name, and `PATH.state` is removed. Invalid rows go into `PATH.invalid.jsonl`. If there
    are none, there is no such file.
    """

    format = "JSON Lines, version 1"

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False) -> None:
        """
        Choose the file. Nothing is opened yet.

        Args:
            path: The file.
            fresh: Start from the beginning, and discard an unfinished run. A complete file stays until the new one is
                complete. `False`: resume an unfinished run; if there is a complete file, raise `OutputRefusedError`.

        Raises:
            ModuleNotFoundError: The name ends with `.zst`, and the extra `zstd` is not installed.
        """
        super().__init__(path, fresh=fresh, read_rows=read_lines)

    def encode(self, page: CustomerPage) -> bytes:
        """Return the customers of a page, one on each line."""
        return encode_lines(page)


def encode_lines(page: CustomerPage) -> bytes:
    """Return the customers of a page as JSON Lines."""
    return b"".join([_to_json(customer) + b"\n" for customer in page.customers])
