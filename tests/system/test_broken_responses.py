"""What errors say about responses that break on a real socket. For all other faults see `test_fault_matrix.py`."""

from collections.abc import Callable

import pytest

from behaviours import MakeAPI, drips, hangs, sends
from commenda_customers import (
    APIConnectionError,
    BadRequestError,
    CustomersError,
    NotFoundError,
    RateLimitError,
    ServerError,
)
from raw_server import Behaviour, RawServer, listing, ok

pytestmark = pytest.mark.anyio


async def test_a_refused_connection_uses_all_attempts(make_api: MakeAPI) -> None:
    """All attempts are used when no connection can be opened, and the error names the host."""
    async with make_api(base_url="http://127.0.0.1:1") as api:
        with pytest.raises(
            APIConnectionError, match=r"connection to 127\.0\.0\.1:1 failed: \[Errno \d+\].*after 4 attempts"
        ) as caught:
            await api.list("corp_1")
    assert caught.value.transient


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


@pytest.mark.parametrize(
    ("stalls", "head", "error"),
    [
        (hangs, b"HTTP/1.1 404 Not Found\r\nContent-Length: 90\r\n\r\n", NotFoundError),
        (drips, b"HTTP/1.1 429 No\r\nRetry-After: 86400\r\nContent-Length: 90\r\n\r\n", RateLimitError),
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
