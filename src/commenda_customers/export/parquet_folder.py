"""Customers as Parquet."""

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from importlib import import_module
from pathlib import Path
from typing import Any

from ..models import CustomerPage
from ._file_sink import ResumableSink
from ._files import real_path
from ._partial_folder import LOCK, STATE, PartialFolder
from .base import OutputError
from .columns import COLUMNS, COLUMNS_VERSION, INTEGERS, LISTS, TIMES, Row, flatten, within_int64

_REQUIRED = {"corporation_id", "id"}


class ParquetFolder(ResumableSink[PartialFolder]):
    """
    A folder of Parquet files with a row for each customer. It needs the extra `parquet`.

        await export(api, ["corp_123"], ParquetFolder("customers"))

    Libraries read it as one table: `pyarrow.dataset.dataset("customers")`, `polars.scan_parquet("customers/*.parquet")`,
    or `read_parquet('customers/*.parquet')` in DuckDB.

    The columns are `COLUMNS`. They never depend on the data. `created_at` is a timestamp in microseconds, in UTC. Numbers
    are 64-bit integers. `certificate_types` and `exempted_states` are lists of strings. All other columns are strings.
    `extra` has the undocumented fields as a JSON object, and integers of more than 64 bits. The schema metadata has the
    version of the columns as `commenda_customers.columns_version`. The compression is Zstandard.

    Each commit writes one file, `part-00000.parquet` and so on, with one row group. With the defaults of `export`, a file
    has at most 3,200 customers, in about 100 kB. A larger `commit_every` makes fewer and larger files. Until the commit, a
    customer needs about 3 kB of memory.

    While the export runs, the files are in `PATH/_partial`, and `PATH/_state.json` has the checkpoint. When the export is
    complete, it moves the files into the folder, writes `PATH/_SUCCESS`, and removes `_partial` and `_state.json`. Invalid
    rows go into `PATH.invalid.jsonl`, next to the folder. If there are none, there is no such file.
    """

    format = f"Parquet, version {COLUMNS_VERSION}"

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False) -> None:
        """
        Choose the folder. Nothing is opened yet.

        Args:
            path: The folder. It may exist if it has only files of an earlier export, or no files.
            fresh: Start from the beginning, and discard an unfinished run. A complete copy stays until the new one is
                complete. `False`: resume an unfinished run; if there is a complete copy, raise `OutputRefusedError`.

        Raises:
            ModuleNotFoundError: The extra `parquet` is not installed.
        """
        real = real_path(path)
        data = PartialFolder(real, _Parquet(real))
        super().__init__(path, real, fresh=fresh, data=data, state_path=real / STATE, lock_path=real / LOCK)

    def _add(self, page: CustomerPage) -> None:
        # Keep tuples, not models: the garbage collector would visit all the models again and again.
        self._data.add(map(flatten, page.customers))


class _Parquet:
    """The only code that calls pyarrow, whose types are incomplete. A part has one row group and fits into memory."""

    def __init__(self, path: Path) -> None:
        """Import pyarrow. Error messages name *path*."""
        try:
            arrow = import_module("pyarrow")
        except ModuleNotFoundError as exc:
            message = f"{path}: a folder of Parquet files needs the extra 'parquet': pip install '/path/to/clone[parquet]'"
            raise ModuleNotFoundError(message, name=exc.name) from None

        self._path = path
        self._arrow: Any = arrow
        self._compute: Any = import_module("pyarrow.compute")
        self._parquet: Any = import_module("pyarrow.parquet")
        fields = [arrow.field(name, self._type_of(name), nullable=name not in _REQUIRED) for name in COLUMNS]
        metadata = {"commenda_customers.columns_version": str(COLUMNS_VERSION)}
        self._schema: Any = arrow.schema(fields, metadata=metadata)

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a part with these rows."""
        try:
            return self._to_bytes(self._to_table(rows))
        except self._arrow.ArrowException as exc:
            raise OutputError(f"{self._path}: {_first_line(exc)}") from exc

    def encode_without(self, path: Path, corporation_ids: AbstractSet[str]) -> bytes | None:
        """Return the part at *path* without the rows of some corporations. `None`: it has no such rows."""
        arrow = self._arrow
        try:
            table = self._parquet.ParquetFile(arrow.BufferReader(path.read_bytes())).read()
            ids = arrow.array(sorted(corporation_ids), arrow.string())
            is_stale = self._compute.is_in(table.column("corporation_id"), ids)
            if not self._compute.any(is_stale).as_py():
                return None

            return self._to_bytes(table.filter(self._compute.invert(is_stale)))
        except arrow.ArrowException as exc:
            raise OutputError(f"{path}: {_first_line(exc)}") from exc

    def _type_of(self, column: str) -> Any:
        if column in TIMES:
            return self._arrow.timestamp("us", "UTC")
        if column in INTEGERS:
            return self._arrow.int64()
        return self._arrow.list_(self._arrow.string()) if column in LISTS else self._arrow.string()

    def _to_table(self, rows: Sequence[Row]) -> Any:
        try:
            return self._from_rows(rows)
        except OverflowError:
            return self._from_rows(list(map(within_int64, rows)))

    def _from_rows(self, rows: Sequence[Row]) -> Any:
        if not rows:
            return self._schema.empty_table()

        columns = zip(*rows, strict=True)
        arrays = [self._arrow.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        return self._arrow.Table.from_arrays(arrays, schema=self._schema)

    def _to_bytes(self, table: Any) -> bytes:
        sink = self._arrow.BufferOutputStream()
        # In a part of this size, few values repeat. A dictionary for each column would cost time and save no space.
        self._parquet.write_table(table, sink, compression="zstd", use_dictionary=["corporation_id"])
        data: bytes = sink.getvalue().to_pybytes()
        return data


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
