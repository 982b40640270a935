"""
What does a page cost? CPU time of the client for one page of 100 customers, over real HTTP on loopback.

Side by side, in one process and alternating: the plainest loop that a good engineer would write by hand (one
`httpx.AsyncClient`, pydantic on the body, the same models), and the SDK's `list`. The server runs in a process of its own,
so that only the client's time counts.

    python benchmarks/page.py [--rounds 30] [--pages 50]
"""

import argparse
import json
import statistics
import time
from collections.abc import Awaitable, Callable

import anyio
import httpx
from pydantic import BaseModel

from commenda_customers import AsyncCustomersAPI, Customer
from emulated import TOKEN, emulator

CORPORATION = "corp_0"


class Listing(BaseModel):
    customers: list[Customer]
    total_customers: int
    cursor: str | None = None


class Envelope(BaseModel):
    data: Listing


async def by_hand(client: httpx.AsyncClient, url: str, pages: int) -> int:
    """Read *pages* pages as a program without an SDK would."""
    count, cursor = 0, None
    for _ in range(pages):
        params = {"corporation_id": CORPORATION, "limit": "100", "extend": "shipping_address"}
        if cursor is not None:
            params["cursor"] = cursor
        response = await client.get(url, params=params)
        response.raise_for_status()
        listing = Envelope.model_validate_json(response.content).data
        for _customer in listing.customers:
            count += 1
        cursor = listing.cursor
    return count


async def by_sdk(api: AsyncCustomersAPI, pages: int) -> int:
    """Read *pages* pages with the SDK."""
    count = 0
    async for _customer in api.list(CORPORATION, extend=["shipping_address"]):
        count += 1
        if count == 100 * pages:
            break
    return count


async def cpu_per_page(read: Callable[[], Awaitable[int]], pages: int) -> float:
    """Return the microseconds of CPU time for one page."""
    began = time.process_time()
    count = await read()
    spent = time.process_time() - began
    assert count == 100 * pages, f"{count} customers came"
    return 1e6 * spent / pages


async def race(base_url: str, rounds: int, pages: int) -> dict[str, list[float]]:
    """Alternate the contenders; return the CPU time per page of each round."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    spent: dict[str, list[float]] = {"by hand": [], "SDK": []}
    async with (
        httpx.AsyncClient(headers=headers) as client,
        AsyncCustomersAPI(token=TOKEN, base_url=base_url) as api,
    ):
        contenders: dict[str, Callable[[], Awaitable[int]]] = {
            "by hand": lambda: by_hand(client, f"{base_url}/customers", pages),
            "SDK": lambda: by_sdk(api, pages),
        }
        for number in range(rounds + 1):
            for name, read in contenders.items():
                microseconds = await cpu_per_page(read, pages)
                if number:  # the first round warms up
                    spent[name].append(microseconds)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--pages", type=int, default=50, help="pages per round")
    options = parser.parse_args()
    with emulator(1, 100 * (options.pages + 1)) as (base_url, _):
        spent = anyio.run(race, base_url, options.rounds, options.pages)

    for name, values in spent.items():
        low, median, high = statistics.quantiles(values, n=4)
        print(f"{name:8} {median:6.0f} us of CPU per page (quartiles {low:.0f} to {high:.0f})")
    ratio = statistics.median(sdk / hand for sdk, hand in zip(spent["SDK"], spent["by hand"], strict=True))
    print(f"ratio    {ratio:6.2f} (median of the rounds)")
    print(json.dumps({"ratio": round(ratio, 3), "medians_us": {k: round(statistics.median(v)) for k, v in spent.items()}}))


if __name__ == "__main__":
    main()
