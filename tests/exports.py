"""Outputs of every kind, and what is in them; exports in a process of their own, which can be killed at any line."""

import csv
import gzip
import io
import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import anyio

import commenda_customers.export
from commenda_customers import AsyncCustomersAPI, Customer, RetryPolicy
from commenda_customers.export import COLUMNS, CSVFile, JSONLinesFile, ParquetFolder, Sink, SQLiteDatabase, export
from commenda_customers.export.columns import LISTS, TIMES, flatten
from commenda_customers.testing import Emulator
from forks import FORKS

PACKAGE = str(Path(commenda_customers.export.__file__).parent)

Rows = Counter[tuple[Any, ...]]
"""Each customer as a row of `COLUMNS`, and how often it is there."""


def is_valid(row: Any) -> bool:
    """Return whether a row of the emulator is a valid customer; the rows of these tests have a wrong name if not."""
    return isinstance(row, dict) and isinstance(row.get("id"), str) and isinstance(row.get("name"), str | None)


def held(server: Emulator, *corporation_ids: str) -> Rows:
    """Return the valid customers that the server has."""
    rows = [row for name in corporation_ids for row in server.customers(name) if is_valid(row)]
    return Counter(flatten(Customer.model_validate(row)) for row in rows)


def invalid_held(server: Emulator, *corporation_ids: str) -> Counter[tuple[str, str]]:
    """Return the other rows that the server has."""
    return Counter(
        (name, json.dumps(row)) for name in corporation_ids for row in server.customers(name) if not is_valid(row)
    )


@dataclass(frozen=True)
class Kind:
    """A kind of output."""

    name: str
    make: Callable[..., Sink]
    read: Callable[[Path], Rows]

    def sink(self, folder: Path, **options: Any) -> Sink:
        return self.make(folder / self.name, **options)

    def rows(self, folder: Path) -> Rows:
        return self.read(folder / self.name)

    def invalid(self, folder: Path) -> Counter[tuple[str, str]]:
        path = folder / self.name
        if self.make is SQLiteDatabase:
            with closing(sqlite3.connect(path)) as db:
                return Counter(db.execute("select corporation_id, raw from invalid_customers").fetchall())
        beside = path.with_name(f"{path.name}.invalid.jsonl")
        lines = beside.read_text(encoding="utf-8").splitlines() if beside.exists() else []
        rows = map(json.loads, lines)
        return Counter((row["corporation_id"], json.dumps(row["raw"])) for row in rows)

    def left_behind(self, folder: Path) -> set[str]:
        """Return the files that should not be there when the export is complete."""
        inside = {path.name for path in (folder / self.name).glob("*")} if self.make is ParquetFolder else set[str]()
        parts = {name for name in inside if name.startswith("part-") and name.endswith(".parquet")}
        wanted = {self.name, f"{self.name}.invalid.jsonl"}
        return ({path.name for path in folder.iterdir()} - wanted) | (inside - parts - {"_SUCCESS"})


def plain(data: bytes) -> str:
    """Decompress by what the bytes begin with."""
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    elif data.startswith(b"\x28\xb5\x2f\xfd"):
        zstd = __import__("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", fromlist=["decompress"])
        data = zstd.decompress(data)
    return data.decode()


def read_json_lines(path: Path) -> Rows:
    return Counter(flatten(Customer.model_validate_json(line)) for line in plain(path.read_bytes()).split("\n")[:-1])


def _typed(name: str, text: str) -> Any:
    if not text:
        return None
    if name in LISTS:
        return tuple(text.split(";"))
    return (
        Customer.model_validate({"id": "", "corporation_id": "", "created_at": text}).created_at if name in TIMES else text
    )


def read_csv(path: Path) -> Rows:
    header, *rows = csv.reader(io.StringIO(plain(path.read_bytes()), newline=""))
    assert tuple(header) == COLUMNS
    return Counter(tuple(_typed(name, text) for name, text in zip(COLUMNS, row, strict=True)) for row in rows)


def read_parquet(path: Path) -> Rows:
    import pyarrow.dataset

    table = pyarrow.dataset.dataset(path, format="parquet").to_table()
    assert tuple(table.column_names) == COLUMNS
    return Counter(
        tuple(tuple(value) if isinstance(value, list) else value for value in row)
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True)
    )


