"""The numbers of a stream while it runs."""

from dataclasses import replace
from typing import Any

import pytest

from lists import Lists, equal

pytestmark = pytest.mark.anyio


async def test_progress_is_live() -> None:
    """The numbers are those of what was yielded, in total and by corporation."""
    lists = Lists(equal(2, 3))
    async with lists.stream(concurrency=1) as stream:
        progress = stream.progress
        assert (progress.pages, progress.customers, progress.remaining) == (0, 0, None)
        seen = 0
        async for _customer in stream:
            seen += 1
            assert (progress.customers, progress.finished) == (seen, seen // 6)
            assert progress.remaining == (6 - seen % 6) % 6
    assert (progress.pages, progress.customers, progress.finished, progress.failed) == (6, 12, 2, 0)
    assert {name: (each.pages, each.customers, each.remaining) for name, each in progress.corporations.items()} == {
        "c0": (3, 6, 0),
        "c1": (3, 6, 0),
    }


async def test_remaining_may_be_unknown() -> None:
    """`remaining` is `None` while the server has not said how many there are, and 0 if there were more."""
    lists = Lists(equal(1, 3))
    fetch = lists.fetch
    totals: list[int | None] = [None, 1, None]

    async def untold(query: Any, cursor: str | None) -> Any:
        return replace(await fetch(query, cursor), total_customers=totals.pop(0))

    lists.fetch = untold
    async with lists.stream() as stream:
        remaining: list[int | None] = []
        async for _page in stream.pages():
            remaining.append(stream.progress.remaining)
    assert remaining == [None, 0, 0]
    assert stream.progress.corporations["c0"].total_customers == 1


@pytest.mark.parametrize(("total", "shortfall"), [(5, 2), (3, 0), (1, 0), (None, None)])
async def test_a_shortfall_is_known_at_the_end(total: int | None, shortfall: int | None) -> None:
    """`shortfall` is how many customers the server counted and did not send; while a corporation is read, it is `None`."""
    lists = Lists({"c0": [["a", "!b", "c"]]})
    fetch = lists.fetch

    async def miscounted(query: Any, cursor: str | None) -> Any:
        return replace(await fetch(query, cursor), total_customers=total)

    lists.fetch = miscounted
    async with lists.stream() as stream:
        known: list[int | None] = []
        async for _customer in stream:
            known.append(stream.progress.corporations["c0"].shortfall)
    assert known == [None, shortfall]
