"""Resumed runs of a list whose cursors lead back."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from commenda_customers import (
    Checkpoint,
    CursorLoopError,
    CustomerList,
)
from lists import SELECTION, Lists, again


def listed(lists: Lists, corporation: str, *, resume: Checkpoint | None = None, cursor: str | None = None) -> CustomerList:
    """Return what `api.list` returns."""
    return CustomerList(lists.fetch, SELECTION.of(corporation), lists.events.append, cursor=cursor, resume=resume)


@pytest.mark.anyio
@pytest.mark.parametrize("is_mended", [False, True])
@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("back_to", ["1", "2", "3"])
@pytest.mark.parametrize("last", [["d"], []])
async def test_a_loop_is_not_followed_again(is_mended: bool, collects: bool, last: list[str], back_to: str) -> None:
    """A resumed run stops at once at a cursor loop, unless the cursor is another one now."""
    lists = Lists({"c": [["a"], ["b"], ["c"], last, ["e"]]})
    fetch, seen = lists.fetch, list[str]()

    async def looping(query: Any, cursor: str | None) -> Any:
        page = await fetch(query, cursor)
        return replace(page, cursor=back_to) if page.cursor == "4" else page

    lists.fetch = looping
    checkpoint: Checkpoint | None = None
    for _ in range(3):
        stream = lists.stream(errors="collect" if collects else "raise", resume=checkpoint)
        with contextlib.suppress(CursorLoopError):
            async with stream:
                async for customer in stream:
                    seen.append(customer.id)
        assert isinstance(stream.failures["c"], CursorLoopError)
        checkpoint = again(stream.checkpoint())
    assert seen == ["a", "b", "c", *last]

    if is_mended:
        lists.fetch = fetch
        async with lists.stream(resume=checkpoint) as stream:
            assert [customer.id async for customer in stream] == ["e"]


@pytest.mark.anyio
async def test_a_loop_may_be_repaired_in_the_middle_of_its_page() -> None:
    """A resumed run fetches a page whose cursor is its own again, and loses nothing of it."""
    lists = Lists({"c": [["1", "2"], ["3", "4"], ["5"]]})
    fetch = lists.fetch

    async def looping(query: Any, cursor: str | None) -> Any:
        page = await fetch(query, cursor)
        return replace(page, cursor="1") if cursor == "1" else page

    lists.fetch = looping
    iteration = aiter(listed(lists, "c"))
    for _ in range(3):
        await anext(iteration)
    rest = aiter(listed(lists, "c", resume=again(iteration.checkpoint())))
    assert (await anext(rest)).id == "4"
    with pytest.raises(CursorLoopError):
        await anext(rest)
    lists.fetch = fetch
    assert [customer.id async for customer in listed(lists, "c", resume=again(iteration.checkpoint()))] == ["4", "5"]


@pytest.mark.anyio
async def test_a_loop_is_never_forgotten() -> None:
    """All later runs know a cursor that leads back, also after pages without customers."""
    lists = Lists({"c": [["a"], ["b"], [], ["d"]]})
    fetch, seen, checkpoint = lists.fetch, list[str](), None

    async def looping(query: Any, cursor: str | None) -> Any:
        page = await fetch(query, cursor)
        return replace(page, cursor="0") if page.cursor == "3" else page

    lists.fetch = looping
    for inserted in ["x", "y", "z"]:
        iteration = aiter(
            CustomerList(looping, SELECTION.of("c"), print, cursor=None if checkpoint else "0", resume=checkpoint)
        )
        with pytest.raises(CursorLoopError):
            while True:
                seen.append((await anext(iteration)).id)
        checkpoint = again(iteration.checkpoint())
        lists.pages["c"] = [["a"], [inserted, *lists.pages["c"][1]], [], ["d"]]
    assert seen == ["a", "b", "x", "y"]
