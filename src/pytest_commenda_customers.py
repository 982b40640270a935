"""
A pytest plugin: the emulated API as fixtures.

pytest loads it in every run, also in projects that do not use it. So it is not in the package, whose import takes time, and
imports only when a fixture is used.
"""

import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from commenda_customers import AsyncCustomersAPI
    from commenda_customers.testing import Emulator


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers", "commenda_emulator(*args, **kwargs): arguments of the Emulator of the fixture commenda_emulator."
    )


@pytest.fixture
def commenda_emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Emulator]":
    """
    The emulated API on a socket, fresh for each test, and the API of the environment variables during the test.

    Its arguments are those of the mark `commenda_emulator`; without the mark it has 1,000 customers of `corp_123`.
    """
    from commenda_customers.testing import Emulator

    mark = request.node.get_closest_marker("commenda_emulator")
    with Emulator(*mark.args, **mark.kwargs) if mark else Emulator() as emulator:
        monkeypatch.setenv("COMMENDA_BASE_URL", emulator.base_url)
        monkeypatch.setenv("COMMENDA_API_TOKEN", emulator.token)
        yield emulator


@pytest.fixture
def commenda_api(commenda_emulator: "Emulator") -> "AsyncCustomersAPI":
    """
    A client of `commenda_emulator`, on any event loop, with short waits and without a limiter.

    It needs no closing: it closes the connection after each request.
    """
    import httpx

    from commenda_customers import AsyncCustomersAPI, RetryPolicy

    return AsyncCustomersAPI(
        commenda_emulator.token,
        base_url=commenda_emulator.base_url,
        # A fixture without `await` works with every plugin for asynchronous tests. But then nothing may stay open: no
        # connection is kept. The context for TLS is not used; to load certificates into it would take 40 ms for each test.
        http_client=httpx.AsyncClient(
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=0),
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
        ),
        retry=RetryPolicy(deadline=10, initial_wait=0.01, max_wait=0.05),
        rate_limit=None,
        timeout=5,
    )
