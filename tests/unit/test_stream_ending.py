"""Failures that end a stream although it collects errors: a refused token, and one failure too many."""

from typing import Any

import anyio
import pytest

from commenda_customers import (
    AsyncCustomersAPI,
    AuthenticationError,
    Checkpoint,
    CustomerStream,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
    TokenError,
)
from commenda_customers.testing import Emulator
from emulated import connected
from lists import Lists, again, equal

pytestmark = pytest.mark.anyio

MANY = {f"c{number}": 20 for number in range(300)}


async def read(stream: CustomerStream, seen: list[str]) -> None:
    """Append to *seen* what the stream yields."""
    async with stream:
        async for customer in stream:
            seen.append(customer.id)


class TestTokens:
    """The token is everybody's."""

    async def test_a_provider_that_fails_ends_the_stream(self) -> None:
        """A token provider that does not recover fails no corporation after the other."""
        server, calls = Emulator(MANY), list[None]()

        async def provide() -> str:
            calls.append(None)
            raise ConnectionRefusedError("the identity provider is down")

        async with connected(server, token=provide) as api:
            with pytest.raises(TokenError) as caught:
                await read(api.stream(MANY, concurrency=4, errors="collect"), [])
        assert caught.value.checkpoint is not None
        assert len(calls) <= 4 * 8
        assert not server.requests

    @pytest.mark.parametrize("is_renewed", [False, True])
    async def test_a_revoked_token_ends_the_stream(self, is_renewed: bool) -> None:
        """A token that is revoked costs the requests that are in flight, and the loop gets the error with a checkpoint."""
        server, seen = Emulator(MANY), list[str]()

        async def provide() -> str:
            return "emulator-token"

        async with connected(server, token=provide if is_renewed else server.token) as api:
            stream = api.stream(MANY, concurrency=4, errors="collect", limit=10)
            with pytest.raises(AuthenticationError) as caught:
                async with stream:
                    async for customer in stream:
                        seen.append(customer.id)
                        if len(seen) == 200:
                            server.token = "another"
                            refused_from = len(server.requests)
            assert len(server.requests) - refused_from <= 4 * 2 * 2
            assert caught.value.corporation_id in stream.failures
            assert caught.value.checkpoint == stream.checkpoint()

            server.token = "emulator-token"
            async with api.stream(MANY, errors="collect", resume=again(stream.checkpoint())) as rest:
                seen += [customer.id async for customer in rest]
        assert sorted(seen) == sorted(row["id"] for name in MANY for row in server.customers(name))
        assert rest.failures == {}

    async def test_a_renewed_token_goes_on(self) -> None:
        """A token that a provider can renew is no failure."""
        server, calls = Emulator({"a": 30, "b": 30}), 0

        async def provide() -> str:
            nonlocal calls
            calls += 1
            return server.token

        async with connected(server, token=provide) as api, api.stream(["a", "b"], errors="collect", limit=10) as stream:
            async for _page in stream.pages():
                server.token = "second"
        assert (stream.progress.finished, stream.failures, calls) == (2, {}, 2)

    async def test_the_error_stays(self) -> None:
        """A loop that asks again gets the same error, and no page that was fetched meanwhile."""
        server = Emulator(MANY, token="another")
        async with connected(server, token="revoked") as api, api.stream(MANY, concurrency=3, errors="collect") as stream:
            errors = set[AuthenticationError]()
            for _ in range(3):
                with pytest.raises(AuthenticationError) as caught:
                    await anext(stream.pages())
                errors.add(caught.value)
                await anyio.sleep(10)
        assert len(errors) == 1
        assert len(server.requests) <= 3

    async def test_a_forbidden_corporation_fails_alone(self) -> None:
        """A 403 is about its corporation: the others are read."""
        lists = Lists(equal(20, 2))
        fetch = lists.fetch

        async def forbidding(query: Any, cursor: str | None) -> Any:
            if query.corporation_id.endswith("3"):
                raise PermissionDeniedError("no", corporation_id=query.corporation_id, cursor=cursor)
            return await fetch(query, cursor)

        lists.fetch = forbidding
        async with lists.stream(errors="collect") as stream:
            assert len([customer async for customer in stream]) == 18 * 4
        assert set(stream.failures) == {"c3", "c13"}


class TestMaxFailures:
    """`max_failures` of a stream."""

    @pytest.mark.parametrize("most", [0, 1, 5])
    @pytest.mark.parametrize("concurrency", [1, 4, 50])
    async def test_one_failure_too_many_ends_the_stream(self, most: int, concurrency: int) -> None:
        """So many corporations may fail; the error of the next one is raised, with the checkpoint of the stream."""
        lists, seen = Lists(equal(50, 2), failures={(f"c{number}", number % 2): 1 for number in range(10, 50)}), list[str]()
        stream = lists.stream(concurrency=concurrency, errors="collect", max_failures=most)
        with pytest.raises(ServerError) as caught:
            await read(stream, seen)
        assert len(stream.failures) == stream.progress.failed == most + 1
        assert list(stream.failures.values())[-1] is caught.value
        assert caught.value.checkpoint == stream.checkpoint()
        assert lists.in_flight == 0

        lists.failures.clear()
        await read(lists.stream(errors="collect", max_failures=0, resume=again(stream.checkpoint())), seen)
        assert sorted(seen) == sorted(row for _, row in lists.everyone())

    async def test_as_many_as_allowed_are_collected(self) -> None:
        """A stream with exactly as many failures as it may have ends as usual."""
        lists = Lists(equal(6, 4), failures={("c1", 2): 1, ("c4", 0): 1})
        async with lists.stream(errors="collect", max_failures=2) as stream:
            assert len([customer async for customer in stream]) == 4 * 8 + 4
        assert set(stream.failures) == {"c1", "c4"}

    async def test_a_failed_stream_asks_for_no_more(self) -> None:
        """What fails costs about as many requests as are in flight."""
        server = Emulator({})
        async with connected(server) as api:
            stream = api.stream((f"u{number}" for number in range(10_000)), concurrency=4, errors="collect", max_failures=10)
            with pytest.raises(NotFoundError):
                await read(stream, [])
        assert len(server.requests) <= 11 + 4

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"max_failures": -1}, ValueError, "max_failures: must be at least 0, got -1"),
            ({"max_failures": 1.5}, TypeError, "max_failures: expected int, got float"),
            ({"max_failures": True}, TypeError, "max_failures: expected a number, got bool"),
            ({"max_failures": "3"}, TypeError, "max_failures: expected a number, got str"),
            ({"max_failures": 3, "errors": "raise"}, ValueError, 'max_failures: needs errors="collect"'),
        ],
    )
    def test_it_is_checked_before_any_request(self, options: dict[str, Any], error: type[Exception], words: str) -> None:
        """A wrong `max_failures` is refused when the stream is made."""
        with pytest.raises(error, match=words):
            AsyncCustomersAPI("token-0").stream(["a"], **{"errors": "collect", **options})


async def test_the_checkpoint_may_be_saved_and_resumed_by_another_client() -> None:
    """The checkpoint of the error alone is enough to resume."""
    lists, seen = Lists(equal(8, 3), failures={("c2", 1): 1}), list[str]()
    with pytest.raises(ServerError) as caught:
        await read(lists.stream(errors="collect", max_failures=0), seen)
    saved = caught.value.checkpoint
    assert saved is not None
    await read(lists.stream(resume=Checkpoint.model_validate_json(saved.model_dump_json())), seen)
    assert sorted(seen) == sorted(row for _, row in lists.everyone())
