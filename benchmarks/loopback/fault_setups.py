"""What proxies do to requests, and what happens to proxies and to the server behind them."""

import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import anyio

from . import configs
from .jobs import Servers

Protocol = Literal["http/1.1", "h2"]
"""As TLS names it (ALPN)."""

RATE, BURST = 50, 20
"""Requests per second, and beyond that, for the rows with a limit. Without any limit it would be about 80."""

IDLE = 100
"""Milliseconds after which some proxies close a connection that is idle."""


@dataclass(frozen=True, eq=False)
class Setup:
    """
    A proxy, and what happens.

    Attributes:
        name: For the table.
        proxy: What is run; gets the protocol as *tls*.
        happens: What happens repeatedly while the job runs.
        every: Seconds between that.
        times: How often at most.
        emulator: More options of the emulator's command.
        pause: Seconds for which the program repeatedly does nothing, so that connections are idle.
        protocols: The protocols between client and proxy.
    """

    name: str
    proxy: Callable[..., configs.Proxy]
    happens: Callable[[Servers], Awaitable[None]] | None = None
    every: float = 1.0
    times: int = 1000
    emulator: Sequence[str] = ()
    pause: float = 0.0
    protocols: Sequence[Protocol] = ("http/1.1", "h2")


def nginx(what: str, location: str = "", *, server: str = "", http: str = "", keep: bool = True, **more: Any) -> Setup:
    return Setup(f"nginx: {what}", partial(configs.nginx, location, server=server, http=http, keep=keep), **more)


def haproxy(what: str, *frontend: str, defaults: tuple[str, ...] = (), **more: Any) -> Setup:
    return Setup(f"HAProxy: {what}", partial(configs.haproxy, *frontend, defaults=defaults), **more)


async def reload_nginx(servers: Servers) -> None:
    servers.proxy.send(signal.SIGHUP)  # what `nginx -s reload` sends


async def reload_haproxy(servers: Servers) -> None:
    servers.proxy.send(signal.SIGUSR2)


async def kill_worker(servers: Servers) -> None:
    servers.proxy.kill_worker()


async def restart_proxy(servers: Servers) -> None:
    await servers.proxy.end(signal.SIGKILL)
    await servers.proxy.start()


async def restart_emulator(servers: Servers) -> None:
    await servers.emulator.end(signal.SIGKILL)
    await anyio.sleep(0.5)
    await servers.emulator.start()


def limited_nginx(what: str, rules: str) -> Setup:
    zone = f"limit_req_zone $binary_remote_addr zone=rate:1m rate={RATE}r/s;"
    return nginx(f"{RATE}/s, {what}", f"limit_req zone=rate {rules};", http=zone)


GZIP = "gzip on; gzip_types application/json; gzip_min_length 0; gzip_proxied any;"
SORRY = """
    error_page 502 504 =200 /sorry;
    location = /sorry { default_type text/html; return 200 "<html><body>Back in a minute</body></html>"; }
"""
HANGS, CUTS = ("--fault", "hang=0.02"), ("--fault", "cut-body=0.02", "--fault", "drop=0.02")

SETUPS = (
    nginx("nothing"),
    limited_nginx("429", "; limit_req_status 429"),
    limited_nginx("503", ""),
    limited_nginx(f"burst {BURST}, 429", f"burst={BURST} nodelay; limit_req_status 429"),
    limited_nginx(f"burst {BURST}, 503", f"burst={BURST} nodelay"),
    nginx("3 requests for each connection", server="keepalive_requests 3;"),
    nginx("30 requests for each connection", server="keepalive_requests 30;"),
    nginx("reloaded each second", happens=reload_nginx),
    nginx("a worker killed each second", happens=kill_worker),
    nginx("killed and started again twice", happens=restart_proxy, every=1.5, times=2),
    nginx("server killed and started again twice", happens=restart_emulator, every=1.5, times=2),
    nginx("the same, with a page of HTML and status 200", server=SORRY, happens=restart_emulator, every=1.5, times=2),
    nginx("server cuts 2 % and drops 2 %", emulator=CUTS),
    nginx("the same, without buffers, with gzip", f"proxy_buffering off; {GZIP}", emulator=CUTS),
    nginx("HTTP/1.0 to the server, gzip", GZIP, keep=False),
    nginx("2 % of the responses hang, 504 after 0.5 s", "proxy_read_timeout 500ms;", emulator=HANGS),
    nginx("idle connections closed", server=f"keepalive_timeout {IDLE}ms; client_header_timeout 1s;", pause=IDLE / 1000),
    haproxy("nothing"),
    haproxy(f"{RATE} in 1 s, 429", *configs.most_requests(RATE, 1, "deny deny_status 429")),
    haproxy("reloaded each second", happens=reload_haproxy),
    haproxy("killed and started again twice", happens=restart_proxy, every=1.5, times=2),
    haproxy("server killed and started again twice", happens=restart_emulator, every=1.5, times=2),
    haproxy("server cuts 2 % and drops 2 %", emulator=CUTS),
    haproxy("2 % of the responses hang, 504 after 0.5 s", defaults=("timeout server 500ms",), emulator=HANGS),
    haproxy("a connection to the server for each request", defaults=("option http-server-close",)),
    haproxy("idle connections closed", defaults=(f"timeout http-keep-alive {IDLE}ms",), pause=IDLE / 1000),
    haproxy("clients that are idle for 0.1 s dropped", defaults=(f"timeout client {IDLE}ms",), pause=IDLE / 1000),
)