def read_sqlite(path: Path) -> Rows:
    with closing(sqlite3.connect(path)) as db:
        return Counter(flatten(Customer.model_validate_json(raw)) for (raw,) in db.execute("select raw from customers"))


KINDS = [
    Kind("customers.jsonl", JSONLinesFile, read_json_lines),
    Kind("customers.jsonl.gz", JSONLinesFile, read_json_lines),
    Kind("customers.jsonl.zst", JSONLinesFile, read_json_lines),
    Kind("customers.csv", CSVFile, read_csv),
    Kind("customers.csv.gz", CSVFile, read_csv),
    Kind("customers", ParquetFolder, read_parquet),
    Kind("customers.db", SQLiteDatabase, read_sqlite),
]


@dataclass(frozen=True)
class Export:
    """
    An export in a process of its own, which can be killed.

    Attributes:
        kind: What it writes.
        folder: Where.
        address: The base URL and the token of the server.
        corporation_ids: What it reads.
        options: Those of `export`.
    """

    kind: Kind
    folder: Path
    address: tuple[str, str]
    corporation_ids: tuple[str, ...]
    options: Mapping[str, Any]

    def start(self, prepare: Callable[[], object] = int) -> "Running":
        """Start the process; it calls *prepare* first."""
        errors, sender = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=self._be, args=(prepare, sender))
        process.start()
        sender.close()
        return Running(process, errors)

    def finish(self, prepare: Callable[[], object] = int) -> tuple[int, str]:
        """Run the process to its end."""
        return self.start(prepare).wait()

    def _be(self, prepare: Callable[[], object], errors: Any) -> None:
        prepare()
        try:
            sys.exit(0 if anyio.run(self._export) else 3)
        except Exception as exc:  # noqa: BLE001 - one line of any error
            errors.send(f"{type(exc).__name__}: {exc}")
            sys.exit(1)

    async def _export(self) -> bool:
        url, token = self.address
        async with AsyncCustomersAPI(token, base_url=url, retry=RetryPolicy(initial_wait=0.01)) as api:
            return (await export(api, self.corporation_ids, self.kind.sink(self.folder), **self.options)).is_complete


@dataclass(frozen=True)
class Running:
    """The process of an export."""

    process: Any
    errors: Any

    @property
    def is_alive(self) -> bool:
        return bool(self.process.is_alive())

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> tuple[int, str]:
        """Return the exit code and the error. 0: complete, 3: not complete, 1: an error, below 0: killed."""
        self.process.join(120)
        with self.errors:
            error = self.errors.recv() if self.process.exitcode == 1 else ""
        return int(self.process.exitcode), error


def prepare_export(kind: Kind, folder: Path, server: Emulator, corporation_ids: Iterable[str], **options: Any) -> Export:
    """Return an export of small pages and commits."""
    options = {"limit": 20, "concurrency": 4, "commit_every": 5, **options}
    return Export(kind, folder, (server.base_url, server.token), tuple(corporation_ids), options)


def die_after(lines: int) -> None:
    """Let this process kill itself after so many lines of the export package, in whatever thread."""
    left = lines

    def trace_lines(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        left -= event == "line"
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace_lines

    def trace(frame: FrameType, _event: str, _arg: object) -> Any:
        return trace_lines if frame.f_code.co_filename.startswith(PACKAGE) else None

    threading.settrace(trace)
    sys.settrace(trace)


def make_lists(draw: random.Random) -> dict[str, list[Any]]:
    """Return corporations of no, one and several pages; some rows are not valid, some have no id."""
    lists: dict[str, list[Any]] = {}
    for index, size in enumerate([0, 1, 99, 100, 101, 430, 250, 30, 0, 1, 700, 12]):
        name = f"corp_{index}"
        rows: list[Any] = [
            {
                "id": f"{name}_{number}",
                "corporation_id": name,
                "name": f'Müller & "Co", {number}',
                "created_at": 1700000000 + number,
            }
            for number in range(size)
        ]
        if size > 20:
            rows.insert(draw.randrange(len(rows)), {"id": f"{name}_bad", "corporation_id": name, "name": 5})
            rows.insert(draw.randrange(len(rows)), None)
        lists[name] = rows
    return lists
