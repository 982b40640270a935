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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import httpx
import trustme
from simulation.markdown import table

from commenda_customers import AsyncCustomersAPI
from commenda_customers.events import Event, RequestFailed, RequestSent, RetryScheduled, Throttled
from emulated import TOKEN

from .fault_setups import Protocol, Setup
from .jobs import CONCURRENCY, Held, Job, Servers, held_by_emulator, proxied_emulator, verdict
from .processes import HOST

PAGES = 15
"""Pages of each corporation; there are as many corporations as the stream reads at once."""

LATENCY = 0.2
"""Seconds of each response of the emulator."""

LONGEST = 60.0
"""Seconds for a job."""

SIDE_BY_SIDE = 4
"""Jobs at the same time: most of the time is waiting."""

PROTOCOLS: Mapping[Protocol, str] = {"http/1.1": "HTTP/1.1", "h2": "HTTP/2"}


@dataclass
class FaultJob(Job):
    """
    What the client did in a setup. It is also a hook of the client.

    Attributes:
        setup: The setup.
        protocol: The protocol between client and proxy.
        failed: Requests that failed, by the reason.
        waits: Waits after them.
        refused: Requests that were refused because of a limit.
        happened: How often it happened.
    """

    setup: Setup = field(kw_only=True)
    protocol: Protocol = field(kw_only=True)
    failed: Counter[str] = field(default_factory=Counter[str])
    waits: int = 0
    refused: int = 0
    happened: int = 0

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
        """Read all customers while it happens."""
        proxy, more = self.setup.proxy(tls=self.protocol), self.setup.emulator
        async with proxied_emulator(proxy, held, LATENCY, options=more, certificate=certificates.server) as servers:
            url = servers.base_url("https")
            async with certificates.client(self.protocol) as http_client, anyio.create_task_group() as meanwhile:
                meanwhile.start_soon(self._let_happen, servers)
                async with AsyncCustomersAPI(TOKEN, base_url=url, http_client=http_client, hooks=[self]) as api:
                    await self.read(api, held, LONGEST, pause=self.setup.pause)
                meanwhile.cancel_scope.cancel()
        if self.customers == "exact" and self.setup.happens is not None and not self.happened:
            self.customers = "IT DID NOT HAPPEN"

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

    def client(self, protocol: Protocol) -> httpx.AsyncClient:
        """Return an HTTP client that trusts the authority."""
        return httpx.AsyncClient(http2=protocol == "h2", http1=protocol != "h2", verify=self._context)


async def compare(setups: Sequence[Setup], *, details: bool) -> tuple[str, bool]:
    """Run all jobs; return a table, and whether all were exact. Say what was left open."""
    held = held_by_emulator(CONCURRENCY, PAGES)
    jobs = [{protocol: FaultJob(setup=setup, protocol=protocol) for protocol in setup.protocols} for setup in setups]
    places = anyio.CapacityLimiter(SIDE_BY_SIDE)

    async def run(job: FaultJob, certificates: Certificates) -> None:
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
    rows = [_row(setup, pair) for setup, pair in zip(setups, jobs, strict=True)]
    return table([["proxy, and what happens", *PROTOCOLS.values(), "customers"], *rows]), is_exact


def _row(setup: Setup, pair: Mapping[Protocol, FaultJob]) -> list[str]:
    cells = [str(pair.get(protocol, "-")) for protocol in PROTOCOLS]
    return [setup.name, *cells, verdict({PROTOCOLS[protocol]: job for protocol, job in pair.items()})]


@contextmanager
def left_open() -> Iterator[list[str]]:
    """Collect reports about tasks, generators and sockets that were not awaited or closed."""
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
