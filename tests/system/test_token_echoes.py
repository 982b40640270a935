"""A server that repeats the token anywhere in its response: no output of the SDK shows it."""

import gzip
import json
import logging
import pickle
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import anyio
import h2.config
import h2.connection
import h2.events
import httpx
import httpx2
import pytest

from commenda_customers import (
    AsyncCustomersAPI,
    AuthenticationError,
    Customer,
    CustomersError,
    InvalidResponseError,
    RetryPolicy,
)
from commenda_customers.export import JSONLinesFile, SQLiteDatabase, export
from leaks import TOKEN, logged, provide, reported, see
from raw_server import Behaviour, Connection, RawServer, listing, ok

pytestmark = pytest.mark.anyio

PART = TOKEN[:8]
"""Not even a part of the token may be shown."""

LISTING = json.dumps(listing("a", "b")).encode()
ONCE = RetryPolicy(max_attempts=2, initial_wait=0.001)


def _response(line: str, body: bytes, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {line}", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


def _page(content: Any, *headers: str) -> bytes:
    return _response("200 OK", json.dumps(content).encode(), *headers)


def _chunked(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers, "", ""]).encode() + body


ROW = {"id": "a", "corporation_id": "corp_1", "name": "a"}
ECHO = json.dumps({"message": f"token {TOKEN} is wrong"}).encode()
ZIPPED = gzip.compress(LISTING.replace(b'"a"', f'"{TOKEN}"'.encode()))

PLACES: dict[str, bytes] = {
    # The first line.
    "version": f"{TOKEN} 200 OK\r\n\r\n".encode(),
    "reason of a refusal": _response(f"401 {TOKEN}", b""),
    "reason of a failure": _response(f"503 {TOKEN}", b""),
    "reason of a page": _response(f"200 {TOKEN}", LISTING),
    "reason of an interim response": f"HTTP/1.1 103 {TOKEN}\r\nLink: {TOKEN}\r\n\r\n".encode() + _response("404 No", ECHO),
    # Headers.
    "header of a page": _response("200 OK", LISTING, f"X-Request-Id: {TOKEN}", f"X-Echo: Bearer {TOKEN}"),
    "header of a refusal": _response("400 No", b"{}", f"X-Request-Id: {TOKEN}", f"X-Echo: Bearer {TOKEN}"),
    "name of a header": _response("400 No", b"", f"X-{TOKEN}: 1"),
    "malformed header": f"HTTP/1.1 200 OK\r\nbad {TOKEN}\r\n\r\n".encode(),
    "folded header": _response("400 No", b"", "X-Echo: a", f" {TOKEN}"),
    "content type": _response("200 OK", b"<html>", f"Content-Type: {TOKEN}"),
    "content length": f"HTTP/1.1 200 OK\r\nContent-Length: {TOKEN}\r\n\r\n".encode(),
    "content encoding": _response("200 OK", LISTING, f"Content-Encoding: {TOKEN}"),
    "content encoding of a refusal": _response("400 No", b"{}", f"Content-Encoding: {TOKEN}"),
    "transfer encoding": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {TOKEN}\r\n\r\n".encode(),
    "location": _response("302 Found", b"", f"Location: https://x.example/?{TOKEN}"),
    "malformed location": _response("302 Found", b"", f"Location: https://[{TOKEN}"),
    "cookie": _response("200 OK", LISTING, f"Set-Cookie: session={TOKEN}; {TOKEN}"),
    "times": _response("429 No", b"", f"Retry-After: {TOKEN}", f"RateLimit: {TOKEN}", f"Date: {TOKEN}"),
    # The body of an error.
    "refusal": _response("401 No", ECHO),
    "refusal that is cut": _response("401 No", ECHO)[:-20],
    "failure": _response("500 No", ECHO),
    "zipped refusal": _response("400 No", gzip.compress(ECHO), "Content-Encoding: gzip"),
    "damaged refusal": _response("400 No", gzip.compress(ECHO)[:-8] + ECHO, "Content-Encoding: gzip"),
    # The body of a page.
    "id": _page(listing("a", TOKEN)),
    "name": _page(listing() | {"customers": [ROW | {"name": f"Bearer {TOKEN}"}]}),
    "field that nobody knows": _page(listing() | {"customers": [ROW | {TOKEN: TOKEN}]}),
    "cursor": _page(listing("a", cursor=TOKEN)),
    "in a cursor": _page(listing("a", cursor=f"after=a;auth={TOKEN}")),
    "other corporation": _page(listing("a", corporation_id=TOKEN)),
    "row that is not valid": _page(listing() | {"customers": [ROW | {"id": 5, "name": TOKEN}, {TOKEN: 1}, TOKEN]}),
    "wrong envelope": _page({TOKEN: TOKEN, TOKEN.replace("-", "_"): 1}),
    "wrong type": _page({"customers": TOKEN, "total_customers": TOKEN}),
    "no JSON": _response("200 OK", b"<html>" + ECHO),
    "nearly JSON": _response("200 OK", b"{" + ECHO),
    "deep JSON": _response("200 OK", b"[" * 100_000 + ECHO),
    "no UTF-8": _response("200 OK", b"\xff\xfe" + ECHO),
    "zipped page": _response("200 OK", ZIPPED, "Content-Encoding: gzip"),
    "page that is cut": _response("200 OK", LISTING + ECHO)[:-20],
    "zipped page that is cut": _response("200 OK", ZIPPED[:-9], "Content-Encoding: gzip"),
    "page that is not zipped": _response("200 OK", ECHO, "Content-Encoding: gzip"),
    "too large": _response("200 OK", ECHO * 100_000),
    # The framing of the body.
    "length of a chunk": _chunked(TOKEN.encode() + b"\r\n"),
    "second length of a chunk": _chunked(b"%x\r\n%b\r\n" % (len(ECHO), ECHO) + TOKEN.encode() + b"\r\n"),
    "extension of a chunk": _chunked(f"{len(LISTING):x};a={TOKEN}\r\n".encode() + LISTING + b"\r\n0\r\n\r\n"),
    "trailer": _chunked(b"%x\r\n%b\r\n0\r\n" % (len(LISTING), LISTING) + f"X-Echo: {TOKEN}\r\n\r\n".encode()),
    "malformed trailer": _chunked(b"%x\r\n%b\r\n0\r\n" % (len(LISTING), LISTING) + f"{TOKEN}\r\n\r\n".encode()),
    "after the response": ok(listing("a")) + f"HTTP/1.1 200 {TOKEN}\r\n\r\n".encode(),
}

