"""What every job has: an emulator in a process of its own, a proxy before it, and customers to compare."""

import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import anyio

from commenda_customers import AsyncCustomersAPI, Customer
from commenda_customers.testing import Emulator

from .configs import Proxy
from .processes import HOST, Server, free_ports, serving

Held = Mapping[str, list[Customer]]
"""Customers by corporation, in their order."""

TOKEN = "benchmark-token"
CONCURRENCY = 16
"""Corporations at once."""

PAGE = 10
"""Customers of a page, which are few so that the processors have little to do."""


class Servers(NamedTuple):
    """A proxy, and the emulator behind it."""

    proxy: Server
    emulator: Server

    def base_url(self, scheme: str) -> str:
        """Return the address of the API behind the proxy."""
        return f"{scheme}://{HOST}:{self.proxy.port}/api/v1"


def held_by_emulator(corporations: int, pages: int) -> Held:
    """Return the customers that emulators have. They depend on the seed alone, so this one need not serve."""
    emulator = Emulator({f"corp_{number}": pages * PAGE for number in range(corporations)})
    return {name: [Customer.model_validate(each) for each in emulator.customers(name)] for name in emulator.corporations}


async def read_all(api: AsyncCustomersAPI, corporation_ids: Iterable[str], *, pause: float = 0.0, after: int = 0) -> Held:
    """Stream all customers. With a *pause*, do nothing for so many seconds *after* each so many customers."""
    came: dict[str, list[Customer]] = {corporation_id: [] for corporation_id in corporation_ids}
    number = 0
    async with api.stream(came, concurrency=CONCURRENCY, limit=PAGE) as stream:
        async for customer in stream:
            came[customer.corporation_id].append(customer)
            number += 1
            if pause and number % after == 0:
                await anyio.sleep(pause)
    return came


@asynccontextmanager
async def proxied_emulator(
    proxy: Proxy, held: Held, latency: float, *, options: Sequence[str] = (), certificate: str = ""
) -> AsyncIterator[Servers]:
    """Run an emulator and a proxy before it, in processes of their own."""
    behind, before = free_ports(2)
    command = [sys.executable, "-m", "commenda_customers", "emulate", "--port", str(behind), "--token", TOKEN]
    command += ["--latency", str(latency), *options]
    for corporation_id, customers in held.items():
        command += ["--corporation", f"{corporation_id}={len(customers)}"]
    with TemporaryDirectory(prefix="proxies-") as folder:
        config = anyio.Path(folder, "proxy.conf")
        text = proxy.config(folder=folder, emulator=behind, proxy=before, certificate=certificate)
        await config.write_text(text, encoding="utf-8")
        async with (
            serving(command, behind, folder) as emulator,
            serving(proxy.command(Path(config)), before, folder) as running,
        ):
            yield Servers(running, emulator)
