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

    The fields have their documented names; undocumented fields are kept; the encoding is UTF-8. If the file name ends with
    `.gz` or `.zst`, the file is compressed. `.zst` needs the extra `zstd`.

    While the export runs, the customers are in `PATH.partial`, and `PATH.state` has the checkpoint. When all is complete,
    the file gets its name, and these two are gone. Rows that are not valid customers are in `PATH.invalid.jsonl`; if there
    are none, there is no such file.
    """

    format = "JSON Lines, version 1"

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False) -> None:
        """
        Choose the file. Nothing is opened yet.

        Args:
            path: The file.
            fresh: Start from the beginning, whatever is there. A complete file stays until the new one is complete. `False`:
                resume an unfinished run; if there is a complete file, raise `OutputRefusedError`.

        Raises:
            ModuleNotFoundError: The name ends with `.zst`, and the extra `zstd` is not installed.
        """
        super().__init__(path, fresh=fresh, read_rows=read_lines)

    def encode(self, page: CustomerPage) -> bytes:
        """Return the customers of a page, each as a line."""
        return encode_lines(page)


def encode_lines(page: CustomerPage) -> bytes:
    """Return the customers of a page as JSON Lines."""
    return b"".join([_to_json(customer) + b"\n" for customer in page.customers])
