"""
What do streams bring? Throughput and memory of many corporations at once, over real HTTP on loopback.

Three measurements, each beside what a program without an SDK would do:

- the customers of many corporations, with 1 to 256 corporations in flight: `api.stream`, and an `asyncio.gather` over httpx
  that collects lists. Contenders alternate; each run has a process of its own, whose peak of memory counts;
- one corporation whose pages take the server as long as the program: the stream fetches a page ahead, a loop does not;
- a million customers: how much memory the stream takes between the first thousand and the last.

The server runs in a process of its own. On a machine with two cores it takes one, and is what limits the throughput.

    python benchmarks/stream.py [--rounds 3] [--quick]
"""

import argparse
import asyncio  # noqa: TID251 - one contender is asyncio's gather
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
from page import Envelope

from commenda_customers import AsyncCustomersAPI, Customer
from emulated import TOKEN, emulator

A_THOUSAND = 1000


async def by_stream(base_url: str, ids: list[str], concurrency: int) -> int:
    """Stream all customers."""
    count = 0
    async with AsyncCustomersAPI(TOKEN, base_url=base_url) as api, api.stream(ids, concurrency=concurrency) as stream:
        async for _customer in stream:
            count += 1
    return count


async def by_gather(base_url: str, ids: list[str], concurrency: int) -> int:
    """Collect a list of each corporation's customers, as programs do."""
    turn = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=100)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=60) as client:

        async def read(corporation_id: str) -> list[Customer]:
            async with turn:
                customers: list[Customer] = []
                params = {"corporation_id": corporation_id, "limit": "100"}
                while True:
                    response = await client.get(f"{base_url}/customers", params=params)
                    response.raise_for_status()
                    listing = Envelope.model_validate_json(response.content).data
                    customers += listing.customers
                    if not listing.cursor:
                        return customers
                    params["cursor"] = listing.cursor

        return sum(map(len, await asyncio.gather(*map(read, ids))))


async def ahead(base_url: str, ids: list[str], _concurrency: int) -> float:
    """Return how long 20 pages take with 50 ms of work on each."""
    async with AsyncCustomersAPI(TOKEN, base_url=base_url) as api:
        await api.list(ids[0], limit=1)  # connects
        began = time.perf_counter()
        async with api.stream(ids, limit=10) as stream:
            async for _page in stream.pages():
                await asyncio.sleep(0.05)
        return time.perf_counter() - began


async def in_a_loop(base_url: str, ids: list[str], _concurrency: int) -> float:
    """Return how long they take one after the other."""
    async with AsyncCustomersAPI(TOKEN, base_url=base_url) as api:
        await api.list(ids[0], limit=1)
        began = time.perf_counter()
        async for _page in api.list(ids[0], limit=10).pages():
            await asyncio.sleep(0.05)
        return time.perf_counter() - began


async def growth(base_url: str, ids: list[str], concurrency: int) -> float:
    """Return by how many MiB memory grows after the first thousand customers."""
    count, first = 0, 0.0
    async with AsyncCustomersAPI(TOKEN, base_url=base_url) as api, api.stream(ids, concurrency=concurrency) as stream:
        async for _customer in stream:
            count += 1
            if count == A_THOUSAND:
                first = resident()
            if count % 100_000 == 0:
                print(f"{count:,} customers, {resident() - first:.1f} MiB more than at first", file=sys.stderr)
    return peak() - first


def resident() -> float:
    """Return the MiB of memory that the process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def peak() -> float:
    """Return the MiB that it had at the most. `getrusage` would count those of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


CONTENDERS = {each.__name__: each for each in (by_stream, by_gather, ahead, in_a_loop, growth)}


def in_a_process(contender: str, base_url: str, ids: list[str], concurrency: int) -> dict[str, float]:
    """Run a contender in a process of its own; return its result, its seconds and its peak of memory in MiB."""
    work = json.dumps([contender, base_url, ids, concurrency])
    done = subprocess.run([sys.executable, __file__, "--work", work], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def work(contender: str, base_url: str, ids: list[str], concurrency: int) -> None:
    """Be that process."""
    before = peak()
    began = time.perf_counter()
    result = asyncio.run(CONTENDERS[contender](base_url, ids, concurrency))
    seconds = time.perf_counter() - began
    print(json.dumps({"result": result, "seconds": seconds, "memory": peak() - before}))


def race(corporations: int, customers: int, rounds: int) -> None:
    """Print throughput and memory for several numbers of corporations in flight."""
    print(f"{corporations} corporations of {customers} customers; the server takes 20 ms for a page; medians of {rounds}\n")
    print("| in flight | stream, customers/s | gather, customers/s | ratio | stream, MiB | gather, MiB |")
    print("| --------: | ------------------: | ------------------: | ----: | ----------: | ----------: |")
    with emulator(corporations, customers, 0.02) as (base_url, ids):
        for concurrency in (1, 16, 64, 256):
            some = ids[: max(16, 2 * concurrency)]  # one by one, all of them would take too long
            runs: dict[str, list[dict[str, float]]] = {"by_stream": [], "by_gather": []}
            for _ in range(rounds):
                for name, results in runs.items():
                    results.append(in_a_process(name, base_url, some, concurrency))
                    assert results[-1]["result"] == len(some) * customers
            speed = {
                name: len(some) * customers / statistics.median(run["seconds"] for run in results)
                for name, results in runs.items()
            }
            memory = {name: statistics.median(run["memory"] for run in results) for name, results in runs.items()}
            print(
                f"| {concurrency:9} | {speed['by_stream']:19,.0f} | {speed['by_gather']:19,.0f} |"
                f" {speed['by_stream'] / speed['by_gather']:5.2f} |"
                f" {memory['by_stream']:11.1f} | {memory['by_gather']:11.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, and a hundred thousand customers for a million")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(*json.loads(options.work))
        return

    race(256, 400, 1 if options.quick else options.rounds)
    with emulator(1, 200, 0.05) as (base_url, ids):
        times = {name: in_a_process(name, base_url, ids, 1)["result"] for name in ("ahead", "in_a_loop")}
    print(
        f"\n20 pages, 50 ms of the server and 50 ms of work for each:"
        f" {times['ahead']:.2f} s with the stream, {times['in_a_loop']:.2f} s in a loop"
    )
    customers = 500 if options.quick else 5000
    with emulator(200, customers) as (base_url, ids):
        more = in_a_process("growth", base_url, ids, 16)
    print(
        f"\n{200 * customers:,} customers of 200 corporations: {more['result']:.1f} MiB more at the peak than after the"
        f" first thousand, in {more['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
