"""The transport of pyreqwest: the same faults, and what is its own."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from commenda_customers import APIConnectionError, APIStatusError, APITimeoutError, AsyncCustomersAPI, RetryPolicy
from commenda_customers._http import senders
from commenda_customers.testing import Emulator
from fault_matrix import connection, content, cursors, encodings, framing
from fault_matrix.rows import rows_of
from fault_matrix.runs import Fault, outcome_of
from fault_matrix.tls import authority, certified
from raw_server import TOKEN, Connection, RawServer, listing, ok

TABLES: dict[str, dict[str, Fault]] = {
    "The connection": connection.FAULTS,
    "The head and the length of a response": framing.FAULTS,
    "The content of a page": content.FAULTS,
    "Compression": encodings.FAULTS,
    "Cursors": cursors.FAULTS,
}
ROWS = [row for section in TABLES for row in rows_of(section)]
DIFFERENT = {row.fault: (row.outcome, row.error) for row in rows_of("With pyreqwest")}

GOOD = ok(listing("a"))


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio: pyreqwest works nowhere else."""
    return "asyncio"


def _open(server: RawServer, **options: Any) -> AsyncCustomersAPI:
    return AsyncCustomersAPI(TOKEN, **{"base_url": server.url, "transport": "pyreqwest", **options})


