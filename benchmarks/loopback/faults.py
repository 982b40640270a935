"""
Does the client lose or repeat a customer behind a real proxy while things go wrong?

Each job reads 240 pages, through a proxy and an emulator of its own, over HTTP/1.1 and over HTTP/2, both with TLS. Several
jobs run at the same time. A cell of the table has:

- the seconds from the first request to the last customer;
- the requests that the client sent;
- those that failed for another reason than a limit;
- the waits that followed: a request that fails because a kept connection was closed is sent again immediately;
- the requests that were refused because of a limit.

The row is "exact" if every customer came once, complete and in the order of the emulator.
"""

import gc
import logging
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import httpx
import trustme
from simulation.markdown import table

from commenda_customers import AsyncCustomersAPI, CustomersError
from commenda_customers.events import Event, RequestFailed, RequestSent, RetryScheduled, Throttled

from .fault_setups import SETUPS, Protocol, Setup
from .jobs import CONCURRENCY, TOKEN, Held, Servers, held_by_emulator, proxied_emulator, read_all
from .processes import HOST

PAGES = 15
"""Pages of each corporation; there are as many corporations as the stream reads at once."""

LATENCY = 0.2
"""Seconds of each response of the emulator."""

PAUSE_AFTER = 100
"""Customers after which the program of some jobs does nothing for a moment."""

LONGEST = 60.0
"""Seconds for a job."""

SIDE_BY_SIDE = 4
"""Jobs at the same time: most of the time is waiting."""

PROTOCOLS: Mapping[Protocol, str] = {"http/1.1": "HTTP/1.1", "h2": "HTTP/2"}


@dataclass
class Job:
    """
    What the client did in a setup. It is also a hook of the client.

    Attributes:
        setup: The setup.
        protocol: The protocol between client and proxy.
        sent: Requests.
        failed: Requests that failed for another reason than a limit, by that reason.
        waits: Waits after them.
        refused: Requests that were refused because of a limit.
        happened: How often it happened.
        seconds: From the first request to the last customer.
        customers: What was read: "exact", or what is wrong.
    """

    setup: Setup
    protocol: Protocol
    sent: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    waits: int = 0
    refused: int = 0
    happened: int = 0
    seconds: float = 0.0
    customers: str = "not done"

    def __call__(self, event: Event) -> None:
        match event:
            case RequestSent():
                self.sent += 1
            case Throttled():
                self.refused += 1
            case RequestFailed(error=error):
                self.failed[f"{type(error).__name__}: {error.message}"] += 1
            case RetryScheduled(wait=wait):
                self.waits += wait > 0
            case _:
                pass

    def __str__(self) -> str:
        failed = self.failed.total() - self.refused
        return f"{self.seconds:.1f} s / {self.sent} / {failed} / {max(0, self.waits - self.refused)} / {self.refused}"

    async def run(self, held: Held, certificates: "Certificates") -> None:
        """Read all customers while it happens, and compare them with those that the emulator has."""
        proxy, more = self.setup.proxy(self.protocol), self.setup.emulator
        async with proxied_emulator(proxy, held, LATENCY, options=more, certificate=certificates.server) as servers:
            url = servers.base_url("https")
            async with certificates.client(self.protocol) as http_client, anyio.create_task_group() as meanwhile:
                meanwhile.start_soon(self._let_happen, servers)
                async with AsyncCustomersAPI(TOKEN, base_url=url, http_client=http_client, hooks=[self]) as api:
                    await self._read(api, held)
                meanwhile.cancel_scope.cancel()

    async def _read(self, api: AsyncCustomersAPI, held: Held) -> None:
        began = anyio.current_time()
        try:
            with anyio.move_on_after(LONGEST):
                came = await read_all(api, held, pause=self.setup.pause, after=PAUSE_AFTER)
                is_proof = self.setup.happens is None or self.happened
                self.customers = "NOT EXACT" if came != held else "exact" if is_proof else "IT DID NOT HAPPEN"
        except CustomersError as error:
            self.customers = f"FAILED with {error!r}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
            self.customers = f"AN ERROR THAT IS NOT OURS: {error!r}"
        finally:
            self.seconds = anyio.current_time() - began

    async def _let_happen(self, servers: Servers) -> None:
        if self.setup.happens is None:
            return

        for _ in range(self.setup.times):
            await anyio.sleep(self.setup.every)
            await self.setup.happens(servers)
            self.happened += 1


class Certificates:
    """An authority of our own, and a certificate of it for loopback, as files in a folder."""

    def __init__(self, folder: str) -> None:
        authority = trustme.CA()
        self.server = str(Path(folder, "server.pem"))
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(self.server)
        self._context = ssl.create_default_context()
        authority.configure_trust(self._context)

    @asynccontextmanager
    async def client(self, protocol: Protocol) -> AsyncIterator[httpx.AsyncClient]:
        """Open an HTTP client that trusts the authority."""
        async with httpx.AsyncClient(http2=protocol == "h2", http1=protocol != "h2", verify=self._context) as client:
            yield client


async def compare(setups: Sequence[Setup], *, details: bool) -> tuple[str, bool]:
    """Run all jobs; return a table, and whether all were exact. Say what was left open."""
    held = held_by_emulator(CONCURRENCY, PAGES)
    jobs = [{protocol: Job(setup, protocol) for protocol in setup.protocols} for setup in setups]
    places = anyio.CapacityLimiter(SIDE_BY_SIDE)

    async def run(job: Job, certificates: Certificates) -> None:
        async with places:
            print(f"{job.setup.name}, {PROTOCOLS[job.protocol]}", file=sys.stderr)
            try:
                await job.run(held, certificates)
            except* RuntimeError as group:
                job.customers = f"DID NOT RUN: {group.exceptions}"
            if details:
                print(f"{job.setup.name}, {job.protocol}: {job.customers}: {job}: {dict(job.failed)}", file=sys.stderr)

    with TemporaryDirectory(prefix="proxies-") as folder, left_open() as troubles:
        certificates = Certificates(folder)
        async with anyio.create_task_group() as group:
            for pair in jobs:
                for job in pair.values():
                    group.start_soon(run, job, certificates)
        gc.collect()
    for trouble in troubles:
        print(f"left open: {trouble}", file=sys.stderr)

    is_exact = all(job.customers == "exact" for pair in jobs for job in pair.values())
    return table([["proxy, and what happens", *PROTOCOLS.values(), "customers"], *map(_row, jobs)]), is_exact


@contextmanager
def left_open() -> Iterator[list[str]]:
    """Collect what is reported of tasks, generators and sockets that nobody has waited for or closed."""
    troubles: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: troubles.append(record.getMessage())
    before, sys.unraisablehook = sys.unraisablehook, lambda hook: troubles.append(repr(hook.exc_value))
    logging.getLogger("asyncio").addHandler(handler)
    try:
        yield troubles
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
        sys.unraisablehook = before


def setups_with(text: str) -> list[Setup]:
    """Return the setups with a text in their name."""
    return [setup for setup in SETUPS if text in setup.name]


def _row(pair: Mapping[Protocol, Job]) -> list[str]:
    setup = next(iter(pair.values())).setup
    wrong = [f"{PROTOCOLS[protocol]}: {job.customers}" for protocol, job in pair.items() if job.customers != "exact"]
    return [setup.name, *(str(pair.get(protocol, "-")) for protocol in PROTOCOLS), ", ".join(wrong) or "exact"]
