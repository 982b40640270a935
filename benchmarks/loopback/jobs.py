"""What every job has: an emulator in a process of its own, a proxy before it, and customers to read and to compare."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import anyio

from commenda_customers import AsyncCustomersAPI, Customer, CustomersError
from commenda_customers.testing import Emulator
from emulated import emulate

from .configs import Proxy
from .processes import HOST, Server, free_ports, serving

Held = Mapping[str, list[Customer]]
"""Customers by corporation, in their order."""

CONCURRENCY = 16
"""Corporations at once."""

PAGE = 10
"""Customers of a page, which are few so that the processors have little to do."""

PAUSE_AFTER = 100
"""Customers after which the program of some jobs does nothing for a moment."""


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


@dataclass
class Job:
    """
    What a client did behind a proxy.

    Attributes:
        sent: Requests.
        seconds: From the first request to the last customer.
        customers: What was read: "exact", or what is wrong.
    """

    sent: int = 0
    seconds: float = 0.0
    customers: str = "not done"

    async def read(self, api: AsyncCustomersAPI, held: Held, longest: float, *, pause: float = 0.0) -> None:
        """
        Stream all customers, in at most so many seconds, and compare them with those that the emulator has.

        With a *pause*, do nothing for so many seconds again and again.
        """
        came: dict[str, list[Customer]] = {corporation_id: [] for corporation_id in held}
        began = anyio.current_time()
        try:
            with anyio.move_on_after(longest):
                async with api.stream(came, concurrency=CONCURRENCY, limit=PAGE) as stream:
                    async for customer in stream:
                        came[customer.corporation_id].append(customer)
                        if pause and stream.progress.customers % PAUSE_AFTER == 0:
                            await anyio.sleep(pause)
                self.customers = "exact" if came == held else "NOT EXACT"
        except CustomersError as error:
            self.customers = f"FAILED with {error!r}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
            self.customers = f"AN ERROR THAT IS NOT OURS: {error!r}"
        finally:
            self.seconds = anyio.current_time() - began


def verdict(jobs: Mapping[str, Job]) -> str:
    """Return "exact", or which of the jobs were not, and why."""
    return ", ".join(f"{name}: {job.customers}" for name, job in jobs.items() if job.customers != "exact") or "exact"


@asynccontextmanager
async def proxied_emulator(
    proxy: Proxy, held: Held, latency: float, *, options: Sequence[str] = (), certificate: str = ""
) -> AsyncIterator[Servers]:
    """Run an emulator and a proxy before it, in processes of their own."""
    behind, before = free_ports(2)
    sizes = {corporation_id: len(customers) for corporation_id, customers in held.items()}
    command = [*emulate(sizes, port=behind, latency=latency), *options]
    with TemporaryDirectory(prefix="proxies-") as folder:
        config = anyio.Path(folder, "proxy.conf")
        text = proxy.config(folder=folder, emulator=behind, proxy=before, certificate=certificate)
        await config.write_text(text, encoding="utf-8")
        async with (
            serving(command, behind, folder) as emulator,
            serving(proxy.command(Path(config)), before, folder) as running,
        ):
            yield Servers(running, emulator)
