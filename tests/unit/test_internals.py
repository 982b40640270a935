"""The private names of httpx, httpcore and h2 that `_http` uses: a new version may differ."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import h2
import h11
import hpack
import httpcore
import httpcore2
import httpx
import httpx2
import pytest
from hpack import Encoder
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, SettingsFrame

from commenda_customers._http.http1 import H1Connection
from commenda_customers._http.http2 import Ending, H2Stream, is_of_ended_connection
from commenda_customers._http.internals import POOL_NAME, frames_of, is_of_trace
from commenda_customers._http.logs import _LOGGERS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("core", [httpcore, httpcore2], ids=["httpcore", "httpcore2"]),
]

HTTP1 = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
SETTINGS = SettingsFrame().serialize()
HEAD = HeadersFrame(1, Encoder().encode([(":status", "200")]), flags=["END_HEADERS"]).serialize()
END = DataFrame(1, b"hi", flags=["END_STREAM"]).serialize()


async def _send(core: ModuleType, parts: list[bytes], trace: Any) -> None:
    """Send a request through a real connection to a server in memory."""
    is_h2 = parts[0].startswith(SETTINGS)
    backend = core.AsyncMockBackend(parts, http2=is_h2)
    async with core.AsyncConnectionPool(network_backend=backend, http1=not is_h2, http2=is_h2) as pool:
        await pool.request("GET", "https://api.test/", extensions={"trace": trace})


@pytest.mark.parametrize(("sent", "has_extra_data"), [(HTTP1, False), (HTTP1 + HTTP1, True)])
async def test_a_response_too_many_is_seen(core: ModuleType, sent: bytes, has_extra_data: bool) -> None:
    """The connection of HTTP/1.1 is found, and bytes after the response are seen."""
    found: list[Any] = []

    async def trace(event: str, _info: Any) -> None:
        if event == "http11.send_request_headers.started":
            found.append(H1Connection.of_caller())
        if event == "http11.response_closed.started":
            found.append(found[0].has_extra_data)

    await _send(core, [sent], trace)
    assert found[1] is has_extra_data


async def test_a_response_too_many_is_seen_in_what_opened_the_connection(core: ModuleType) -> None:
    """A response too many is also seen without a trace, from outside of the connection."""
    url = core.URL("http://api.test/")
    for sent, has_extra_data in ((HTTP1, False), (HTTP1 + HTTP1, True)):
        opener = core.AsyncHTTPConnection(url.origin, network_backend=core.AsyncMockBackend([sent]))
        assert H1Connection.inside(opener) is None  # it is not open
        response = await opener.handle_async_request(core.Request("GET", url, headers={"Host": "api.test"}))
        await response.aread()
        await response.aclose()
        inside = H1Connection.inside(opener)
        assert inside is not None
        assert inside.has_extra_data is has_extra_data
        assert H1Connection.inside(inside.connection) == inside
        await opener.aclose()


async def test_a_transport_has_a_pool_that_can_be_replaced(core: ModuleType) -> None:
    """The transports of httpx and httpx2 hold their connections in the attribute that the SDK replaces."""
    library = httpx if core is httpcore else httpx2
    async with library.AsyncHTTPTransport() as transport:
        assert isinstance(getattr(transport, POOL_NAME), core.AsyncConnectionPool)


async def test_a_stream_is_found_and_reset(core: ModuleType) -> None:
    """The connection of HTTP/2 is found, with all that it takes to reset a stream."""
    streams: list[H2Stream] = []

    async def trace(event: str, info: Any) -> None:
        if event == "http2.send_request_headers.started":
            stream = H2Stream.of(info)
            assert stream is not None
            streams.append(stream)
        if event == "http2.receive_response_headers.complete":
            assert streams[0].has_unsendable_headers  # it is open
            assert not streams[0].is_connection_closed
            await streams[0].end(is_damaged=False)
            assert streams[0].connection._h2_state.streams[1].closed

    with pytest.raises(core.RemoteProtocolError):  # there is no more of a stream that was reset
        await _send(core, [SETTINGS, HEAD, b""], trace)
    assert streams[0].number == 1


async def test_silence_retires_a_connection(core: ModuleType) -> None:
    """After two requests without a response, the connection accepts no more."""

    async def trace(event: str, info: Any) -> None:
        if event == "http2.send_request_headers.started":
            stream = H2Stream.of(info)
            assert stream is not None
            assert stream.connection.is_available()
            for _ in range(2):
                stream.note_timeout()
            assert not stream.connection.is_available()

    await _send(core, [SETTINGS, HEAD, END], trace)


async def test_an_ending_is_understood(core: ModuleType) -> None:
    """Errors of httpcore hold the event of h2, or the text of h2 about a connection that has ended."""
    goaway = GoAwayFrame(last_stream_id=0, error_code=11).serialize()
    for parts, ending in [([SETTINGS + goaway], Ending(11, 0)), ([SETTINGS + goaway + HEAD], None)]:
        with pytest.raises(core.ProtocolError) as caught:
            await _send(core, parts, _nothing)
        assert Ending.of(caught.value) == ending
        assert is_of_ended_connection(caught.value) is (ending is None)


async def test_what_a_trace_function_raises_is_known(core: ModuleType) -> None:
    """The exception of a trace function comes through the function that calls it."""

    async def trace(_event: str, _info: Any) -> None:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        await _send(core, [HTTP1], trace)
    assert is_of_trace(frames_of(caught.tb))


async def _nothing(_event: str, _info: Any) -> None:
    pass


def test_every_logger_is_filtered(core: ModuleType) -> None:
    """The token filter is on every logger that the libraries use."""
    for library in (core, httpx if core is httpcore else httpx2, h11, h2, hpack):
        for file in Path(str(library.__file__)).parent.rglob("*.py"):
            module = ".".join(
                [library.__name__, *file.relative_to(Path(str(library.__file__)).parent).with_suffix("").parts]
            )
            for name in re.findall(r"getLogger\((.*?)\)", file.read_text(encoding="utf-8")):
                assert (module if name == "__name__" else name.strip("\"'")) in _LOGGERS, file
