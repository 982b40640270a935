"""
How does the client do behind the limits of real proxies? The emulated API behind nginx and HAProxy, all on loopback.

Two contenders read the same customers, each through a proxy and an emulator of its own: the client as it is, and the client
without a limiter, whose requests back off one by one, as often as necessary. Each combination of a limit and a contender gets:

- its share: the requests that the proxy let pass, divided by those that the limit allows in the same time. A rate allows its
  burst and then so many per second. N requests at once allow N in each latency of the emulator.
- refused: the part of all requests that got no page. It is counted at the client, so it includes refusals of any form.
- seconds: from the first request to the last customer.
- customers: "exact" if every customer came once, complete, and in the order of the emulator.

A job has 512 pages: a little more than ten seconds at 50 requests per second. In a shorter one, learning the limit would take
up most of the time, and the share would mean little.

The exit code is 0 if the client with its limiter read everything exactly, 1 if not, and 2 if a program is missing.

    python benchmarks/proxies.py [--only nginx]
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from simulation.markdown import percent, table

from commenda_customers import AsyncCustomersAPI, Customer, CustomersError, RetryPolicy
from commenda_customers.events import Event, PageFetched, RequestSent
from commenda_customers.testing import Emulator

HOST, TOKEN = "127.0.0.1", "benchmark-token"
CORPORATIONS = {f"corp_{number}": 160 for number in range(32)}
PAGE, CONCURRENCY, LATENCY = 10, 16, 0.1
"""Customers of a page, which is small so that the processors are idle; corporations at once; seconds of a response."""

RATE, BURST, AT_ONCE = 50, 20, 8

LONGEST_JOB, LONGEST_RUN, START, STOP = 40.0, 170.0, 10.0, 3.0
"""Seconds for a job, for all of them, and for a process to start and to stop."""

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    limit_req_zone $binary_remote_addr zone=rate:1m rate={rate}r/s;
    limit_conn_zone $binary_remote_addr zone=connections:1m;
    upstream emulator {{
        server 127.0.0.1:{emulator};
        keepalive 32;
        keepalive_timeout 3s;
    }}
    server {{
        listen 127.0.0.1:{proxy};
        location / {{
            {rule}
            proxy_pass http://emulator;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""
"""One process, so that none remains when it ends. It closes idle connections before the emulator does, after 5 s."""

HAPROXY = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend proxy
    bind 127.0.0.1:{proxy}
    stick-table type ip size 1k expire 1m store http_req_rate({window}s)
    http-request track-sc0 src
    http-request {rule} if {{ sc_http_req_rate(0) gt {most} }}
    default_backend emulator
backend emulator
    http-reuse always
    server emulator 127.0.0.1:{emulator} pool-purge-delay 2s
"""
"""Connections are kept on both sides by default. Refused requests count, too: that is how its manual limits a rate."""


@dataclass(frozen=True)
class Setup:
    """
    A proxy with a limit.

    Attributes:
        name: For the table.
        program: What is run.
        config: Its configuration, without the ports and the folder.
        rate: Requests per second that it allows.
        burst: Requests that it allows beyond that.
    """

    name: str
    program: str
    config: Callable[..., str]
    rate: float = RATE
    burst: int = 1

    def command(self, config: Path) -> list[str]:
        """Return the command that runs it in the foreground."""
        if self.program == "nginx":
            return ["nginx", "-e", str(config.with_name("start.log")), "-c", str(config)]
        return ["haproxy", "-db", "-f", str(config)]


def nginx(limit: str, *rules: str, rate: float = RATE, burst: int = 1) -> Setup:
    rule = " ".join(f"{each};" for each in rules)
    return Setup(f"nginx {limit}", "nginx", partial(NGINX.format, rule=rule, rate=RATE), rate, burst)


def haproxy(limit: str, rule: str, window: int) -> Setup:
    most = RATE * window
    name = f"HAProxy {most} in {window} s, {limit}"
    return Setup(name, "haproxy", partial(HAPROXY.format, rule=rule, window=window, most=most), burst=most)


REQ, REQ_BURST = "limit_req zone=rate", f"limit_req zone=rate burst={BURST} nodelay"
CONN, CONN_RATE = f"limit_conn connections {AT_ONCE}", AT_ONCE / LATENCY
SETUPS = (
    nginx(f"{RATE}/s, 429", REQ, "limit_req_status 429"),
    nginx(f"{RATE}/s, 503", REQ),
    nginx(f"{RATE}/s, burst {BURST}, 429", REQ_BURST, "limit_req_status 429", burst=1 + BURST),
    nginx(f"{RATE}/s, burst {BURST}, 503", REQ_BURST, burst=1 + BURST),
    nginx(f"{AT_ONCE} at once, 429", CONN, "limit_conn_status 429", rate=CONN_RATE, burst=0),
    nginx(f"{AT_ONCE} at once, 503", CONN, rate=CONN_RATE, burst=0),
    haproxy("429", "deny deny_status 429", 1),
    haproxy("closed", "reject", 1),
)

OURS = "AdaptiveLimiter"
CONTENDERS: Mapping[str, Callable[..., AsyncCustomersAPI]] = {
    OURS: AsyncCustomersAPI,
    "no limiter": partial(
        AsyncCustomersAPI, rate_limit=None, retry=RetryPolicy(max_attempts=None, deadline=None, max_wait=8.0)
    ),
}


