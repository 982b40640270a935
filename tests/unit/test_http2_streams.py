"""What the trace of a request does with an HTTP/2 stream, in cases that no server can cause reliably."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from commenda_customers import APIConnectionError
from commenda_customers._http.trace import ConnectionTrace

pytestmark = pytest.mark.anyio


class FakeConnection:
    """A connection as httpcore has it, with one open stream, which calls the trace as httpcore does."""

    def __init__(self, write: Callable[[], Any]) -> None:
        self.is_closed = False
        self.resets: list[int] = []
        self._write = write
        self._events: dict[int, list[Any]] = {}
        self._used_all_stream_ids = False
        self._read_incoming_data = write
        self._h2_state = SimpleNamespace(
            streams={1: SimpleNamespace(closed=False)},
            state_machine=SimpleNamespace(state=SimpleNamespace(name="CLIENT_OPEN")),
            reset_stream=lambda number, _code: self.resets.append(number),
        )

    async def send(self, trace: ConnectionTrace) -> None:
        await trace("http2.send_request_headers.started", {"stream_id": 1, "request": SimpleNamespace()})

    async def _write_outgoing_data(self, _request: Any) -> None:
        await self._write()

    async def aclose(self) -> None:
        self.is_closed = True


async def _nothing() -> None:
    pass


def _exception_of(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it raises
        call()
    return caught.value


async def test_a_cut_write_closes_the_connection() -> None:
    """If a cancellation interrupts a write, frames of other requests may be lost, so the connection is closed."""

    def write() -> None:
        raise KeyboardInterrupt

    connection, trace = FakeConnection(_nothing), ConnectionTrace()
    await connection.send(trace)
    await trace("http2.receive_response_headers.failed", {"exception": _exception_of(write)})
    await trace("http2.response_closed.started", {"stream_id": 1})
    assert connection.is_closed
    assert connection.resets == []


async def test_a_cut_read_resets_the_stream_alone() -> None:
    """If a cancellation interrupts anything else, the stream is reset, and the connection stays in use."""
    connection, trace = FakeConnection(_nothing), ConnectionTrace()
    await connection.send(trace)
    await trace("http2.receive_response_headers.failed", {"exception": KeyboardInterrupt()})
    await trace("http2.response_closed.started", {"stream_id": 1})
    assert connection.resets == [1]
    assert not connection.is_closed


async def test_a_server_that_does_not_read_is_left() -> None:
    """If the reset cannot be sent within a second, the connection is closed."""
    connection, trace = FakeConnection(anyio.sleep_forever), ConnectionTrace()
    await connection.send(trace)
    began = anyio.current_time()
    await trace("http2.response_closed.started", {"stream_id": 1})
    assert connection.is_closed
    assert anyio.current_time() - began == pytest.approx(1)


async def test_a_library_that_is_built_otherwise_is_left_alone() -> None:
    """If the connection cannot be found, nothing is reset, and the error of the request stays the same."""
    trace = ConnectionTrace()
    await trace("http2.send_request_headers.started", {"stream_id": 1, "request": SimpleNamespace()})
    await trace("http2.send_request_headers.failed", {"exception": ValueError()})
    await trace("http2.response_closed.started", {"stream_id": 1})
    assert trace.is_sendable


@pytest.mark.parametrize(("last_stream", "is_unprocessed"), [(0, True), (1, False), (None, False)])
async def test_what_was_not_processed(last_stream: int | None, is_unprocessed: bool) -> None:
    """A request is unprocessed if the server ends the connection with an error, and names an earlier stream as the last."""
    connection, trace = FakeConnection(_nothing), ConnectionTrace()
    await connection.send(trace)
    error = APIConnectionError("it broke", transient=True)
    error.__cause__ = Exception(SimpleNamespace(error_code=2, last_stream_id=last_stream))
    trace.describe(error, had_headers=False)
    assert error.is_unprocessed == is_unprocessed


async def test_a_closed_stream_is_not_reset() -> None:
    """A stream that has ended, or that h2 no longer knows, is not reset."""
    for streams in ({}, {1: SimpleNamespace(closed=True)}):
        connection, trace = FakeConnection(_nothing), ConnectionTrace()
        connection._h2_state.streams = streams
        await connection.send(trace)
        await trace("http2.response_closed.started", {"stream_id": 1})
        assert connection.resets == []
