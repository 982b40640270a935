"""Cursors that the server refuses because they are old."""

from typing import Any

import anyio
import pytest

from commenda_customers import BadRequestError, CursorRejectedError, NotFoundError
from commenda_customers.testing import Emulator, faults
from emulated import ask, connected
from lists import again
from script import Script, status

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("code", [400, 410, 422])
async def test_a_refused_cursor_has_its_own_error(code: int) -> None:
    """A refused cursor is not retried; the error names it and says how old it was."""
    server = Emulator({"c": 100}, faults=[faults.ExpiredCursor(after=300, status=code)])
    async with connected(server) as api:
        pages = api.list("c", limit=10).pages()
        for _ in range(3):
            page = await anext(pages)
            await anyio.sleep(299)
        await anext(pages)
        await anyio.sleep(312.25)
        with pytest.raises(CursorRejectedError, match=r"given 312\.\d s ago.*after 1 attempt") as caught:
            await anext(pages)
    error = caught.value
    assert error.cursor_age == pytest.approx(312.25, abs=0.01)
    assert (error.status_code, error.transient, error.attempts) == (code, False, 1)
    assert error.cursor != page.cursor
    assert "the cursor has expired" in (error.body_excerpt or "")
    assert error.checkpoint is not None
    assert error.checkpoint.positions[0].customers == 40


async def test_waits_and_retries_age_a_cursor() -> None:
    """The age counts until the refusal, so it includes retries."""
    trouble = [faults.Status(at=[2], headers={"Retry-After": "100"}), faults.ExpiredCursor(after=60)]
    async with connected(Emulator({"c": 100}, faults=trouble)) as api:
        with pytest.raises(CursorRejectedError) as caught:
            [customer async for customer in api.list("c", limit=10)]
    assert caught.value.cursor_age is not None
    assert 100 <= caught.value.cursor_age < 101
    assert caught.value.attempts == 2


async def test_a_cursor_from_elsewhere_has_no_age() -> None:
    """The age of a cursor that another run or the program has given is not known. The next cursor has one."""
    async with connected(Emulator({"c": 100}, faults=[faults.ExpiredCursor(after=60)])) as api:
        iteration = aiter(api.list("c", limit=10))
        for _ in range(15):
            await anext(iteration)
        checkpoint = again(iteration.checkpoint())
        cursor = checkpoint.positions[0].cursor
        resumed = api.list("c", limit=10, resume=checkpoint).pages()
        await anext(resumed)
        await anyio.sleep(61)
        for options in ({"resume": checkpoint}, {"cursor": cursor}):
            with pytest.raises(CursorRejectedError) as caught:
                await api.list("c", limit=10, **options)  # type: ignore[arg-type]  # one of each
            assert caught.value.cursor == cursor
            assert caught.value.cursor_age is None
            assert "ago" not in str(caught.value)
        with pytest.raises(CursorRejectedError, match=r"given 61\.0 s ago"):
            await anext(resumed)


@pytest.mark.parametrize("code", [400, 410, 422])
async def test_without_a_cursor_it_is_another_error(code: int) -> None:
    """The first page has no cursor that could be refused; a 404 is about the corporation."""
    async with Script(status(code), status(404)).api() as api:
        with pytest.raises(BadRequestError if code == 400 else Exception, match=f"answered {code}") as caught:
            await api.list("corp_1")
        assert not isinstance(caught.value, CursorRejectedError)
        with pytest.raises(NotFoundError):
            await api.list("corp_1", cursor="abc")


@pytest.mark.parametrize(("concurrency", "limit", "is_refused"), [(8, 100, True), (2, 100, False), (8, 20, False)])
async def test_concurrency_times_work_makes_cursors_old(concurrency: int, limit: int, is_refused: bool) -> None:
    """In a stream a cursor waits for the work on a page of each corporation: fewer corporations or smaller pages help."""
    sizes = {f"c{number}": 300 for number in range(8)}
    async with connected(Emulator(sizes, faults=[faults.ExpiredCursor(after=300)])) as api:
        stream = api.stream(sizes, concurrency=concurrency, limit=limit, errors="collect")
        async with stream:
            async for page in stream.pages():
                await anyio.sleep(len(page) * 0.5)
    assert bool(stream.failures) is is_refused
    for error in stream.failures.values():
        assert isinstance(error, CursorRejectedError)
        assert error.cursor_age is not None
        assert 300 < error.cursor_age <= 8 * 50 + 1