@dataclass
class Job:
    """What a contender read through a proxy. It is also a hook of the client."""

    setup: Setup
    customers: dict[str, list[Customer]] = field(default_factory=lambda: defaultdict(list))
    sent: int = 0
    passed: int = 0
    seconds: float = 0.0
    trouble: str = "not done"

    def __call__(self, event: Event) -> None:
        self.sent += isinstance(event, RequestSent)
        self.passed += isinstance(event, PageFetched)

    @property
    def cell(self) -> str:
        """Return the figures for the table."""
        allowed = self.setup.burst + self.setup.rate * self.seconds
        refused = 1 - self.passed / max(1, self.sent)
        return f"{percent(self.passed / allowed)} / {percent(refused)} / {self.seconds:.1f} s / {self.trouble or 'exact'}"

    async def run(self, contender: Callable[..., AsyncCustomersAPI], held: Mapping[str, list[Customer]]) -> None:
        """Read all customers, and compare them with those that the emulator has."""
        async with proxied_emulator(self.setup) as base_url, contender(TOKEN, base_url=base_url, hooks=[self]) as api:
            began = anyio.current_time()
            with anyio.move_on_after(LONGEST_JOB):
                self.trouble = await self.read(api, held)
            self.seconds = anyio.current_time() - began

    async def read(self, api: AsyncCustomersAPI, held: Mapping[str, list[Customer]]) -> str:
        """Return what went wrong, if anything."""
        try:
            async with api.stream(CORPORATIONS, concurrency=CONCURRENCY, limit=PAGE) as stream:
                async for customer in stream:
                    self.customers[customer.corporation_id].append(customer)
        except CustomersError as error:
            return f"failed with {error!r}"
        return "" if self.customers == held else "not exact"


@asynccontextmanager
async def proxied_emulator(setup: Setup) -> AsyncIterator[str]:
    """Run an emulator and a proxy before it, in processes of their own; yield the address of the proxy."""
    emulator, proxy = free_ports(2)
    command = [sys.executable, "-m", "commenda_customers", "emulate", "--port", str(emulator), "--token", TOKEN]
    command += ["--latency", str(LATENCY)]
    for corporation_id, size in CORPORATIONS.items():
        command += ["--corporation", f"{corporation_id}={size}"]
    with TemporaryDirectory() as folder:
        config = Path(folder, "proxy.conf")
        config.write_text(setup.config(folder=folder, emulator=emulator, proxy=proxy), encoding="utf-8")
        async with serving(command, emulator, folder), serving(setup.command(config), proxy, folder):
            yield f"http://{HOST}:{proxy}/api/v1"


def free_ports(number: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@asynccontextmanager
async def serving(command: Sequence[str], port: int, folder: str) -> AsyncIterator[None]:
    """Run a server until the end of the block, whatever ends it."""
    log = Path(folder, f"{port}.log")
    with log.open("wb") as output:
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        with anyio.move_on_after(START):
            while process.returncode is None and not is_open(port):
                await anyio.sleep(0.05)
        if process.returncode is not None or not is_open(port):
            raise RuntimeError(f"{command[0]} does not serve:\n{log.read_text(errors='replace')}")
        yield
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):  # it has ended
                process.terminate()
            with anyio.move_on_after(STOP):
                await process.wait()
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


def is_open(port: int) -> bool:
    """Return whether a process listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


async def run_all(jobs: Mapping[Setup, Mapping[str, Job]]) -> None:
    """Run all jobs, the contenders side by side."""
    emulator = Emulator(CORPORATIONS)  # serves nothing: its customers depend on the seed alone
    held = {name: [Customer.model_validate(each) for each in emulator.customers(name)] for name in CORPORATIONS}
    with anyio.move_on_after(LONGEST_RUN):
        for number, (setup, contest) in enumerate(jobs.items(), 1):
            print(f"{number} of {len(jobs)}: {setup.name}", file=sys.stderr)
            async with anyio.create_task_group() as both:
                for name, job in contest.items():
                    both.start_soon(job.run, CONTENDERS[name], held)


def find_programs(names: Iterable[str], also: str) -> bool:
    """Extend PATH by a folder, as Debian's users do not have `/usr/sbin` in it; say which programs are still missing."""
    os.environ["PATH"] = os.pathsep.join(filter(None, (os.environ.get("PATH"), also)))
    missing = sorted(name for name in set(names) if shutil.which(name) is None)
    if missing:
        what = " ".join(missing)
        print(f"not installed: {what}. On Debian and Ubuntu: apt-get install {what}", file=sys.stderr)
    return not missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only limits with this text in their name")
    parser.add_argument("--also", default="/usr/sbin", help="a folder with programs, beside PATH (default: /usr/sbin)")
    options = parser.parse_args()
    jobs = {setup: {name: Job(setup) for name in CONTENDERS} for setup in SETUPS if options.only in setup.name}
    if not find_programs((setup.program for setup in jobs), options.also):
        return 2

    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # ends all processes, as Ctrl-C does
    try:
        anyio.run(run_all, jobs)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130

    print(
        table(
            [
                ["proxy and limit", *CONTENDERS],
                *([setup.name, *(each.cell for each in contest.values())] for setup, contest in jobs.items()),
            ]
        )
    )
    wrong = [f"{setup.name}: {contest[OURS].trouble}" for setup, contest in jobs.items() if contest[OURS].trouble]
    print(*wrong, sep="\n", end="", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
