"""The proxies and their limits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

LATENCY = 0.15
"""Seconds of each response of the emulator."""

RATE, BURST, AT_ONCE = 50, 20, 8
"""The limits: requests per second, requests beyond them, requests at once."""

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
"""Connections are kept on both sides by default. Refused requests count, too: a request is counted before it is judged."""


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
