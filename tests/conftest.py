"""Fixtures for all tests. Every asynchronous test runs on asyncio and on trio, unless its module says otherwise."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

import virtual_time
from raw_server import RawServer

# A shell that runs the tests in the background ignores Ctrl-C for them and for all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOKEN = "test-token-0123456789"

settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment of whoever runs the tests out of them."""
    for name in ("COMMENDA_API_TOKEN", "COMMENDA_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(params=["asyncio", "trio"])
def virtual_backend(request: pytest.FixtureRequest) -> Any:
    """Return a backend whose clock jumps to whatever is waited for; a fixture `anyio_backend` that returns it puts it in."""
    return virtual_time.virtual_backend(request.param)


@pytest.fixture
def token() -> str:
    """Return the token that the tests use."""
    return TOKEN


@pytest.fixture
def raw_server() -> Iterator[RawServer]:
    """Serve hand-written bytes on a loopback socket."""
    with RawServer() as server:
        yield server
