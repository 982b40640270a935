"""Faults on a real socket: what a broken server, or a broken network, can do to an answer."""

import gc
import gzip
import json
import ssl
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
import trustme
from anyio.abc import SocketStream

from commenda_customers import (
    APIConnectionError,
    APITimeoutError,
    AsyncCustomersAPI,
    BadRequestError,
    CustomersError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    RetryScheduled,
    ServerError,
)
from conftest import TOKEN
from raw_server import Behaviour, Connection, RawServer, listing, ok

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(max_attempts=4, initial_wait=0.01)
GOOD = ok(listing("a", "b"))
BODY = json.dumps(listing("a", "b")).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


MakeAPI = Callable[..., AbstractAsyncContextManager[AsyncCustomersAPI]]


@pytest.fixture(params=["own client", "httpx2"])
def make_api(request: pytest.FixtureRequest, raw_server: RawServer) -> MakeAPI:
    """Return a function that opens a client of the raw server, with its own HTTP client or with one of the user's."""

    @asynccontextmanager
    async def make(**options: Any) -> AsyncGenerator[AsyncCustomersAPI]:
        options = {"base_url": raw_server.url, "retry": QUICK, "timeout": 0.5, **options}
        match request.param:
            case "own client":
                client: Any = nullcontext()  # which is one of httpx
            case _:
                client = httpx2.AsyncClient()
        async with client as http_client, AsyncCustomersAPI(TOKEN, http_client=http_client, **options) as api:
            yield api

    return make


def sends(*parts: bytes, reset: bool = False) -> Behaviour:
    """Answer the first request with these bytes, then close."""

    def behaviour(connection: Connection) -> None:
        connection.read_request()
        for part in parts:
            connection.send(part)
        if reset:
            connection.reset()

    return behaviour


def hangs(after: bytes = b"") -> Behaviour:
    """Send these bytes, then nothing."""

    def behaviour(connection: Connection) -> None:
        connection.read_request()
        connection.send(after)
        connection.wait_for_end()

    return behaviour


def drips(after: bytes = b"", drops: bytes = GOOD) -> Behaviour:
    """Send these bytes, then others a byte at a time, each in time for any read timeout."""

    def behaviour(connection: Connection) -> None:
        connection.read_request()
        connection.send(after)
        connection.drip(drops, every=0.1)

    return behaviour


PASSING: dict[str, Behaviour] = {
    "closed before the status": sends(),
    "reset before the status": sends(reset=True),
    "closed in the headers": sends(b"HTTP/1.1 200 OK\r\nContent-"),
    "closed in the body": sends(GOOD[:-9]),
    "reset in the body": sends(GOOD[:-9], reset=True),
    "cut without a length": sends(HEAD + b"\r\n" + BODY[:-9]),
    "length too short": sends(HEAD + b"Content-Length: 50\r\n\r\n" + BODY),
    "chunk cut": sends(HEAD + b"Transfer-Encoding: chunked\r\n\r\n20\r\n" + BODY[:10]),
    "bad chunk size": sends(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY),
    "two lengths": sends(HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + BODY),
    "not HTTP": sends(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "headers without end": sends(HEAD + b"X: y\r\n" * 30_000),
    "NUL in a header": sends(HEAD + b"X: a\x00b\r\nContent-Length: 2\r\n\r\n{}"),
    "hangs before the status": hangs(),
    "hangs in the body": hangs(GOOD[:-9]),
    "drips": drips(),
    "gzip cut": sends(ok(None, body=gzip.compress(BODY)[:-12], headers=["Content-Encoding: gzip"])),
    "gzip damaged": sends(ok(None, body=b"\x1f\x8bnonsense", headers=["Content-Encoding: gzip"])),
    "no JSON": sends(ok(None, body=b"<html>")),
    "empty": sends(ok(None, body=b"")),
}


@pytest.mark.parametrize("fault", PASSING)
async def test_a_passing_fault_costs_nothing_but_time(fault: str, raw_server: RawServer, make_api: MakeAPI) -> None:
    """After any of these faults the next attempt brings every customer once, and nothing of the broken answer."""
    raw_server.behave(PASSING[fault], raw_server.answers(GOOD))
    retries: list[RetryScheduled] = []
    async with make_api(hooks=[lambda event: retries.append(event) if isinstance(event, RetryScheduled) else None]) as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a", "b"]
    assert [retry.attempt for retry in retries] == [1]
    assert str(retries[0].error)


async def test_a_drip_is_cut_by_the_wall_clock(raw_server: RawServer) -> None:
    """A server that never lets a read time out is given up when the attempt has lasted long enough."""
    raw_server.behave(drips())
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, timeout=0.3, retry=RetryPolicy(max_attempts=1)) as api:
        with pytest.raises(APITimeoutError, match="timeout of 0.3 s"):
            await api.list("corp_1")


