"""What `docs/faults.md` promises about statuses, waits and redirects, and about what is sent."""

import socket
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from commenda_customers import AsyncCustomersAPI, CustomersError, RetryPolicy
from commenda_customers.query import PARAMETERS
from fault_matrix import statuses
from fault_matrix.cursors import SPECIAL
from fault_matrix.rows import Row, rows_of
from fault_matrix.runs import WAYS, Way
from raw_server import TOKEN, Connection, RawServer, listing, ok

pytestmark = pytest.mark.anyio

STATUSES = statuses.rules(rows_of("Statuses"))


def test_every_status_is_in_the_table() -> None:
    """The table has each status from 200 to 999, and says what a row means after its numbers."""
    assert {*STATUSES} <= {*statuses.SUFFIXES}
    assert sorted({*STATUSES[""], *STATUSES["with a page"]}) == [*range(200, 1000)]


@pytest.mark.parametrize("suffix", STATUSES)
async def test_statuses(suffix: str, anyio_backend_name: str) -> None:
    """Each status has the outcome and the error of the table. Of those that no standard has, a few stand for all."""
    wanted = {number: words for number, words in STATUSES[suffix].items() if number < 600 or number % 100 in {0, 99}}
    assert await statuses.outcomes_of(wanted, suffix, WAYS[anyio_backend_name]) == wanted


@pytest.mark.parametrize("row", rows_of("Waits"), ids=lambda row: row.fault)
async def test_waits(row: Row, raw_server: RawServer) -> None:
    """The client reads the wait from the headers of a 429 as the table says."""
    headers = "".join(f"{header.strip(' `')}\r\n" for header in row.fault.split("`, `"))
    head = f"HTTP/1.1 429 Too Many Requests\r\n{headers}Content-Length: 0\r\n\r\n"
    raw_server.behave(raw_server.answers(head.encode("latin-1")))
    policy = RetryPolicy(max_attempts=1)
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=policy, rate_limit=None) as api:
        with pytest.raises(CustomersError) as caught:
            await api.list("corp_1")
    assert _shown(caught.value.retry_after) == row.cells[1]


def _shown(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    return f"{seconds:g} s" if seconds < 1e9 else "for ever"


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """Listen on a port, and check that no connection comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening.getsockname()[1]
        with pytest.raises(BlockingIOError):
            listening.accept()


REDIRECTS: dict[str, str] = {
    "to a path": "/login",
    "to another host": "http://localhost:{port}/customers",
    "from TLS to plain HTTP": "http://127.0.0.1:{port}/customers",
    "to an address with a user and a password": "http://user:password@127.0.0.1:{port}/",
    "to an address with another scheme": "file:///etc/passwd",
    "to itself": "?",
    "to nowhere": "",
}


@pytest.mark.parametrize("row", rows_of("Redirects"), ids=lambda row: row.fault)
@pytest.mark.parametrize("way", ["list", "stream"])
async def test_redirects(row: Row, way: Way, raw_server: RawServer, elsewhere: int) -> None:
    """A redirect is an error at once; no request is sent to anywhere else, so no other server gets the token."""
    location = REDIRECTS[row.fault].format(port=elsewhere)
    head = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    raw_server.behave(raw_server.answers(*[head.encode()] * 9))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
        with pytest.raises(CustomersError) as caught:
            if way == "list":
                await api.list("corp_1")
            else:
                async with api.stream(["corp_1"]) as stream:
                    [customer async for customer in stream]
    assert ("final", type(caught.value).__name__) == (row.outcome, row.error)
    assert (len(raw_server.requests), caught.value.attempts) == (1, 1)


def test_every_redirect_is_in_the_table() -> None:
    """The page and the tests have the same redirects."""
    assert [row.fault for row in rows_of("Redirects")] == [*REDIRECTS]


LISTS = {"source_platforms", "source_platform_ids", "extend", "certificate_types"}
TEXTS = {*PARAMETERS} - {"limit", "has_exemption"}
HEADERS = sorted([b"host", b"accept", b"accept-encoding", b"connection", b"user-agent", b"authorization"])
HOSTILE: dict[str, list[str]] = {
    "line breaks": ["x\r\nX-Injected: yes", "x\n\nGET / HTTP/1.1", "\r\n\r\n"],
    "control characters": ["".join(map(chr, range(32))), "\x7f\x80\x9f"],
    "characters that are reserved in URLs": [text for text in SPECIAL if text.isascii() and text.isprintable()],
    "non-ASCII characters": [text for text in SPECIAL if not text.isascii()],
    "text that looks percent-encoded": ["%0d%0aX: y", "%2e%2e%2f", "%25", "%zz"],
}


def _params(head: bytes) -> dict[str, list[str]]:
    return parse_qs(urlsplit(head.split(b" ", 2)[1].decode("ascii")).query, keep_blank_values=True)


def _echo(server: RawServer, connection: Connection) -> None:
    while head := connection.read_request():
        server.requests.append(head)
        connection.send(ok(listing("a", corporation_id=_params(head)["corporation_id"][0])))


@pytest.mark.parametrize("row", rows_of("What the client sends"), ids=lambda row: row.fault)
@pytest.mark.parametrize("way", ["list", "stream"])
async def test_what_is_sent(row: Row, way: Way, raw_server: RawServer) -> None:
    """Any text of a parameter arrives as it is. It adds no header, no parameter and no request."""
    assert row.outcome == "sent encoded"
    raw_server.behave(partial(_echo, raw_server))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, rate_limit=None) as api:
        for name in TEXTS if way == "list" else TEXTS - {"cursor"}:
            for text in HOSTILE[row.fault]:
                given: dict[str, Any] = {"corporation_id": "corp_1", name: [text] if name in LISTS else text}
                raw_server.requests.clear()
                await _read_all(api, way, **given)
                [head] = raw_server.requests
                assert _params(head) == {"corporation_id": [given["corporation_id"]], "limit": ["100"], name: [text]}
                names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]]
                assert sorted(names) == HEADERS


async def _read_all(api: AsyncCustomersAPI, way: Way, corporation_id: str, **given: Any) -> None:
    if way == "list":
        assert len(await api.list(corporation_id, **given)) == 1
        return
    async with api.stream([corporation_id], **given) as stream:
        assert len([customer async for customer in stream]) == 1


def test_every_text_that_is_sent_is_in_the_table() -> None:
    """The page and the tests have the same texts."""
    assert [row.fault for row in rows_of("What the client sends")] == [*HOSTILE]
