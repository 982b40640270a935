"""Fixtures for all tests. Every asynchronous test runs on asyncio and on trio, unless its module says otherwise."""

import gc
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager, nullcontext
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, settings

from behaviours import QUICK, MakeAPI
from commenda_customers import AsyncCustomersAPI
from commenda_customers.testing import Emulator
from emulated import ServeEmulator
from gates import Gate, MakeGate
from raw_server import TOKEN, RawServer

# A shell that runs the tests in the background ignores Ctrl-C for them and for all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["fleet"]
"""Needs Redis, and takes minutes: runs only if the command line names it."""

settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile(
    "fuzz", deadline=None, max_examples=20_000, print_blob=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    max_examples=20,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),  # mutmut runs a test again in the same process
)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests that are never finished go on for longer, and those in virtual time draw other random numbers."""
    parser.addoption("--seed", type=int, default=0, help="what a unit test draws its random numbers from")
    parser.addoption("--kills", type=int, default=5, help="how often each export is killed")
    parser.addoption("--soak", type=float, default=3, help="for how many seconds the soak makes trouble")
    parser.addoption("--soak-seed", type=int, default=0, help="what the soak draws its random numbers from")


def pytest_collection_finish() -> None:
    """Exclude imported modules from later garbage collections, which would otherwise take half of a short test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the environment variables that would change the tests."""
    ours = ("COMMENDA_API_TOKEN", "COMMENDA_BASE_URL", "COMMENDA_LOG", "COMMENDA_QUOTA")
    for name in (*ours, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def raw_server() -> Iterator[RawServer]:
    """Serve hand-written bytes on a loopback socket."""
    with RawServer() as server:
        yield server


@pytest.fixture(params=["own client", "httpx2"])
def make_api(request: pytest.FixtureRequest, raw_server: RawServer) -> MakeAPI:
    """Return a function that opens a client of the raw server, with its own HTTP client or with one of the user's."""

    @asynccontextmanager
    async def make(**options: Any) -> AsyncGenerator[AsyncCustomersAPI]:
        client: Any = nullcontext() if request.param == "own client" else httpx2.AsyncClient()
        async with client as http_client:
            options = {"base_url": raw_server.url, "retry": QUICK, "http_client": http_client, **options}
            async with AsyncCustomersAPI(TOKEN, **options) as api:
                yield api

    return make


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServeEmulator]:
    """Return a function that serves an emulator for the rest of the test, and makes it the API of the environment."""
    with ExitStack() as stack:

        def start(*args: Any, **options: Any) -> Emulator:
            server = stack.enter_context(Emulator(*args, **options))
            monkeypatch.setenv("COMMENDA_BASE_URL", server.base_url)
            monkeypatch.setenv("COMMENDA_API_TOKEN", server.token)
            return server

        yield start


@pytest.fixture
def make_gate(serve: ServeEmulator) -> Iterator[MakeGate]:
    """Return a function that makes a fault that holds responses back."""
    gates: list[Gate] = []

    def make(**options: Any) -> Gate:
        gates.append(Gate(**options))
        return gates[-1]

    yield make
    for gate in gates:
        gate.is_open.set()
