"""Any exception of a library, at any point: the caller gets a `CustomersError`, or the page if it was complete."""

import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from types import ModuleType
from typing import Any, Self

import anyio
import httpcore
import httpcore2
import httpx
import httpx2
import pytest
from h2.exceptions import ProtocolError, StreamClosedError
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from behaviours import BODY, HEAD
from commenda_customers import (
    APIConnectionError,
    APITimeoutError,
    AsyncCustomersAPI,
    InvalidResponseError,
    RetryPolicy,
)
from library_errors import ALL, MISTAKES, make, name_of
from raw_server import TOKEN
from script import URL

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])]

ONCE = RetryPolicy(max_attempts=1)
NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Reading the certificates of the system takes long."""


@pytest.fixture
def classes(library: ModuleType, anyio_backend_name: str) -> list[type[Exception]]:
    """Return a quarter of all classes. The libraries and the event loops share them, so that each is tried once."""
    return ALL[2 * (library is httpx) + (anyio_backend_name == "trio") :: 4]


def _transport(library: ModuleType, at: str, exc: BaseException) -> Any:
    """Return a transport that answers, and raises *exc* at one of its calls."""

    class Body(library.AsyncByteStream):  # type: ignore[name-defined, misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            if at == "first part":
                raise exc
            yield BODY[:10]
            if at == "second part":
                raise exc
            yield BODY[10:]
            if at == "end":
                raise exc

        async def aclose(self) -> None:
            if at == "close":
                raise exc

    class Transport(library.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, _request: Any) -> Any:
            if at == "send":
                raise exc
            return library.Response(200, stream=Body())

    return Transport()


def _client(library: ModuleType, transport: Any, **options: Any) -> Any:
    return library.AsyncClient(transport=transport, verify=NO_TRUST, **options)


async def _first_page(client: Any, **options: Any) -> list[str]:
    options = {"base_url": URL, "http_client": client, "retry": ONCE, "rate_limit": None, **options}
    async with client, AsyncCustomersAPI(TOKEN, **options) as api:
        return [customer.id for customer in await api.list("corp_1")]


@pytest.mark.parametrize("at", ["send", "first part", "second part", "end"])
async def test_what_a_transport_raises_is_a_connection_error(
    library: ModuleType, at: str, classes: list[type[Exception]]
) -> None:
    """Every exception of a transport, and of the body that it returns, is the cause of an `APIConnectionError`."""
    for kind in classes:
        exc = make(kind)
        with pytest.raises(APIConnectionError) as caught:
            await _first_page(_client(library, _transport(library, at, exc)))
        assert caught.value.__cause__ is exc, name_of(kind)
        assert caught.value.checkpoint is not None
        assert caught.value.attempts == 1


class _OddError(Exception):
    """An exception that looks like a group, and has no text."""

    exceptions = None

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("at", ["send", "second part"])
async def test_an_odd_exception_is_a_connection_error(library: ModuleType, at: str) -> None:
    """The SDK relies neither on the text of an exception nor on its attributes."""
    with pytest.raises(APIConnectionError, match="failed: _OddError") as caught:
        await _first_page(_client(library, _transport(library, at, _OddError())))
    assert caught.value.transient


async def test_an_error_while_closing_loses_no_page(library: ModuleType, classes: list[type[Exception]]) -> None:
    """If the page is complete, an exception while its response is closed does not matter."""
    for kind in classes:
        client = _client(library, _transport(library, "close", make(kind)))
        assert await _first_page(client) == ["a", "b"], name_of(kind)


@pytest.mark.parametrize("at", ["send", "second part"])
async def test_mistakes_are_not_retried(library: ModuleType, at: str) -> None:
    """A mistake in a transport, such as a TypeError, is final. A KeyError, which libraries leak, is not."""
    for kind in [*MISTAKES, KeyError, RuntimeError, OSError, anyio.EndOfStream, library.RemoteProtocolError]:
        with pytest.raises(APIConnectionError) as caught:
            await _first_page(_client(library, _transport(library, at, make(kind))))
        assert caught.value.transient == (kind not in MISTAKES), name_of(kind)


async def test_a_timeout_of_a_transport_is_a_timeout(library: ModuleType) -> None:
    """The timeout of a library, and Python's, are an `APITimeoutError`."""
    for kind in [library.ReadTimeout, library.PoolTimeout, TimeoutError]:
        with pytest.raises(APITimeoutError):
            await _first_page(_client(library, _transport(library, "send", make(kind))))