async def test_nobody_listens(make_api: MakeAPI) -> None:
    """When no connection can be made, all attempts are used, and the error names the host."""
    async with make_api(base_url="http://127.0.0.1:1") as api:
        with pytest.raises(
            APIConnectionError, match=r"connection to 127\.0\.0\.1:1 failed: \[Errno \d+\].*after 4 attempts"
        ) as caught:
            await api.list("corp_1")
    assert caught.value.transient


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br"])
async def test_encodings_nobody_asked_for_are_refused(encoding: str, raw_server: RawServer, make_api: MakeAPI) -> None:
    """An answer in another encoding, or in two layers of gzip, is refused at once."""
    body = gzip.compress(gzip.compress(bytes(1 << 20)))
    raw_server.behave(raw_server.answers(ok(None, body=body, headers=[f"Content-Encoding: {encoding}"])))
    async with make_api() as api:
        with pytest.raises(InvalidResponseError, match="only gzip was asked for"):
            await api.list("corp_1")
    assert len(raw_server.requests) == 1


async def test_an_endless_body_is_given_up(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A body that does not end is given up at `max_response_bytes`, for good."""

    def endless(connection: Connection) -> None:
        raw_server.requests.append(connection.read_request())
        connection.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(2000):
            connection.send(b"2710\r\n" + bytes(10_000) + b"\r\n")

    raw_server.behave(endless)
    async with make_api(max_response_bytes=100_000, timeout=5) as api:
        with pytest.raises(InvalidResponseError, match="larger than max_response_bytes, 100,000 bytes"):
            await api.list("corp_1")
    assert len(raw_server.requests) == 1


async def test_a_compressed_answer_is_read(raw_server: RawServer, make_api: MakeAPI) -> None:
    """Gzip is asked for, and read."""
    raw_server.behave(raw_server.answers(ok(None, body=gzip.compress(BODY), headers=["Content-Encoding: gzip"])))
    async with make_api() as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a", "b"]
    assert b"accept-encoding: gzip\r\n" in raw_server.requests[0].lower()


async def test_an_answer_nobody_asked_for_reaches_nobody(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A server that sends a second answer on a connection does not make one corporation's customers another's."""
    mine, other = listing("mine"), listing("other", corporation_id="corp_2")
    raw_server.behave(
        raw_server.answers(ok(mine) + ok(other), ok(mine), ok(mine)), raw_server.answers(ok(mine), ok(mine), ok(mine))
    )
    async with make_api() as api:
        for _ in range(4):
            assert [customer.id async for customer in api.list("corp_1")] == ["mine"]
    assert raw_server.connections == 2


@pytest.mark.parametrize(
    ("head", "error"), [(b"HTTP/1.1 400 Bad Request\r\n", BadRequestError), (b"HTTP/1.1 501 No\r\n", ServerError)]
)
@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 1000\r\n\r\n\x00cut",
        b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nxyz",
        b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz",
        b"Content-Length: 100000\r\n\r\n" + bytes(100_000),
    ],
    ids=["cut", "brotli", "no gzip", "large"],
)
async def test_the_status_counts_more_than_its_explanation(
    head: bytes, error: type[CustomersError], rest: bytes, raw_server: RawServer, make_api: MakeAPI
) -> None:
    """If the body of an error cannot be read, the error is still that of the status."""
    raw_server.behave(sends(head + rest))
    async with make_api() as api:
        with pytest.raises(error) as caught:
            await api.list("corp_1")
    assert caught.value.body_excerpt == ("cut" if rest.endswith(b"cut") else None)


