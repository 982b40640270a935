"""
What does an export cost? CPU time for one page of 100 customers, over real HTTP on loopback.

Side by side, in one process and alternating: the bare stream, which throws the pages away, and an export into each kind of
output, with a commit each 32 pages. Then the memory that an export of a million customers takes after the first thousand,
each in a process of its own. The server runs in a process of its own, so that only the client's time counts.

    python benchmarks/export.py [--rounds 15] [--extend shipping_address,exemption_metadata] [--quick]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
from suite.memory import A_THOUSAND, peak, resident

from commenda_customers import AsyncCustomersAPI, StreamProgress
from commenda_customers.export import CSVFile, JSONLinesFile, ParquetFolder, Sink, SQLiteDatabase, export
from emulated import TOKEN, emulator

OUTPUTS: dict[str, tuple[str, Callable[[Path], Sink]]] = {
    "JSON Lines": ("customers.jsonl", JSONLinesFile),
    "JSON Lines, gzip": ("customers.jsonl.gz", JSONLinesFile),
    "JSON Lines, Zstandard": ("customers.jsonl.zst", JSONLinesFile),
    "CSV": ("customers.csv", CSVFile),
    "Parquet": ("customers", ParquetFolder),
    "SQLite": ("customers.db", SQLiteDatabase),
    "SQLite, second sync": ("customers.db", SQLiteDatabase),
}
CORPORATIONS = 8
PAGES = 50
"""Pages of each corporation."""


async def stream_only(api: AsyncCustomersAPI, ids: list[str], extend: list[str] | None) -> int:
    """Read all pages, and do nothing with them."""
    pages = 0
    async with api.stream(ids, extend=extend) as stream:
        async for _page in stream.pages():
            pages += 1
    return pages


async def into(api: AsyncCustomersAPI, ids: list[str], extend: list[str] | None, sink: Sink) -> int:
    """Export all pages."""
    return (await export(api, ids, sink, extend=extend)).pages


async def cpu_per_page(read: Callable[[], Awaitable[int]]) -> float:
    """Return the microseconds of CPU time for one page, in all threads."""
    began = time.process_time()
    pages = await read()
    spent = time.process_time() - began
    assert pages == CORPORATIONS * PAGES, f"{pages} pages came"
    return 1e6 * spent / pages


async def race(base_url: str, ids: list[str], extend: list[str] | None, rounds: int) -> dict[str, list[float]]:
    """Alternate the contenders; return the CPU time per page of each round."""
    spent: dict[str, list[float]] = {name: [] for name in ("bare stream", *OUTPUTS)}
    async with AsyncCustomersAPI(TOKEN, base_url=base_url) as api:
        for number in range(rounds + 1):
            with tempfile.TemporaryDirectory() as folder:
                contenders: dict[str, Callable[[], Awaitable[int]]] = {"bare stream": partial(stream_only, api, ids, extend)}
                for name, (file_name, make) in OUTPUTS.items():
                    contenders[name] = partial(into, api, ids, extend, make(Path(folder, file_name)))
                for name, read in contenders.items():
                    microseconds = await cpu_per_page(read)
                    if number:  # the first round warms up
                        spent[name].append(microseconds)
    return spent


async def growth(base_url: str, ids: list[str], output: str) -> float:
    """Return by how many MiB memory grows after the first thousand customers."""
    first = 0.0

    def note(progress: StreamProgress) -> None:
        nonlocal first
        if not first and progress.customers >= A_THOUSAND:
            first = resident()

    file_name, make = OUTPUTS[output]
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncCustomersAPI(TOKEN, base_url=base_url) as api:
            await export(api, ids, make(Path(folder, file_name)), on_progress=note)
    return peak() - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--extend", help="parts to add to each customer, separated by commas")
    parser.add_argument("--quick", action="store_true", help="one round, and fifty thousand customers for a million")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        print(anyio.run(growth, *json.loads(options.work)))
        return

    with emulator(CORPORATIONS, 100 * PAGES) as (base_url, ids):
        extend = options.extend.split(",") if options.extend else None
        spent = anyio.run(race, base_url, ids, extend, 1 if options.quick else options.rounds)
    bare = spent["bare stream"]
    print("| output                |  us of CPU per page | ratio to the bare stream |")
    print("| :-------------------- | ------------------: | -----------------------: |")
    for name, values in spent.items():
        ratio = statistics.median(value / base for value, base in zip(values, bare, strict=True))
        print(f"| {name:21} | {statistics.median(values):19,.0f} | {ratio:24.2f} |")

    customers = 250 if options.quick else 5000
    print(f"\n| output                | MiB more after {200 * customers:,} customers than after 1,000 |")
    print("| :-------------------- | --------------------------------------------------: |")
    with emulator(200, customers) as (base_url, ids):
        for name in ("JSON Lines", "CSV", "Parquet", "SQLite"):
            command = [sys.executable, __file__, "--work", json.dumps([base_url, ids, name])]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            print(f"| {name:21} | {float(done.stdout):51.1f} |", flush=True)


if __name__ == "__main__":
    main()