async def test_what_cannot_be_sent_is_final(library: ModuleType) -> None:
    """A request that a transport refuses to send is not sent again. While reading, the same is the server's fault."""
    for kind in [library.LocalProtocolError, library.UnsupportedProtocol, library.InvalidURL]:
        with pytest.raises(APIConnectionError, match="the request could not be sent") as caught:
            await _first_page(_client(library, _transport(library, "send", make(kind))))
        assert not caught.value.transient
    with pytest.raises(APIConnectionError) as caught:
        await _first_page(_client(library, _transport(library, "second part", make(library.LocalProtocolError))))
    assert caught.value.transient


@pytest.mark.parametrize("at", ["send", "first part", "close"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
async def test_what_is_no_error_of_a_connection_stays_as_it_is(
    library: ModuleType, at: str, kind: type[BaseException]
) -> None:
    """Cancellations, exits and `MemoryError` reach the program unchanged; a complete page is still a page."""
    if kind is MemoryError and at == "close":
        pytest.skip("an Exception like the others, once the page is complete")
    with pytest.raises(kind):
        await _first_page(_client(library, _transport(library, at, kind())))


@pytest.mark.parametrize("at", ["request", "response"])
async def test_what_a_hook_of_the_users_client_raises_stays_as_it_is(
    library: ModuleType, at: str, classes: list[type[Exception]]
) -> None:
    """An exception of an event hook reaches the caller unchanged, of whatever class it is."""
    for kind in classes:
        exc = make(kind)

        async def hook(_request_or_response: Any, exc: Exception = exc) -> None:
            raise exc

        client = _client(library, _transport(library, "nowhere", exc), event_hooks={at: [hook]})
        with pytest.raises(kind) as caught:
            await _first_page(client)
        assert caught.value is exc, name_of(kind)


async def test_what_a_hook_gets_from_another_transport_stays_its_own(
    library: ModuleType, classes: list[type[Exception]]
) -> None:
    """If a hook sends a request of its own, and that fails, the hook's exception reaches the caller unchanged."""
    for kind in classes:
        exc = make(kind)

        async def ask_the_vault(_request: Any, exc: Exception = exc) -> None:
            async with _client(library, _transport(library, "send", exc)) as vault:
                await vault.get("https://vault.example/")

        client = _client(library, _transport(library, "nowhere", exc), event_hooks={"request": [ask_the_vault]})
        with pytest.raises(kind) as caught:
            await _first_page(client)
        assert caught.value is exc, name_of(kind)


@pytest.mark.parametrize("reads", [True, False])
async def test_a_body_that_breaks_in_a_hook_is_a_connection_error(
    library: ModuleType, reads: bool, classes: list[type[Exception]]
) -> None:
    """A hook may read or close the body. If the connection is lost in that time, that is not a failure of the hook."""
    for kind in classes:
        exc = make(kind)

        async def hook(response: Any) -> None:
            await (response.aread() if reads else response.aclose())

        transport = _transport(library, "second part" if reads else "close", exc)
        with pytest.raises(APIConnectionError) as caught:
            await _first_page(_client(library, transport, event_hooks={"response": [hook]}))
        assert caught.value.__cause__ is exc, name_of(kind)


async def test_a_redirect_to_nowhere_is_a_connection_error(library: ModuleType) -> None:
    """The library refuses an invalid URL, before the hooks of the user and after the transport."""
    transport = library.MockTransport(lambda _: library.Response(302, headers={"Location": "https://😇:x/"}))
    with pytest.raises(APIConnectionError):
        await _first_page(_client(library, transport))


class _Network:
    """A network backend of httpcore, and its streams: answers one request, and raises an exception at one of its calls."""

    def __init__(self, at: str, exc: Exception, *parts: bytes) -> None:
        self._at = at
        self._exc = exc
        self._parts = list(parts)

    def _call(self, name: str) -> None:
        if name == self._at:
            raise self._exc

    async def connect_tcp(self, *_: Any, **__: Any) -> Any:
        self._call("connect")
        return self

    async def start_tls(self, *_: Any, **__: Any) -> Any:
        self._call("start_tls")
        return self

    async def write(self, *_: Any, **__: Any) -> None:
        self._call("write")

    async def read(self, *_: Any, **__: Any) -> bytes:
        self._call(f"read {len(self._parts)}")
        return self._parts.pop(0)

    async def aclose(self) -> None:
        self._call("aclose")

    def get_extra_info(self, _: str) -> Any:
        return None


def _http1() -> list[bytes]:
    head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    return [head, BODY[:10], BODY[10:]]


def _http2() -> list[bytes]:
    head = HeadersFrame(1, Encoder().encode([(":status", "200")]), flags=["END_HEADERS"])
    frames = [head, DataFrame(1, BODY[:10]), DataFrame(1, BODY[10:], flags=["END_STREAM"])]
    return [SettingsFrame().serialize() + frames[0].serialize(), *(frame.serialize() for frame in frames[1:])]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("at", ["connect", "start_tls", "write", "read 3", "read 2", "read 1", "aclose"])
async def test_what_the_network_raises_is_a_connection_error(
    library: ModuleType, anyio_backend_name: str, at: str, version: int
) -> None:
    """Every exception of a network backend becomes an `APIConnectionError`; one of closing is ignored."""
    core = httpcore if library is httpx else httpcore2
    kinds = [core.ReadError, core.ReadTimeout, anyio.EndOfStream, anyio.ClosedResourceError, ssl.SSLError, OSError]
    kinds += [ProtocolError, StreamClosedError, KeyError, RuntimeError, ValueError]
    for kind in kinds[anyio_backend_name == "trio" :: 2]:
        transport = library.AsyncHTTPTransport(verify=NO_TRUST, http1=version == 1, http2=version == 2)
        parts = _http1() if version == 1 else _http2()
        transport._pool._network_backend = _Network(at, make(kind), *parts)
        client = _client(library, transport)
        async with AsyncCustomersAPI(TOKEN, base_url=URL, http_client=client, retry=ONCE) as api:
            if at == "aclose":
                assert len(await api.list("corp_1")) == 2
            else:
                with pytest.raises(APIConnectionError) as caught:
                    await api.list("corp_1")
                assert caught.value.attempts == 1, name_of(kind)
        with suppress(kind, library.NetworkError, library.TimeoutException):
            await client.aclose()


async def test_what_a_trace_function_of_the_user_raises_stays_as_it_is(library: ModuleType) -> None:
    """A hook may set a trace function. Its exceptions reach the caller unchanged."""
    exc = KeyError("mine")

    async def trace(_event: str, _info: Any) -> None:
        raise exc

    async def set_trace(request: Any) -> None:
        request.extensions["trace"] = trace

    transport = library.AsyncHTTPTransport(verify=NO_TRUST)
    transport._pool._network_backend = _Network("nowhere", exc, *_http1())
    with pytest.raises(KeyError) as caught:
        await _first_page(_client(library, transport, event_hooks={"request": [set_trace]}))
    assert caught.value is exc


async def test_an_endless_body_that_never_waits_is_left(library: ModuleType) -> None:
    """A body that is too large is not read to its end, even if its data never makes the reader wait."""

    class Endless(library.AsyncByteStream):  # type: ignore[name-defined, misc]
        def __aiter__(self) -> Self:
            return self

        async def __anext__(self) -> bytes:
            return b" " * 100_000

    transport = library.MockTransport(lambda _: library.Response(200, stream=Endless()))
    with pytest.raises(InvalidResponseError, match="larger than max_response_bytes"):
        await _first_page(_client(library, transport), max_response_bytes=1000)
