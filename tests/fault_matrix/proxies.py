"""Faults of a proxy between the client and an API with TLS."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import httpx

from behaviours import hangs, sends
from fault_matrix.connection import SHORT, breaks
from fault_matrix.runs import SECOND, Fault, Site
from fault_matrix.tls import certified, trusting
from raw_server import TOKEN, Connection, ok

HOST = "api.example"
ANSWER = ok(SECOND)


def _open_client(url: str) -> AbstractAsyncContextManager[Any]:
    return httpx.AsyncClient(proxy=url, verify=trusting())


def _serve(site: Site, connection: Connection) -> None:
    """Be the proxy, and the API behind it."""
    head = connection.read_request()
    assert TOKEN.encode() not in head, "the proxy was shown the token"
    if site.fault.at == "connection" and site.strikes():
        connection.unread(head)
        site.fault.strike(connection)
        return
    connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    connection.start_tls(certified(HOST))
    site.serve_requests(connection)


through_proxy = partial(Fault, serve=_serve, base_url=lambda _: f"https://{HOST}", client=_open_client)
"""A fault of a proxy, or behind it."""


def refuses(status: str) -> Fault:
    """Return the fault of a proxy that answers CONNECT with this status."""
    return through_proxy(at="connection", strike=sends(f"HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nno!".encode()))


def _presents_its_own(connection: Connection) -> None:
    connection.read_request()
    connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    connection.start_tls(certified(HOST, is_trusted=False))


def _is_cut_in_tls(connection: Connection) -> None:
    connection.read_request()
    connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    connection.receive()


FAULTS: dict[str, Fault] = {
    "the proxy asks for a password (407)": refuses("407 Proxy Authentication Required"),
    "the proxy does not allow the host (403)": refuses("403 Forbidden"),
    "the proxy does not support `CONNECT` (405)": refuses("405 Method Not Allowed"),
    "the proxy cannot connect (502)": refuses("502 Bad Gateway"),
    "the proxy is overloaded (503)": refuses("503 Service Unavailable"),
    "the proxy times out (504)": refuses("504 Gateway Timeout"),
    "the proxy throttles (429)": refuses("429 Too Many Requests"),
    "the proxy closes the connection": through_proxy(at="connection", strike=sends()),
    "the proxy resets the connection": through_proxy(at="connection", strike=sends(reset=True)),
    "the response of the proxy is not HTTP": through_proxy(at="connection", strike=sends(b"\x05\x00")),
    "the proxy hangs": through_proxy(at="connection", strike=hangs(), timeout=SHORT * 2, attempts=2),
    "the proxy closes the connection in the TLS handshake": through_proxy(at="connection", strike=_is_cut_in_tls),
    "the proxy presents its own certificate": through_proxy(at="connection", strike=_presents_its_own),
    "the proxy crashes before the response": through_proxy(strike=breaks()),
    "the proxy crashes in the middle of the response": through_proxy(strike=breaks(ANSWER[:-60])),
}
