"""Customers as CSV."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import IO, Any

from ..models import CustomerPage
from ._file_sink import FileSink
from .columns import COLUMNS, COLUMNS_VERSION, INTEGERS, LISTS, TIMES, flatten, time_texts

_END = "\r\n"
_FORMULA = re.compile("'*(?:[\\s\x00\u200b\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n\x00])")
"""
Matches a text that a spreadsheet may run as a formula, with or without apostrophes in front.

Texts with apostrophes get one more, so that a reader can always remove exactly one.
"""
_SUSPECT = re.compile("['=+\\-@\uff1d\uff0b\uff0d\uff20\\s\x00\u200b\ufeff]")
"""The first characters of such texts. Other texts seldom begin like this, so most columns skip the full check."""

_FIRST_CELL = re.compile(r'"((?:[^"]|"")*)"|([^,]*)')


class CSVFile(FileSink):
    """
    A CSV file with a row for each customer, for spreadsheets and for databases.

        await export(api, ["corp_123"], CSVFile("customers.csv"))

    The first row has the names of `COLUMNS`. They never depend on the data. The format is RFC 4180: commas, quotes only
    where needed, and CR LF at the end of each row. The encoding is UTF-8, without a byte order mark. Times are ISO 8601 in
    UTC, such as `2024-01-23T08:53:20Z`. The items of a list are joined with `;`. `extra` has the undocumented fields as a
    JSON object. `None` is an empty cell; an empty text is a pair of quotes. If the file name ends with `.gz` or `.zst`, the
    file is compressed. `.zst` needs the extra `zstd`.

    A spreadsheet runs a text that begins like a formula, and the texts may come from strangers. So these texts get an
    apostrophe in front (OWASP, "CSV Injection"; CWE-1236):

    - texts that begin with `=`, `+`, `-`, `@`, or the full-width form of one of them, also after white space;
    - texts that begin with a tab, a line break or a NUL;
    - such texts that already have apostrophes in front. To get the original text back, a program removes the first
      apostrophe of each of these texts.

    `escape_formulas=False` does not change any text. In a spreadsheet, choose the comma as the only separator. With another
    one, a cell may begin in the middle of a text.

    While the export runs, the customers are in `PATH.partial`, and `PATH.state` has the checkpoint. When the export is
    complete, the file gets its final name, and `PATH.state` is removed. Invalid rows go into `PATH.invalid.jsonl`. If there
    are none, there is no such file.
    """

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False, escape_formulas: bool = True) -> None:
        """
        Choose the file. Nothing is opened yet.

        Args:
            path: The file.
            fresh: Start from the beginning, and discard an unfinished run. A complete file stays until the new one is
                complete. `False`: resume an unfinished run; if there is a complete file, raise `OutputRefusedError`.
            escape_formulas: Put an apostrophe before texts that a spreadsheet would run. Use `False` if only programs read
                the file. An unfinished run resumes only with the same value.

        Raises:
            ModuleNotFoundError: The name ends with `.zst`, and the extra `zstd` is not installed.
        """
        self._escape_formulas = escape_formulas
        formulas = "escaped" if escape_formulas else "not escaped"
        self.format = f"CSV, version {COLUMNS_VERSION}, formulas {formulas}"
        encode_text = partial(_encode_texts, escape_formulas=escape_formulas)
        self._encoders = [_encoder_of(column, encode_text) for column in COLUMNS]
        header = (",".join(COLUMNS) + _END).encode()
        super().__init__(path, fresh=fresh, read_rows=self._read_rows, header=header)

    def encode(self, page: CustomerPage) -> bytes:
        """Return the customers of a page, one in each row."""
        if not page.customers:
            return b""

        columns = zip(*map(flatten, page.customers), strict=True)
        cells = [encode(values) for encode, values in zip(self._encoders, columns, strict=True)]
        return (_END.join(map(",".join, zip(*cells, strict=True))) + _END).encode()

    def _read_rows(self, file: IO[str]) -> Iterator[tuple[str | None, bytes]]:
        """Yield the corporation and the bytes of each row. The header has no corporation."""
        rows = _split_rows(file)
        yield None, next(rows).encode()
        for row in rows:
            yield self._corporation_of(row), row.encode()

    def _corporation_of(self, row: str) -> str:
        found = _FIRST_CELL.match(row)
        quoted, plain = found.groups() if found else (None, "")
        text = plain if quoted is None else quoted.replace('""', '"')
        return text[1:] if self._escape_formulas and _FORMULA.match(text) else text


_Values = Sequence[Any]
_Encoder = Callable[[_Values], list[str]]


def _encoder_of(column: str, encode_texts: _Encoder) -> _Encoder:
    """Return the encoder of a column. Pages are encoded by column, because most columns have nothing to quote."""
    if column in TIMES:
        return _encode_times
    if column in INTEGERS:
        return _encode_integers
    return partial(_encode_lists, encode_texts=encode_texts) if column in LISTS else encode_texts


def _encode_texts(values: Sequence[str | None], *, escape_formulas: bool) -> list[str]:
    if values.count(None) == len(values):
        return [""] * len(values)

    texts = list(filter(None, values))
    first_characters = "".join([text[:1] for text in texts])
    is_suspect = escape_formulas and _SUSPECT.search(first_characters)
    if not is_suspect and not _must_be_quoted("".join(texts)):
        return ["" if value is None else value or '""' for value in values]

    return [_encode_text(value, escape_formulas=escape_formulas) for value in values]


def _encode_text(value: str | None, *, escape_formulas: bool) -> str:
    if value is None:
        return ""
    if escape_formulas and _FORMULA.match(value):
        value = "'" + value
    return value if value and not _must_be_quoted(value) else '"' + value.replace('"', '""') + '"'


def _must_be_quoted(text: str) -> bool:
    return "," in text or '"' in text or "\n" in text or "\r" in text


def _encode_times(values: Sequence[datetime | None]) -> list[str]:
    return ["" if text is None else text for text in time_texts(values)]


def _encode_integers(values: Sequence[int | None]) -> list[str]:
    return ["" if value is None else str(value) for value in values]


def _encode_lists(values: Sequence[Sequence[str] | None], *, encode_texts: _Encoder) -> list[str]:
    return encode_texts([None if value is None else ";".join(value) for value in values])


def _split_rows(file: IO[str]) -> Iterator[str]:
    """Yield the rows. A line break inside quotes does not end a row."""
    lines: list[str] = []
    is_quoted = False
    for line in file:
        lines.append(line)
        is_quoted ^= line.count('"') % 2 == 1
        if not is_quoted:
            yield "".join(lines)
            lines.clear()
