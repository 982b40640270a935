"""One page over a transport in memory: what is sent, and what is read of the response."""

import gc
from typing import Any

import anyio
import httpx
import pytest
import respx

from commenda_customers import (
    APIStatusError,
    AsyncCustomersAPI,
    InvalidResponseError,
    RetryPolicy,
)
from raw_server import listing
from script import GOOD, URL, Script, status

pytestmark = pytest.mark.anyio


async def test_the_request_is_as_the_page_documents() -> None:
    """One GET to {base}/customers, with the token, all parameters as the API page writes them, and gzip at the most."""
    with respx.mock(base_url=URL) as router:
        route = router.get("/customers").mock(return_value=GOOD)
        async with (
            httpx.AsyncClient() as client,
            AsyncCustomersAPI("test-token", base_url=f"{URL}/", http_client=client) as api,
        ):
            await api.list(
                "corp_1",
                limit=20,
                cursor="c/+=&?",
                name="Müller & Söhne",
                search_term="acme",
                source_platforms=["SHOPIFY", "XERO"],
                source_platform_ids=["shopify-1", "xero-2"],
                extend=["shipping_address", "exemption_metadata"],
                certificate_types=["SINGLE_STATE", "BLANKET"],
                exemption_jurisdiction="US_CA",
                expiration_status="ACTIVE",
                exemption_status="INACTIVE",
                has_exemption=False,
            )
    request = route.calls.last.request
    assert request.headers["Accept-Encoding"] == "gzip"
    assert request.headers["Accept"] == "application/json"
    assert dict(request.url.params.multi_items()) == {
        "corporation_id": "corp_1",
        "limit": "20",
        "cursor": "c/+=&?",
        "name": "Müller & Söhne",
        "search_term": "acme",
        "source_platforms": "SHOPIFY,XERO",
        "source_platform_ids": "shopify-1,xero-2",
        "extend": "shipping_address,exemption_metadata",
        "certificate_types": "SINGLE_STATE,BLANKET",
        "exemption_jurisdiction": "US_CA",
        "expiration_status": "ACTIVE",
        "exemption_status": "INACTIVE",
        "has_exemption": "false",
    }


async def test_filters_and_limit_go_with_every_page() -> None:
    """Each page is requested with the same filters and the same limit."""
    script = Script(httpx.Response(200, json=listing("a", cursor="1")), httpx.Response(200, json=listing("b")))
    async with script.api() as api:
        assert [customer.id async for customer in api.list("corp_1", limit=7, search_term="x")] == ["a", "b"]
    first, second = (dict(request.url.params) for request in script.requests)
    assert second == {**first, "cursor": "1"}
    assert first == {"corporation_id": "corp_1", "limit": "7", "search_term": "x"}


async def test_errors_of_an_iteration_name_the_cursor() -> None:
    """An error in the middle of a list comes after all customers before it, and names the cursor to resume from."""
    script = Script(httpx.Response(200, json=listing("a", cursor="1")), status(404, x_request_id="r-7"))
    seen: list[str] = []
    async with script.api() as api:
        with pytest.raises(
            APIStatusError, match=r"\[corporation 'corp_1', cursor '1', after 1 attempt, request id 'r-7'\]"
        ) as caught:
            async for customer in api.list("corp_1"):
                seen.append(customer.id)
    assert seen == ["a"]
    assert caught.value.cursor == "1"
    assert caught.value.body_excerpt == "why"


class TestForeignCustomers:
    """An answer with a customer of another corporation."""

    FOREIGN = httpx.Response(200, headers={"X-Request-Id": "req-1"}, json=listing("x", corporation_id="corp_2"))

    async def test_one_is_retried(self) -> None:
        """One such response is thrown away, and the page is requested again."""
        script = Script(self.FOREIGN, GOOD)
        async with script.api() as api:
            assert [customer.id async for customer in api.list("corp_1")] == ["a"]

    async def test_two_are_an_error(self) -> None:
        """A second such response is an error that names the response and the foreign corporation; nothing was yielded."""
        script = Script(self.FOREIGN, status(503), self.FOREIGN)
        seen: list[str] = []
        async with script.api() as api:
            with pytest.raises(InvalidResponseError, match="customer of another corporation, 'corp_2'") as caught:
                async for customer in api.list("corp_1"):
                    seen.append(customer.id)
        assert seen == []
        assert (caught.value.attempts, caught.value.status_code, caught.value.request_id) == (3, 200, "req-1")


# The garbage collector has to end a generator of the user that keeps yielding after it was closed, and trio warns of each.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_an_endless_body_in_memory_is_abandoned() -> None:
    """A body that is too large is abandoned, even where there is no connection to close."""

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield bytes(100_000)

    script = Script(httpx.Response(200, stream=Endless()))
    async with script.api(max_response_bytes=1000) as api:
        with pytest.raises(InvalidResponseError, match="larger than max_response_bytes, 1,000 bytes"):
            await api.list("corp_1")
    gc.collect()


async def test_a_large_body_that_hangs_is_abandoned() -> None:
    """A body that is too large, and then hangs, does not delay the error."""

    class TooMuchThenNothing(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield bytes(100_000)
            await anyio.sleep_forever()

    script = Script(httpx.Response(200, stream=TooMuchThenNothing()))
    async with script.api(max_response_bytes=1000, timeout=None) as api:
        began = anyio.current_time()
        with pytest.raises(InvalidResponseError, match="larger than max_response_bytes"):
            await api.list("corp_1")
        assert anyio.current_time() - began < 1


async def test_an_error_that_the_caller_handles_keeps_its_traceback() -> None:
    """An error of a request has no tracebacks of its causes. An exception that the caller was handling keeps its own."""
    handled: list[BaseException] = []
    behind: list[BaseException | None] = []
    async with Script(status(400), httpx.ConnectError("gone"), status(400)).api(retry=RetryPolicy(max_attempts=2)) as api:
        for _ in range(2):
            try:
                {}["not in the cache"]
            except KeyError as exc:
                handled.append(exc)
                with pytest.raises(APIStatusError) as caught:
                    await api.list("corp_1")
                behind.append(caught.value.__context__)
    assert behind == handled
    assert all(exc.__traceback__ is not None for exc in handled)