class TestFaults:
    """The rows of `docs/faults.md`."""

    pytestmark = pytest.mark.anyio

    def test_each_difference_is_about_a_fault_of_the_page(self) -> None:
        """The table has no row of its own."""
        assert {*DIFFERENT} <= {row.fault for row in ROWS}

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    async def test_what_the_page_says_happens(self, row: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A list reads while the fault happens at first, another one while it happens each time."""
        fault = TABLES[row.section][row.fault]
        if not fault.keeps and row.section != "Cursors":
            # The server closes the connection after the fault. A request that reuses it just then would use up an attempt.
            monkeypatch.setattr(senders, "SECONDS_IDLE", 0.0)
        outcome = await outcome_of(fault, ("pyreqwest", "pyreqwest"))
        assert outcome == DIFFERENT.get(row.fault, (row.outcome, row.error))

    async def test_no_redirect_is_followed(self, raw_server: RawServer) -> None:
        """A redirect is an error, so no other server gets the token."""
        head = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {raw_server.url}/other\r\nContent-Length: 0\r\n\r\n"
        raw_server.behave(raw_server.answers(head.encode()))
        async with _open(raw_server) as api:
            with pytest.raises(APIStatusError):
                await api.list("corp_1")
        assert len(raw_server.requests) == 1

    async def test_the_requests_are_those_of_httpx(self, raw_server: RawServer) -> None:
        """Both transports send the same request, whatever cookies the server has set before."""
        cookie = ok(listing("a"), headers=["Set-Cookie: session=1"])
        raw_server.behave(raw_server.answers(cookie, cookie), raw_server.answers(cookie, cookie))
        for transport in ("pyreqwest", "httpx"):
            async with _open(raw_server, transport=transport) as api:
                for _ in range(2):
                    await api.list("corp_1", search_term="Müller & Söhne")
        first, *others = [sorted(request.lower().split(b"\r\n")) for request in raw_server.requests]
        assert others == [first] * 3

    async def test_an_untrusted_certificate_is_final(self) -> None:
        """Without a reason to trust the server, the request is not sent."""
        with RawServer() as server:
            server.use_tls(certified())
            server.behave(server.answers(GOOD))
            async with _open(server, base_url=server.url.replace("http:", "https:")) as api:
                with pytest.raises(APIConnectionError, match="certificate") as caught:
                    await api.list("corp_1")
        assert caught.value.attempts == 1
        assert not caught.value.transient

    async def test_no_proxy_of_the_environment_sees_the_token(
        self, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Plain HTTP is for loopback, and goes there."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        raw_server.behave(raw_server.answers(GOOD))
        async with _open(raw_server) as api:
            assert len(await api.list("corp_1")) == 1


class TestLeaving:
    """Requests that are cancelled."""

    pytestmark = pytest.mark.anyio

    @pytest.mark.parametrize("limit", ["anyio", "asyncio"])
    @pytest.mark.parametrize("stage", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"])
    async def test_a_cancelled_request_leaves_nothing(self, raw_server: RawServer, limit: str, stage: bytes) -> None:
        """The timeout of the program wins at each stage, and the client works on."""

        def stall(connection: Connection) -> None:
            connection.read_request()
            connection.send(stage)
            connection.wait_for_end()

        raw_server.behave(stall, raw_server.answers(GOOD))
        async with _open(raw_server) as api:
            with pytest.raises(TimeoutError):
                if limit == "asyncio":
                    async with asyncio.timeout(0.2):
                        await api.list("corp_1")
                else:
                    with anyio.fail_after(0.2):
                        await api.list("corp_1")
            assert len(await api.list("corp_1")) == 1
            assert api.rate_limit is not None
            assert api.rate_limit.snapshot().in_flight == 0

    async def test_closing_ends_a_request_in_flight(self, raw_server: RawServer) -> None:
        """It raises `RuntimeError`, and does not hang."""
        raw_server.behave(Connection.wait_for_end)
        async with anyio.create_task_group() as tasks:
            api = _open(raw_server)

            async def read() -> None:
                with pytest.raises(RuntimeError, match="closed"):
                    await api.list("corp_1")

            tasks.start_soon(read)
            while not raw_server.connections:
                await anyio.sleep(0.01)
            await api.aclose()

    async def test_a_timeout_is_retried(self, raw_server: RawServer) -> None:
        """Each attempt has the timeout of the client."""
        raw_server.behave(Connection.wait_for_end)
        async with _open(raw_server, timeout=0.05, retry=RetryPolicy(max_attempts=2, initial_wait=0.001)) as api:
            with pytest.raises(APITimeoutError, match="after 2 attempts"):
                await api.list("corp_1")

    async def test_many_corporations_at_once(self) -> None:
        """A stream reads all customers, each once."""
        with Emulator({f"corp_{number}": 250 for number in range(40)}) as server:
            api = AsyncCustomersAPI(server.token, base_url=server.base_url, transport="pyreqwest")
            async with api, api.stream([f"corp_{number}" for number in range(40)], concurrency=40) as stream:
                ids = [customer.id async for customer in stream]
        assert len(ids) == len({*ids}) == 40 * 250


def test_it_trusts_the_certificates_of_the_environment(tmp_path: Path) -> None:
    """`SSL_CERT_FILE` names them, as for httpx."""
    program = """
import anyio, os
from commenda_customers import AsyncCustomersAPI

async def main() -> None:
    async with AsyncCustomersAPI("token-1", base_url=os.environ["URL"], transport="pyreqwest") as api:
        print(len(await api.list("corp_1")))

anyio.run(main)
"""
    certificates = tmp_path / "authority.pem"
    authority().cert_pem.write_to_path(str(certificates))
    with RawServer() as server:
        server.use_tls(certified())
        server.behave(server.answers(GOOD))
        env = {"URL": server.url.replace("http:", "https:"), "SSL_CERT_FILE": str(certificates), "PATH": ""}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


PROGRAM = """
import anyio, sys, threading
from commenda_customers import APIConnectionError, AsyncCustomersAPI, RetryPolicy

async def main() -> None:
    options = {"base_url": "http://127.0.0.1:1", "transport": "pyreqwest", "retry": RetryPolicy(max_attempts=1)}
    async with AsyncCustomersAPI("token-1", **options) as api:
        try:
            await api.list("corp_1")
        except APIConnectionError:
            pass

for _ in range(2):
    thread = threading.Thread(target=anyio.run, args=(main,))
    thread.start()
    thread.join()
anyio.run(main)
anyio.run(main)
sys.exit(3)
"""


def test_a_program_that_ends_after_a_request() -> None:
    """A program with clients in several threads that ends right after a request keeps its exit code, and prints nothing."""
    for _ in range(5):  # the threads of pyreqwest may be anywhere
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_trio_is_refused(raw_server: RawServer) -> None:
    """The error says what to do, and no request is sent."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="asyncio only"):
            await _open(raw_server).list("corp_1")

    anyio.run(main, backend="trio")
    assert not raw_server.connections
