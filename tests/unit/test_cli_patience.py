"""How long a command waits for a server that does not respond, in virtual time."""

import anyio
import httpx
import pytest

from commenda_customers import APITimeoutError, RetryPolicy
from commenda_customers.cli._options import FirstResponse
from script import GOOD, Answer, Script, hang, status

pytestmark = pytest.mark.anyio


async def read(script: Script, seconds: float) -> list[str]:
    """Return the ids of all customers that come, if the server responds in so many *seconds*."""
    first_response = FirstResponse(seconds)
    async with script.api(hooks=[first_response], retry=RetryPolicy(max_attempts=None)) as api:

        async def work() -> list[str]:
            return [customer.id async for customer in api.list("corp_1")]

        return await first_response.limit(api, work)


async def test_a_silent_server() -> None:
    """Without a response the work ends after exactly that time, with an error that says so."""
    with pytest.raises(
        APITimeoutError, match="no response from https://api.example/v1 within 10 s; to wait longer: --deadline"
    ):
        await read(Script(hang), 10)
    assert anyio.current_time() == 10


async def test_a_server_that_cannot_be_reached() -> None:
    """The error has the reason of the last attempt."""
    script = Script(*[httpx.ConnectError("refused")] * 100)
    with pytest.raises(
        APITimeoutError, match="within 10 s; before that: the connection to api.example failed: refused"
    ) as caught:
        await read(script, 10)
    assert anyio.current_time() == 10
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("response", [status(429, Retry_After="60"), status(503)], ids=["429", "503"])
async def test_any_response_ends_the_limit(response: Answer) -> None:
    """After a response, even a refusal, only the retry policy limits the time."""

    async def late(_request: httpx.Request) -> httpx.Response:
        await anyio.sleep(25)
        return GOOD

    assert await read(Script(response, late), 10) == ["a"]
    assert anyio.current_time() > 25
