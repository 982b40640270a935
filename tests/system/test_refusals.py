"""Refused tokens and refused cursors, over real HTTP."""

from typing import Any

import anyio
import pytest

from commenda_customers import AsyncCustomersAPI, AuthenticationError, Checkpoint, CursorRejectedError, NotFoundError
from commenda_customers.testing import Emulator, faults

pytestmark = pytest.mark.anyio


def held(server: Emulator) -> list[str]:
    """Return the ids that the server holds."""
    return sorted(row["id"] for name in server.corporations for row in server.customers(name))


@pytest.mark.parametrize("is_provided", [False, True])
async def test_a_revoked_token_ends_a_stream_of_many_corporations(is_provided: bool) -> None:
    """A token that is revoked ends the stream after the requests in flight, and the stream resumes with a good token."""
    sizes, seen = {f"corp_{number}": 30 for number in range(200)}, list[str]()
    async with Emulator(sizes) as server:
        good, refused_from = server.token, 0

        async def provide() -> str:
            return good

        async with AsyncCustomersAPI(provide if is_provided else good, base_url=server.base_url) as api:
            with pytest.raises(AuthenticationError) as caught:
                async with api.stream(sizes, concurrency=8, limit=10, errors="collect") as stream:
                    async for customer in stream:
                        seen.append(customer.id)
                        if len(seen) == 300:
                            server.token = "another"
                            refused_from = len(server.requests)
            # Each of 8 workers may send the old token and a new one, and both once more after a wait.
            refused = [request.status for request in server.requests[refused_from:]].count(401)
            assert 1 <= refused <= 4 * 8
            assert stream.progress.finished < 100

            server.token = good
            async with api.stream(sizes, errors="collect", resume=caught.value.checkpoint) as rest:
                seen += [customer.id async for customer in rest]
        assert sorted(seen) == held(server)
        assert rest.failures == {}


async def test_too_many_failures_end_a_stream() -> None:
    """A stream ends with the error of the first corporation that is one too many, and does not ask for the others."""
    sizes = {f"corp_{number}": 10 for number in range(20)}
    async with Emulator(sizes) as server, AsyncCustomersAPI(server.token, base_url=server.base_url) as api:
        ids = [*sizes, *(f"unknown_{number}" for number in range(1000))]
        stream = api.stream(ids, concurrency=4, errors="collect", max_failures=2)
        with pytest.raises(NotFoundError) as caught:
            async with stream:
                [customer async for customer in stream]
        assert len(stream.failures) == 3
        assert list(stream.failures.values())[-1] is caught.value
        assert stream.progress.finished >= 17  # all but those that were still in flight
        assert len(server.requests) <= 20 + 3 + 4


async def test_expired_cursors_are_named_and_the_job_can_be_finished() -> None:
    """A cursor that a slow program has let expire is an error with its age; the job ends when these lists are restarted."""
    sizes: dict[str, Any] = {f"corp_{number}": 40 for number in range(3)}
    expiry = faults.ExpiredCursor(after=2, status=410)
    found = dict[str, str]()
    async with Emulator(sizes, faults=[expiry]) as server, AsyncCustomersAPI(server.token, base_url=server.base_url) as api:
        async with api.stream(sizes, limit=20, errors="collect") as stream:
            async for page in stream.pages():
                found.update((customer.id, customer.corporation_id) for customer in page)
                await anyio.sleep(2.2 if len(found) == 20 else 0)
        assert stream.failures
        resume = Checkpoint.model_validate_json(stream.checkpoint().model_dump_json())
        for corporation_id, error in stream.failures.items():
            assert isinstance(error, CursorRejectedError)
            assert error.cursor_age is not None
            assert error.cursor_age > 2
            resume = resume.without(corporation_id)
        async with api.stream(sizes, resume=resume) as rest:
            found.update([(customer.id, customer.corporation_id) async for customer in rest])
    assert sorted(found) == held(server)
