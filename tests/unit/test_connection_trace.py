"""The trace of a request whose transport is not httpcore's."""

import pytest

from commenda_customers._http.trace import ConnectionTrace

pytestmark = pytest.mark.anyio


async def test_a_connection_that_is_not_found_has_nothing_more() -> None:
    """A transport that is not httpcore may send the same events; then nothing is known about its connection."""
    trace = ConnectionTrace()
    assert not trace.got_too_much
    await trace("http11.send_request_headers.started", {})
    assert not trace.got_too_much