async def test_redirects_lead_nowhere(raw_server: RawServer) -> None:
    """A redirect is not followed, even if the user's client would: nobody else gets to see the token."""
    with RawServer() as elsewhere:
        elsewhere.behave(elsewhere.answers(GOOD))
        raw_server.behave(sends(f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n".encode()))
        async with (
            httpx.AsyncClient(follow_redirects=True) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            with pytest.raises(CustomersError, match="302"):
                await api.list("corp_1")
        assert elsewhere.connections == 0


@pytest.mark.parametrize("stalls", [hangs, drips])
@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 90\r\n\r\n", NotFoundError),
        (b"HTTP/1.1 429 No\r\nRetry-After: 86400\r\nContent-Length: 90\r\n\r\n", RateLimitError),
    ],
    ids=["404", "429"],
)
async def test_the_status_counts_though_its_explanation_stalls(
    stalls: Callable[[bytes], Behaviour],
    head: bytes,
    error: type[CustomersError],
    raw_server: RawServer,
    make_api: MakeAPI,
) -> None:
    """An error whose body does not end is the error of its status, with the wait that it asks for; it is not a timeout."""
    raw_server.behave(stalls(head))
    async with make_api() as api:
        with pytest.raises(error) as caught:
            await api.list("corp_1")
    assert (caught.value.attempts, caught.value.retry_after) == (1, 86400 if error is RateLimitError else None)


async def test_the_connection_is_kept(raw_server: RawServer, make_api: MakeAPI) -> None:
    """All pages of a walk come through one connection."""
    raw_server.behave(raw_server.answers(ok(listing("a", cursor="1")), ok(listing("b", cursor="2")), ok(listing("c"))))
    async with make_api() as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a", "b", "c"]
    assert raw_server.connections == 1


async def test_a_kept_connection_that_was_closed_is_no_failure(raw_server: RawServer, make_api: MakeAPI) -> None:
    """When the server closes kept connections as they are used again, the request is sent again and no attempt is lost."""

    def closes_when_asked_again(connection: Connection) -> None:
        connection.read_request()
        connection.send(GOOD)
        connection.read_request()

    raw_server.behave(*[closes_when_asked_again] * 3, raw_server.answers(GOOD, GOOD))
    pages: list[int] = []
    async with make_api(retry=RetryPolicy(max_attempts=1)) as api:

        async def fetch() -> None:
            pages.append(len(await api.list("corp_1")))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(fetch)
        await fetch()
    assert pages == [2] * 4
    assert raw_server.connections == 4


async def test_a_fault_on_kept_connections_is_counted(raw_server: RawServer, make_api: MakeAPI) -> None:
    """Answers that are broken on every connection, kept ones too, use up the attempts, and not all the connections."""
    kept = 20
    everyone_is_here = threading.Barrier(kept)

    def good_then_garbage(connection: Connection) -> None:
        connection.read_request()
        everyone_is_here.wait(10)
        connection.send(GOOD)
        while request := connection.read_request():
            raw_server.requests.append(request)
            connection.send(HEAD + b"X: a\x00b\r\n\r\n")

    raw_server.behave(*[good_then_garbage] * kept, sends())
    async with make_api(timeout=5, retry=RetryPolicy(max_attempts=2, initial_wait=0.01), rate_limit=None) as api:
        async with anyio.create_task_group() as tasks:
            for _ in range(kept):
                tasks.start_soon(_first_page, api)
        raw_server.requests.clear()
        with pytest.raises(APIConnectionError, match="after 5 attempts"):
            await api.list("corp_1")
    assert len(raw_server.requests) == 3 + 2


async def _first_page(api: AsyncCustomersAPI) -> None:
    await api.list("corp_1")


async def test_a_new_connection_that_fails_is_a_failure(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A connection that was opened for the request and closed without an answer counts: one attempt, one connection."""
    raw_server.behave(sends())
    async with make_api(retry=RetryPolicy(max_attempts=1)) as api:
        with pytest.raises(APIConnectionError, match="after 1 attempt"):
            await api.list("corp_1")
    assert raw_server.connections == 1


async def test_a_new_connection_of_another_kind_is_new(tmp_path: Path) -> None:
    """A connection through a Unix socket that is closed without an answer counts too: it is not asked again and again."""
    connections = 0
    path = tmp_path / "socket"
    listener = await anyio.create_unix_listener(path)

    async def close(stream: SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            await stream.receive()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, close)
        async with (
            httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client,
            AsyncCustomersAPI(
                TOKEN, base_url="http://localhost", http_client=client, retry=RetryPolicy(max_attempts=1), timeout=2
            ) as api,
        ):
            with pytest.raises(APIConnectionError, match="disconnected"):
                await api.list("corp_1")
        tasks.cancel_scope.cancel()
    assert connections == 1


async def test_a_cursor_that_fits_no_request(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A cursor that is too long for any URL is an error that says where; what was on the page before it came."""
    raw_server.behave(raw_server.answers(ok(listing("a", cursor="x" * 70_000))))
    walked: list[str] = []
    async with make_api() as api:
        with pytest.raises(APIConnectionError, match="could not be sent: .*corporation 'corp_1', cursor 'xxx") as caught:
            async for customer in api.list("corp_1"):
                walked.append(customer.id)
    assert walked == ["a"]
    assert caught.value.cursor == "x" * 70_000
    assert len(str(caught.value)) < 1000


async def test_a_cancelled_request_leaves_the_client_usable(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A request that is cancelled while it waits for its answer does not harm the next one."""
    raw_server.behave(hangs(GOOD[:-9]), raw_server.answers(GOOD))
    async with make_api(timeout=None) as api:
        with anyio.move_on_after(0.1) as scope:
            await api.list("corp_1")
        assert scope.cancelled_caught
        assert len(await api.list("corp_1")) == 2


class TestTLS:
    """Certificates: a connection that is not to be trusted is no reason to try again."""

    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    def _listen(self, raw_server: RawServer, authority: trustme.CA, host: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        authority.issue_cert(host).configure_cert(context)
        raw_server.use_tls(context)
        raw_server.behave(raw_server.answers(GOOD))

    async def _fetch(
        self, raw_server: RawServer, trusted: trustme.CA, *, only_tls_1_3: bool = False, timeout: float = 2
    ) -> list[str]:
        context = ssl.create_default_context()
        trusted.configure_trust(context)
        if only_tls_1_3:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        url = raw_server.url.replace("http://127.0.0.1", "https://localhost")
        policy = RetryPolicy(max_attempts=3, initial_wait=0.01)
        async with (
            httpx.AsyncClient(verify=context) as client,
            AsyncCustomersAPI(TOKEN, base_url=url, http_client=client, retry=policy, timeout=timeout) as api,
        ):
            return [customer.id async for customer in api.list("corp_1")]

    async def test_a_trusted_certificate_works(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """Over TLS everything is as without."""
        self._listen(raw_server, authority, "localhost")
        assert await self._fetch(raw_server, authority) == ["a", "b"]

    @pytest.mark.parametrize("wrong", ["authority", "host", "protocol"])
    async def test_an_untrusted_connection_is_final(self, raw_server: RawServer, authority: trustme.CA, wrong: str) -> None:
        """An unknown authority, a certificate for another host, no protocol in common: one attempt, and an error."""
        host = "elsewhere.example" if wrong == "host" else "localhost"
        self._listen(raw_server, authority, host)
        with pytest.raises(APIConnectionError, match=r"TLS certificate or protocol was not accepted: .*SSL") as caught:
            await self._fetch(
                raw_server, trustme.CA() if wrong == "authority" else authority, only_tls_1_3=wrong == "protocol"
            )
        assert not caught.value.transient
        assert caught.value.attempts == 1

    async def test_no_tls_where_tls_was_expected_is_final(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A server that speaks plain HTTP on an https address is not asked again."""
        raw_server.behave(lambda connection: connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        with pytest.raises(APIConnectionError, match="TLS") as caught:
            await self._fetch(raw_server, authority)
        assert caught.value.attempts == 1

    async def test_tls_that_breaks_after_its_handshake_is_tried_again(
        self, raw_server: RawServer, authority: trustme.CA
    ) -> None:
        """What is no TLS, on a connection that was, is a broken connection on either backend."""

        def breaks(connection: Connection) -> None:
            connection.read_request()
            connection.send_past_tls(b"this is no TLS record at all")

        self._listen(raw_server, authority, "localhost")
        raw_server.behave(breaks, raw_server.answers(GOOD))
        assert await self._fetch(raw_server, authority) == ["a", "b"]

    async def test_a_server_that_wants_our_certificate_is_final(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A refusal that comes after the handshake, as with TLS 1.3, is one; the error says that it is about TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.issue_cert("localhost").configure_cert(context)
        authority.configure_trust(context)
        raw_server.use_tls(context)
        raw_server.behave(raw_server.answers(GOOD))
        with pytest.raises(APIConnectionError) as caught:
            await self._fetch(raw_server, authority, only_tls_1_3=True)
        # The server may have closed the connection before its reason could be read: then it is worth another attempt.
        assert caught.value.transient != ("certificate or protocol was not accepted" in str(caught.value))

    async def test_a_handshake_that_hangs_leaves_nothing(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A server that accepts connections and says nothing costs attempts, but leaves no socket open."""
        raw_server.behave(lambda connection: connection.wait_for_end())
        with pytest.raises(APITimeoutError) as caught:
            await self._fetch(raw_server, authority, timeout=0.1)
        assert caught.value.attempts == 3
        del caught
        gc.collect()  # an open socket would be a warning, and so an error

    async def test_a_handshake_that_breaks_off_is_tried_again(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A connection that closes during the handshake says nothing against the next one."""
        raw_server.behave(lambda _connection: None)
        with pytest.raises(APIConnectionError) as caught:
            await self._fetch(raw_server, authority)
        assert caught.value.attempts == 3
