"""The proxies and their limits."""

from dataclasses import dataclass

from . import configs

LATENCY = 0.15
"""Seconds of each response of the emulator."""

RATE, BURST, AT_ONCE = 50, 20, 8
"""The limits: requests per second, requests beyond them, requests at once."""

ZONES = f"""
    limit_req_zone $binary_remote_addr zone=rate:1m rate={RATE}r/s;
    limit_conn_zone $binary_remote_addr zone=connections:1m;
"""


@dataclass(frozen=True, eq=False)
class Setup:
    """
    A proxy with a limit.

    Attributes:
        name: For the table.
        proxy: What is run.
        rate: Requests per second that it allows.
        burst: Requests that it allows beyond that.
    """

    name: str
    proxy: configs.Proxy
    rate: float = RATE
    burst: int = 1


def nginx(limit: str, rules: str, rate: float = RATE, burst: int = 1) -> Setup:
    return Setup(f"nginx {limit}", configs.nginx(rules, http=ZONES), rate, burst)


def haproxy(limit: str, rule: str, window: int) -> Setup:
    most = RATE * window
    proxy = configs.haproxy(*configs.most_requests(RATE, window, rule))
    return Setup(f"HAProxy {most} in {window} s, {limit}", proxy, burst=most)


REQ, REQ_BURST = "limit_req zone=rate;", f"limit_req zone=rate burst={BURST} nodelay;"
CONN, CONN_RATE = f"limit_conn connections {AT_ONCE};", AT_ONCE / LATENCY
SETUPS = (
    nginx(f"{RATE}/s, 429", f"{REQ} limit_req_status 429;"),
    nginx(f"{RATE}/s, 503", REQ),
    nginx(f"{RATE}/s, burst {BURST}, 429", f"{REQ_BURST} limit_req_status 429;", burst=1 + BURST),
    nginx(f"{RATE}/s, burst {BURST}, 503", REQ_BURST, burst=1 + BURST),
    nginx(f"{AT_ONCE} at once, 429", f"{CONN} limit_conn_status 429;", rate=CONN_RATE, burst=0),
    nginx(f"{AT_ONCE} at once, 503", CONN, rate=CONN_RATE, burst=0),
    haproxy("429", "deny deny_status 429", 1),
    haproxy("closed", "reject", 1),
)
