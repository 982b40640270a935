"""HTTP clients that users bring: their auth, hooks, headers and subclasses."""

import httpx
import httpx2
import pytest

from commenda_customers import AsyncCustomersAPI, BadRequestError
from raw_server import TOKEN, RawServer, listing, ok

GOOD = ok(listing("a"))


@pytest.mark.anyio
class TestUsersClient:
    """What a user's client may bring along."""

    async def test_its_auth_does_not_replace_the_token(self, raw_server: RawServer) -> None:
        """The API gets our token, whatever auth the user's client has."""
        raw_server.behave(raw_server.answers(GOOD))
        async with (
            httpx.AsyncClient(auth=("user", "pass"), headers={"Authorization": "Bearer other", "X-Team": "tax"}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            await api.list("corp_1")
        head = raw_server.requests[0].decode()
        assert head.lower().count("authorization:") == 1
        assert f"Bearer {TOKEN}" in head
        assert "X-Team: tax" in head

    async def test_its_hooks_may_read_the_answer(self, raw_server: RawServer) -> None:
        """A hook that reads the body does not take it away."""
        raw_server.behave(raw_server.answers(GOOD))
        bodies: list[bytes] = []

        async def log(response: httpx.Response) -> None:
            bodies.append(await response.aread())

        async with (
            httpx.AsyncClient(event_hooks={"response": [log]}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            assert len(await api.list("corp_1")) == 1
        assert len(bodies) == 1

    @pytest.mark.parametrize("reads", [True, False])
    async def test_its_hooks_may_raise_for_the_status(self, raw_server: RawServer, reads: bool) -> None:
        """A hook that raises for an error status does not hide which error it was."""
        raw_server.behave(raw_server.answers(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nwhy"))

        async def check(response: httpx.Response) -> None:
            if reads:
                await response.aread()
            response.raise_for_status()

        async with (
            httpx.AsyncClient(event_hooks={"response": [check]}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            with pytest.raises(BadRequestError) as caught:
                await api.list("corp_1")
        assert caught.value.body_excerpt == ("why" if reads else None)

    async def test_an_error_of_its_hooks_stays_its_own(self, raw_server: RawServer) -> None:
        """A hook's status error about another request is not taken for the API's response."""
        elsewhere = httpx.Response(404, request=httpx.Request("GET", "https://vault.example/"))

        async def ask_the_vault(_request: httpx.Request) -> None:
            elsewhere.raise_for_status()

        async with (
            httpx.AsyncClient(event_hooks={"request": [ask_the_vault]}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            with pytest.raises(httpx.HTTPStatusError, match=r"vault\.example"):
                await api.list("corp_1")

    async def test_its_hooks_may_change_the_request(self, raw_server: RawServer) -> None:
        """A hook may change the request, even its authorization."""
        raw_server.behave(raw_server.answers(GOOD))

        async def sign(request: httpx.Request) -> None:
            del request.headers["Authorization"]
            request.headers["X-Signed-By-Proxy"] = "yes"

        async with (
            httpx.AsyncClient(event_hooks={"request": [sign]}) as client,
            AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
        ):
            assert len(await api.list("corp_1")) == 1
        assert b"X-Signed-By-Proxy: yes" in raw_server.requests[0]

    async def test_its_subclasses_work(self, raw_server: RawServer) -> None:
        """A client of a class that the user derived is taken for what it is."""

        class Traced(httpx2.AsyncClient):
            pass

        raw_server.behave(raw_server.answers(GOOD))
        async with Traced() as client, AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api:
            assert len(await api.list("corp_1")) == 1