async def test_a_stream_resumes_after_expired_cursors() -> None:
    """
    A checkpoint has cursors that are older still, so they are refused again. `without` restarts these corporations; the
    others resume.
    """
    sizes = {f"c{number}": 50 for number in range(4)}
    server, seen = Emulator(sizes, faults=[faults.ExpiredCursor(after=60)]), dict[str, Any]()
    async with connected(server) as api:
        async with api.stream(sizes, concurrency=2, limit=10, errors="collect") as stream:
            async for page in stream.pages():
                seen.update((customer.id, customer) for customer in page)
                await anyio.sleep(100 if len(seen) == 60 else 0)
        assert len(stream.failures) == 2

        async with api.stream(sizes, errors="collect", resume=again(stream.checkpoint())) as again_refused:
            assert [page async for page in again_refused.pages()] == []
        assert again_refused.failures.keys() == stream.failures.keys()

        resume = again_refused.checkpoint()
        for corporation_id, error in again_refused.failures.items():
            assert isinstance(error, CursorRejectedError)
            resume = resume.without(corporation_id)
        async with api.stream(sizes, resume=again(resume)) as rest:
            seen.update([(customer.id, customer) async for customer in rest])
        assert rest.progress.customers == 2 * 50
    assert seen.keys() == {row["id"] for name in sizes for row in server.customers(name)}


async def test_a_list_that_stopped_on_its_first_page_resumes() -> None:
    """The first page has no cursor, so a list that stopped there resumes after any time."""
    async with connected(Emulator({"c": 30}, faults=[faults.ExpiredCursor(after=60)])) as api:
        iteration = aiter(api.list("c", limit=10))
        seen = [(await anext(iteration)).id for _ in range(10)]
        await anyio.sleep(61)
        with pytest.raises(CursorRejectedError) as caught:
            await anext(iteration)
        seen += [customer.id async for customer in api.list("c", limit=10, resume=caught.value.checkpoint)]
    assert len(seen) == len(set(seen)) == 30


class TestFault:
    """`faults.ExpiredCursor`, without the client."""

    async def test_a_page_that_is_asked_for_again_gives_a_fresh_cursor(self) -> None:
        """A cursor is as old as the last page that gave it; requests without a cursor are always served."""
        asker = ask(faults=[faults.ExpiredCursor(after=10)])
        cursor = (await asker.data())["cursor"]
        await anyio.sleep(10)
        await asker.data(cursor=cursor)
        await anyio.sleep(1)
        refused = await asker.get(cursor=cursor)
        assert (refused.status_code, refused.json()) == (400, {"message": "scripted fault: the cursor has expired"})
        assert (await asker.data())["cursor"] == cursor
        await asker.data(cursor=cursor)
        assert [request.status for request in asker.emulator.requests] == [200, 200, 400, 200, 200]

    async def test_it_knows_the_cursors_of_pages_that_it_does_not_strike(self) -> None:
        """With a probability, or after another fault, it still knows when each cursor was given."""
        trouble = [faults.EmptyPage(at=[1]), faults.ExpiredCursor(after=10, at=[3], probability=0, status=410)]
        asker = ask(faults=trouble)
        cursor = (await asker.data())["cursor"]
        await anyio.sleep(11)
        assert [(await asker.get(cursor=cursor)).status_code for _ in range(3)] == [200, 410, 200]

    async def test_a_cursor_that_it_never_gave_is_left_to_the_emulator(self) -> None:
        """A cursor that is not valid at all is refused as without the fault."""
        asker = ask(faults=[faults.ExpiredCursor(after=10)])
        response = await asker.get(cursor="invented")
        assert (response.status_code, "scripted" in response.text) == (400, False)
