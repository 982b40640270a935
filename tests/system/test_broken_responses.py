"""Responses that break on a real socket: cut, reset, stalled, malformed."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from behaviours import BODY, GOOD, HEAD, MakeAPI, drips, hangs, sends
from commenda_customers import (
    APIConnectionError,
    APITimeoutError,
    AsyncCustomersAPI,
    BadRequestError,
    CustomersError,
    Event,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    RetryScheduled,
    ServerError,
)
from raw_server import TOKEN, Behaviour, Connection, RawServer, listing, ok

pytestmark = pytest.mark.anyio


PATIENT = RetryPolicy(max_attempts=None, deadline=120, initial_wait=0.01)
STALLS: dict[str, Behaviour] = {
    "hangs before the status": hangs(),
    "hangs in the body": hangs(GOOD[:-9]),
    "drips": drips(),
}
PASSING: dict[str, Behaviour] = {
    **STALLS,
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
    "gzip cut": sends(ok(None, body=gzip.compress(BODY)[:-12], headers=["Content-Encoding: gzip"])),
    "gzip damaged": sends(ok(None, body=b"\x1f\x8bnonsense", headers=["Content-Encoding: gzip"])),
    "no JSON": sends(ok(None, body=b"<html>")),
    "empty, and perhaps cut": sends(HEAD + b"\r\n"),
}


@pytest.mark.parametrize("fault", PASSING)
async def test_a_broken_response_is_retried(fault: str, raw_server: RawServer, make_api: MakeAPI) -> None:
    """The next attempt after any of these faults returns every customer once, and nothing of the broken response."""
    raw_server.behave(PASSING[fault], raw_server.answers(GOOD))
    retries: list[RetryScheduled] = []

    def hook(event: Event) -> None:
        if isinstance(event, RetryScheduled):
            retries.append(event)

    # Of the good attempts too, some may take so long on a busy machine.
    options: dict[str, Any] = {"timeout": 0.3, "retry": PATIENT} if fault in STALLS else {}
    async with make_api(hooks=[hook], **options) as api:
        assert [customer.id async for customer in api.list("corp_1")] == ["a", "b"]
    assert retries[0].attempt == 1
    assert str(retries[0].error)
    assert len(retries) == 1 or fault in STALLS


async def test_a_slow_drip_is_ended_by_the_timeout(raw_server: RawServer) -> None:
    """The timeout ends an attempt whose server sends a byte from time to time, so that no read times out."""
    raw_server.behave(drips())
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, timeout=0.3, retry=RetryPolicy(max_attempts=1)) as api:
        with pytest.raises(APITimeoutError, match="timeout of 0.3 s"):
            await api.list("corp_1")


async def test_a_refused_connection_uses_all_attempts(make_api: MakeAPI) -> None:
    """All attempts are used when no connection can be opened, and the error names the host."""
    async with make_api(base_url="http://127.0.0.1:1") as api:
        with pytest.raises(
            APIConnectionError, match=r"connection to 127\.0\.0\.1:1 failed: \[Errno \d+\].*after 4 attempts"
        ) as caught:
            await api.list("corp_1")
    assert caught.value.transient


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br"])
async def test_unrequested_encodings_are_refused(encoding: str, raw_server: RawServer, make_api: MakeAPI) -> None:
    """A response in another encoding, or in two layers of gzip, is refused at once."""
    body = gzip.compress(gzip.compress(bytes(1 << 20)))
    raw_server.behave(raw_server.answers(ok(None, body=body, headers=[f"Content-Encoding: {encoding}"])))
    async with make_api() as api:
        with pytest.raises(InvalidResponseError, match="only gzip was asked for"):
            await api.list("corp_1")
    assert len(raw_server.requests) == 1


async def test_an_endless_body_is_refused(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A body that does not end is refused at `max_response_bytes`, and not retried."""

    def endless(connection: Connection) -> None:
        raw_server.requests.append(connection.read_request())
        connection.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(2000):
            connection.send(b"2710\r\n" + bytes(10_000) + b"\r\n")

    raw_server.behave(endless)
    async with make_api(max_response_bytes=100_000) as api:
        with pytest.raises(InvalidResponseError, match="larger than max_response_bytes, 100,000 bytes"):
            await api.list("corp_1")
    assert len(raw_server.requests) == 1


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
async def test_the_status_decides_though_the_body_is_broken(
    head: bytes, error: type[CustomersError], rest: bytes, raw_server: RawServer, make_api: MakeAPI
) -> None:
    """The error is that of the status, even if the body of the error response cannot be read."""
    raw_server.behave(sends(head + rest))
    async with make_api() as api:
        with pytest.raises(error) as caught:
            await api.list("corp_1")
    assert caught.value.body_excerpt == ("cut" if rest.endswith(b"cut") else None)


@pytest.mark.parametrize("stalls", [hangs, drips])
@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 90\r\n\r\n", NotFoundError),
        (b"HTTP/1.1 429 No\r\nRetry-After: 86400\r\nContent-Length: 90\r\n\r\n", RateLimitError),
    ],
    ids=["404", "429"],
)
async def test_the_status_decides_though_the_body_stalls(
    stalls: Callable[[bytes], Behaviour],
    head: bytes,
    error: type[CustomersError],
    raw_server: RawServer,
    make_api: MakeAPI,
) -> None:
    """The error is that of the status, with the wait that the server asks for, even if the body stalls."""
    raw_server.behave(stalls(head))
    async with make_api(timeout=4) as api:
        with pytest.raises(error) as caught:
            await api.list("corp_1")
    assert (caught.value.attempts, caught.value.retry_after) == (1, 86400 if error is RateLimitError else None)


async def test_a_cursor_too_long_for_a_url_is_an_error(raw_server: RawServer, make_api: MakeAPI) -> None:
    """A cursor that is too long for any URL is an error with its position, after the customers of the page before it."""
    raw_server.behave(raw_server.answers(ok(listing("a", cursor="x" * 70_000))))
    came: list[str] = []
    async with make_api() as api:
        with pytest.raises(APIConnectionError, match="could not be sent: .*corporation 'corp_1', cursor 'xxx") as caught:
            async for customer in api.list("corp_1"):
                came.append(customer.id)
    assert came == ["a"]
    assert caught.value.cursor == "x" * 70_000
    assert len(str(caught.value)) < 1000
