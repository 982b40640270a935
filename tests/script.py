"""A server in memory that sends responses from a list."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx

from commenda_customers import AsyncCustomersAPI
from raw_server import listing

URL = "https://api.example/v1"
GOOD = httpx.Response(200, json=listing("a"))


Answer = httpx.Response | Exception | Callable[[httpx.Request], Awaitable[httpx.Response]]


class Script:
    """Answers requests from a list, and fails loudly at one too many."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.tokens: list[str] = []
        self.times: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.tokens.append(request.headers["Authorization"])
        self.times.append(anyio.current_time())
        assert self.answers, f"unexpected request: {request.url}"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        return await answer(request)

    def api(self, **options: Any) -> AsyncCustomersAPI:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return AsyncCustomersAPI(**{"token": "test-token", "base_url": URL, "http_client": client, **options})


async def hang(_request: httpx.Request) -> httpx.Response:
    """Never answer."""
    await anyio.sleep_forever()
    raise AssertionError


async def drip(_request: httpx.Request) -> httpx.Response:
    """Send a byte a second, for ever."""

    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                await anyio.sleep(1)
                yield b" "

    return httpx.Response(200, stream=Drip())


async def brotli(_request: httpx.Request) -> httpx.Response:
    """Answer in an encoding that was not requested."""
    return httpx.Response(200, headers={"Content-Encoding": "br"}, stream=httpx.ByteStream(b"x"))


def status(code: int, **headers: str) -> httpx.Response:
    """Return an error response; underscores in header names stand for hyphens."""
    return httpx.Response(code, headers={name.replace("_", "-"): value for name, value in headers.items()}, text="why")
