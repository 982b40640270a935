"""Faults of TLS: certificates, handshakes, and connections after the handshake."""

import ssl
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import httpx
import trustme

from behaviours import BODY, HEAD
from fault_matrix.connection import SHORT, breaks, is_silent
from fault_matrix.runs import SECOND, Fault, Site
from raw_server import Connection, ok

ANSWER = ok(SECOND)
LOOPBACK = "127.0.0.1"


@cache
def authority() -> trustme.CA:
    """Return the authority that the client trusts."""
    return trustme.CA()


@cache
def certified(host: str = LOOPBACK, *, days: int = 1, is_trusted: bool = True) -> ssl.SSLContext:
    """Return the TLS of a server with a certificate for *host* that expires in some days."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    now = datetime.now(UTC)
    ca = authority() if is_trusted else trustme.CA()
    certificate = ca.issue_cert(host, not_before=now - timedelta(days=9), not_after=now + timedelta(days=days))
    certificate.configure_cert(context)
    return context


@cache
def _only_tls_1_2() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(LOOPBACK).configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@cache
def _self_signed() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    itself = trustme.CA()
    with itself.cert_pem.tempfile() as certificate, itself.private_key_pem.tempfile() as key:
        context.load_cert_chain(certificate, key)
    return context


@cache
def trusting() -> ssl.SSLContext:
    """Return the TLS of a client that trusts the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority().configure_trust(context)
    return context


def open_client(_: str) -> AbstractAsyncContextManager[Any]:
    """Open a client that trusts the authority."""
    return httpx.AsyncClient(verify=trusting())


def _serve(site: Site, connection: Connection) -> None:
    if site.fault.at == "connection" and site.strikes():
        site.fault.strike(connection)
        return
    connection.start_tls(certified())
    site.serve_requests(connection)


def _https(url: str) -> str:
    return url.replace("http:", "https:")


over_tls = partial(Fault, serve=_serve, base_url=_https, client=open_client)
"""A fault of a server that speaks TLS."""


def presents(context: ssl.SSLContext) -> Fault:
    """Return the fault of a server with another certificate."""
    return over_tls(at="connection", strike=lambda connection: connection.start_tls(context))


def _greets(answer: bytes) -> Fault:
    """Return the fault of a server that answers the first bytes of TLS with others."""

    def strike(connection: Connection) -> None:
        connection.receive()
        connection.send(answer)

    return over_tls(at="connection", strike=strike)


def _breaks_tls(connection: Connection) -> None:
    connection.read_request()
    connection.send_past_tls(b"this is no TLS record at all")


def _cut_in_handshake(connection: Connection, *, reset: bool = False) -> None:
    connection.receive()
    if reset:
        connection.reset()


FAULTS: dict[str, Fault] = {
    "the certificate is for another host": presents(certified("elsewhere.example")),
    "the certificate has expired": presents(certified(days=-1)),
    "the certificate is from an unknown authority": presents(certified(is_trusted=False)),
    "the certificate is self-signed": presents(_self_signed()),
    "the server speaks only a version of TLS that the client does not accept": presents(_only_tls_1_2()),
    "the server responds in plain HTTP on its TLS port": _greets(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "the server speaks another protocol instead of TLS": _greets(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "the connection is closed in the TLS handshake": over_tls(at="connection", strike=_cut_in_handshake),
    "the connection is reset in the TLS handshake": over_tls(at="connection", strike=partial(_cut_in_handshake, reset=True)),
    "the TLS handshake hangs": over_tls(
        at="connection", strike=lambda connection: connection.wait_for_end(), timeout=SHORT * 2, attempts=2
    ),
    "bytes that are not TLS come instead of the response": over_tls(strike=_breaks_tls),
    "a TLS connection is closed in the middle of the response": over_tls(strike=breaks(ANSWER[:-60])),
    "a TLS connection is reset in the middle of the response": over_tls(strike=breaks(ANSWER[:-60], reset=True)),
    "a TLS connection is closed, without `close_notify`, after half of a body without a length": over_tls(
        strike=breaks(HEAD + b"\r\n" + BODY[:80])
    ),
    "a TLS connection is closed, without `close_notify`, after the complete response": over_tls(strike=breaks(ANSWER)),
    "a TLS server hangs after the request": over_tls(strike=is_silent(), timeout=SHORT * 2, attempts=2),
}