CLIENTS: dict[str, Callable[..., Any]] = {
    "own": nullcontext,
    # A user's client keeps cookies, and shows them, unless it is told not to.
    "httpx": partial(httpx.AsyncClient, cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[]))),
    "httpx2": partial(httpx2.AsyncClient, cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[]))),
}


class Seen:
    """All that anybody can see of a run."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.events: list[Any] = []
        self.errors: list[CustomersError] = []
        self.customers: list[Customer] = []
        self._caplog = caplog
        self._more = ""
        caplog.set_level(logging.DEBUG)

    @property
    def records(self) -> list[logging.LogRecord]:
        """What was logged, but not by the server: it is a thread of this process."""
        return [record for record in self._caplog.records if record.thread == threading.get_ident()]

    def look_at(self, *things: Any) -> None:
        """See more things."""
        self._more += "".join(see(thing) for thing in things)

    def all(self) -> str:
        """Return it as one text."""
        shown = self._more + logged(self.records) + see(self.events) + see(self.customers)
        for error in self.errors:
            assert error.checkpoint is not None
            shown += reported(error) + repr(pickle.dumps(error)) + error.checkpoint.model_dump_json() + see(error)
        return shown


@asynccontextmanager
async def _opened(
    client: Any, raw_server: RawServer, seen: Seen, token: Any = TOKEN, **options: Any
) -> AsyncGenerator[AsyncCustomersAPI]:
    options = {
        "base_url": raw_server.url,
        "retry": ONCE,
        "timeout": 10,
        "rate_limit": None,
        "hooks": [seen.events.append],
        **options,
    }
    async with client as http_client, AsyncCustomersAPI(token, http_client=http_client, **options) as api:
        yield api
        seen.look_at(api)


async def _read(api: AsyncCustomersAPI, seen: Seen, **options: Any) -> None:
    """Read a list, however it ends."""
    customers = api.list("corp_1", **options)
    iterator = aiter(customers)
    try:
        async for customer in iterator:
            seen.customers.append(customer)
    except CustomersError as error:
        seen.errors.append(error)
    seen.look_at(iterator, iterator.checkpoint(), iterator.checkpoint().model_dump_json())


@pytest.mark.parametrize("place", PLACES)
async def test_no_place_of_a_response_shows_it(
    place: str, anyio_backend_name: str, raw_server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a log of any library, an event, an error, a traceback with local variables, a pickle or a checkpoint."""
    seen = Seen(caplog)
    raw_server.behave(raw_server.answers(PLACES[place]))
    # What is shown depends on the HTTP library and on where the token is from, not on the event loop: one way on each.
    client, token = (CLIENTS["own"], TOKEN) if anyio_backend_name == "asyncio" else (CLIENTS["httpx2"], provide)
    async with _opened(client(), raw_server, seen, token, max_response_bytes=1_000_000) as api:
        await _read(api, seen)
        await _read(api, seen, invalid_customers="collect")
    assert f"Bearer {TOKEN}\r\n".encode() in raw_server.requests[0]
    assert seen.events
    assert seen.records
    assert PART not in seen.all()


