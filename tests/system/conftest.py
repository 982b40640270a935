"""Fixtures for the tests with processes, and for those of HTTP/2."""

import os
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from commenda_customers import (
    AsyncCustomersAPI,
)
from http2_clients import QUICK, Failures, MakeH2
from raw_server import TOKEN, RawServer

NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Reading the certificates of the system takes long."""


@pytest.fixture(autouse=True, scope="module")
def _only_the_command_line_is_measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Do not measure the coverage of other processes: it takes twice as long, and other tests run the same lines."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.startswith("test_cli"):
            for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
                patch.delenv(name)
        yield


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def make_h2(library: ModuleType, raw_server: RawServer, failures: Failures) -> MakeH2:
    """Return a function that opens a client that speaks HTTP/2 without TLS."""

    @asynccontextmanager
    async def make(*, client: dict[str, Any] | None = None, **options: Any) -> AsyncGenerator[AsyncCustomersAPI]:
        options = {"base_url": raw_server.url, "retry": QUICK, "hooks": [failures], **options}
        async with (
            library.AsyncClient(http1=False, http2=True, verify=NO_TRUST, **(client or {})) as http_client,
            AsyncCustomersAPI(TOKEN, http_client=http_client, **options) as api,
        ):
            yield api

    return make
