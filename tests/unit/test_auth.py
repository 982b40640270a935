"""The token over its life: given, provided, renewed, refused."""

import anyio
import httpx
import pytest

from commenda_customers import (
    AsyncCustomersAPI,
    AuthenticationError,
    Event,
    FixedRate,
    RateLimitError,
    RequestFailed,
)
from raw_server import listing
from script import GOOD, Script, status

pytestmark = pytest.mark.anyio


async def _first_page(api: AsyncCustomersAPI) -> None:
    assert len(await api.list("corp_1")) == 1


class TestTokens:
    """Who is asking, over the life of a token."""

    async def test_a_provider_is_asked_again_after_a_401(self) -> None:
        """The provider is asked once, and the page is requested again, when the token expires in the middle of a list."""
        first, second = (
            httpx.Response(200, json=listing(name, cursor=cursor)) for name, cursor in (("a", "1"), ("b", None))
        )
        script = Script(first, status(401), second)
        tokens = iter(["first-token", "second-token"])

        async def provide() -> str:
            return next(tokens)

        async with script.api(token=provide) as api:
            assert [customer.id async for customer in api.list("corp_1")] == ["a", "b"]
        assert script.tokens == ["Bearer first-token", "Bearer first-token", "Bearer second-token"]
        assert script.times[2] == script.times[1]

    async def test_a_new_token_that_is_refused_twice_is_final(self) -> None:
        """A page whose new token is refused gets one more attempt, with backoff, and then fails."""
        script, calls = Script(*[status(401)] * 4), 0

        async def provide() -> str:
            nonlocal calls
            calls += 1
            return f"token-{calls}"

        async with script.api(token=provide) as api:
            with pytest.raises(AuthenticationError) as caught:
                await api.list("corp_1")
        assert script.tokens == [f"Bearer token-{number}" for number in (1, 2, 2, 3)]
        assert script.times[0] == script.times[1] < script.times[2] == script.times[3]
        assert (caught.value.attempts, caught.value.transient) == (2, False)

    async def test_a_new_token_may_not_be_known_yet(self) -> None:
        """A server that accepts a new token only after a moment costs one retry."""
        script, tokens, events = Script(status(401), status(401), GOOD), iter(["old-token", "new-token"]), list[Event]()

        async def provide() -> str:
            return next(tokens)

        async with script.api(token=provide, hooks=[events.append]) as api:
            await _first_page(api)
        assert script.tokens == ["Bearer old-token", "Bearer new-token", "Bearer new-token"]
        failed = [event.error.transient for event in events if isinstance(event, RequestFailed)]
        assert failed == [False, True]

    async def test_a_fixed_token_is_refused_once(self) -> None:
        """A token that nobody can renew is not sent again after a 401."""
        script = Script(status(401))
        async with script.api() as api:
            with pytest.raises(AuthenticationError):
                await api.list("corp_1")
        assert len(script.requests) == 1

    async def test_many_requests_share_one_call_of_the_provider(self) -> None:
        """However many requests wait for a token, or were refused with the old one, the provider is called once."""
        calls = 0

        async def provide() -> str:
            nonlocal calls
            calls += 1
            await anyio.sleep(5)
            return f"token-{calls}"

        async def server(request: httpx.Request) -> httpx.Response:
            await anyio.sleep(1)
            good = request.headers["Authorization"] == "Bearer token-2"
            return httpx.Response(200, json=listing("a")) if good else status(401)

        script = Script(*[server] * 40)
        async with script.api(token=provide) as api, anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(_first_page, api)
        assert calls == 2

    async def test_a_late_401_does_not_call_the_provider(self) -> None:
        """A request that is refused after another has renewed the token is sent with that one."""
        tokens = iter(["old-token", "new-token"])

        async def provide() -> str:
            return next(tokens)

        async def slow(_request: httpx.Request) -> httpx.Response:
            await anyio.sleep(5)
            return status(401)

        script = Script(slow, status(401), GOOD, GOOD)
        async with script.api(token=provide) as api, anyio.create_task_group() as tasks:
            tasks.start_soon(_first_page, api)
            tasks.start_soon(_first_page, api)
        assert script.tokens == [f"Bearer {age}-token" for age in ("old", "old", "new", "new")]

    async def test_a_provider_that_is_cancelled_hands_over(self) -> None:
        """Another waiter asks the provider when the request that was asking it is cancelled."""
        calls = 0

        async def provide() -> str:
            nonlocal calls
            calls += 1
            await anyio.sleep(5)
            return "good-token"

        script = Script(GOOD)
        async with script.api(token=provide) as api, anyio.create_task_group() as tasks:
            with anyio.move_on_after(2):
                tasks.start_soon(self._later, api)
                await api.list("corp_1")
        assert calls == 2
        assert script.tokens == ["Bearer good-token"]

    @staticmethod
    async def _later(api: AsyncCustomersAPI) -> None:
        await anyio.sleep(1)
        await _first_page(api)

    async def test_a_page_may_renew_its_token_twice(self) -> None:
        """A token that expires twice while one page is being fetched is renewed twice."""
        script = Script(status(401), status(503), status(401), GOOD)
        tokens = iter(["token-1", "token-2", "token-3"])

        async def provide() -> str:
            return next(tokens)

        async with script.api(token=provide) as api:
            await _first_page(api)
        assert script.tokens == [f"Bearer token-{number}" for number in (1, 2, 2, 3)]

    async def test_a_provider_that_is_no_async_function(self) -> None:
        """A provider that is no async function is a TypeError that says what is wanted."""

        def provide() -> str:
            return "s3cr3t"

        async with Script().api(token=provide) as api:
            with pytest.raises(TypeError, match="token: the provider must be an async function"):
                await api.list("corp_1")

    async def test_attempts_count_what_was_sent(self) -> None:
        """The attempt that was refused counts, even if the limiter does not allow the one with the new token in time."""

        async def provide() -> str:
            return f"token-{len(script.requests)}"

        script = Script(status(401))
        async with script.api(token=provide, rate_limit=FixedRate(1, per=60)) as api:
            with pytest.raises(RateLimitError) as caught:
                await api.list("corp_1", max_wait=5)
        assert (caught.value.attempts, len(script.requests)) == (1, 1)

    async def test_the_token_of_a_provider_is_checked(self) -> None:
        """The token of a provider is checked like any token."""

        async def provide() -> str:
            return "line\nbreak"

        async with Script().api(token=provide) as api:
            with pytest.raises(ValueError, match="token: the one from the provider contains a blank or") as caught:
                await api.list("corp_1")
        assert "break" not in str(caught.value)