HTTP2_PLACES: dict[str, tuple[list[tuple[str, str]], bytes]] = {
    "header": ([(":status", "200"), ("x-echo", TOKEN), ("x-request-id", TOKEN)], LISTING),
    "cursor": ([(":status", "200")], json.dumps(listing("a", cursor=TOKEN)).encode()),
    "refusal": ([(":status", "401"), ("x-echo", f"Bearer {TOKEN}")], ECHO),
    "status": ([(":status", TOKEN)], b""),
    "encoding": ([(":status", "200"), ("content-encoding", TOKEN)], ECHO),
    "length": ([(":status", "200"), ("content-length", TOKEN)], LISTING),
    "malformed header": ([(":status", "200"), ("X-UPPER", TOKEN)], LISTING),
}


@pytest.mark.parametrize("place", HTTP2_PLACES)
@pytest.mark.parametrize("client", ["httpx", "httpx2"])
async def test_no_place_of_an_http2_response_shows_it(
    place: str, client: str, raw_server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    """HTTP/2 has other code and other logs, also of compressed headers. They do not show the token either."""
    seen = Seen(caplog)
    raw_server.behave(_speaks_http2(*HTTP2_PLACES[place]))
    async with _opened(CLIENTS[client](http1=False, http2=True), raw_server, seen) as api:
        await _read(api, seen)
    assert seen.events
    assert PART not in seen.all()
    # Compressed as it was sent, the token could be read back.
    assert "hpack" not in {record.name.partition(".")[0] for record in seen.records}


def _speaks_http2(headers: list[tuple[str, str]], body: bytes) -> Behaviour:
    def behaviour(connection: Connection) -> None:
        config = h2.config.H2Configuration(
            client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        http2 = h2.connection.H2Connection(config)
        http2.initiate_connection()
        while data := connection.receive():
            for event in http2.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    http2.send_headers(event.stream_id, headers)
                    http2.send_data(event.stream_id, body, end_stream=True)
            connection.send(http2.data_to_send())

    return behaviour


@pytest.mark.parametrize("place", ["name", "cursor", "in a cursor", "field that nobody knows", "zipped page"])
async def test_a_page_with_the_token_is_refused(place: str, raw_server: RawServer) -> None:
    """A page that contains the token raises an error immediately: without the token, the page would be changed."""
    raw_server.behave(raw_server.answers(PLACES[place]))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=ONCE) as api:
        with pytest.raises(InvalidResponseError, match="contains the token") as caught:
            await api.list("corp_1")
    assert caught.value.status_code == 200
    assert not caught.value.transient
    assert len(raw_server.requests) == 1


async def test_a_short_token_may_be_in_the_data(raw_server: RawServer) -> None:
    """A token of less than 16 characters, as in tests, may be a customer's name. The SDK yields the page unchanged."""
    raw_server.behave(raw_server.answers(ok(listing("acme-customer"))))
    async with AsyncCustomersAPI("acme-customer", base_url=raw_server.url) as api:
        assert [customer.id for customer in await api.list("corp_1")] == ["acme-customer"]


@pytest.mark.parametrize("place", ["cursor", "name", "refusal", "row that is not valid"])
@pytest.mark.parametrize("sink", [JSONLinesFile, SQLiteDatabase])
async def test_no_file_of_an_export_has_it(
    place: str, sink: Callable[[Path], Any], raw_server: RawServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What an export has written when a server repeats the token: rows and checkpoints without it."""
    seen = Seen(caplog)
    raw_server.behave(raw_server.answers(ok(listing("a", cursor="next")), PLACES[place]))
    async with _opened(nullcontext(), raw_server, seen) as api:
        try:
            await export(api, ["corp_1"], sink(tmp_path / "out"), invalid_customers="collect")
        except AuthenticationError as error:
            seen.errors.append(error)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"corp_1" in written
    assert PART.encode() not in written
    assert PART not in seen.all()


@pytest.mark.parametrize("how", ["reset", "refused", "timeout", "cancelled"])
async def test_no_broken_connection_shows_it(how: str, raw_server: RawServer, caplog: pytest.LogCaptureFixture) -> None:
    """The local variables of the HTTP library, which hold the header that was sent, are in no traceback."""
    seen = Seen(caplog)
    raw_server.behave(lambda connection: connection.reset() if how == "reset" else connection.wait_for_end())
    options: dict[str, Any] = {"timeout": 0.1} if how == "timeout" else {}
    if how == "refused":
        options["base_url"] = "http://127.0.0.1:1"
    async with _opened(nullcontext(), raw_server, seen, **options) as api:
        if how != "cancelled":
            await _read(api, seen)
            assert seen.errors
        else:
            with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.1):
                await api.list("corp_1")
            assert PART not in reported(caught.value)
    assert PART not in seen.all()
