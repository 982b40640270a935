"""The trace of a request whose transport is not httpcore's."""

import pytest

from commenda_customers._http.trace import ConnectionTrace

pytestmark = pytest.mark.anyio


async def test_a_connection_that_is_not_found_is_left_alone() -> None:
    """A transport that is not httpcore may send the same events; then nothing is known about its connection."""
    trace = ConnectionTrace()
    await trace("http11.send_request_headers.started", {})
    await trace("http11.response_closed.started", {})
