"""Resumed runs of a list that changed in between."""

import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from commenda_customers import (
    Checkpoint,
    Customer,
    CustomerList,
    CustomerPage,
    ListChangedError,
)
from lists import SELECTION, Lists, again, equal


def listed(lists: Lists, corporation: str, *, resume: Checkpoint | None = None, cursor: str | None = None) -> CustomerList:
    """Return what `api.list` returns."""
    return CustomerList(lists.fetch, SELECTION.of(corporation), lists.events.append, cursor=cursor, resume=resume)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    before=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    after=st.lists(st.integers(0, 30), max_size=10),
    taken=st.integers(1, 8),
    by_page=st.booleans(),
)
def test_a_page_that_changed_loses_nothing(
    backend: str, before: list[int], after: list[int], taken: int, by_page: bool
) -> None:
    """
    The page in which a run stopped may have changed: what was yielded of it is not yielded again, all else on it is; and if
    nothing of what was yielded is on it, that is an error. It makes no difference if all of the page was yielded.
    """
    lists, seen = Lists({"c": [[str(each) for each in before], ["end"]]}), list[str]()
    taken = len(before) if by_page else min(taken, len(before))

    async def run() -> None:
        if by_page:
            iteration: Any = listed(lists, "c").pages()
            seen.extend(customer.id for customer in await anext(iteration))
        else:
            iteration = aiter(listed(lists, "c"))
            for _ in range(taken):
                seen.append((await anext(iteration)).id)
        lists.pages["c"] = [[str(each) for each in after], ["end"]]
        rest = [customer.id async for customer in listed(lists, "c", resume=again(iteration.checkpoint()))]
        assert Counter(rest) == Counter(map(str, after)) - Counter(seen) + Counter(["end"])

    if not set(before[:taken]) & set(after):
        with pytest.raises(ListChangedError, match="has none of the") as caught:
            virtual_time.run(run, backend)
        assert caught.value.corporation_id == "c"
    else:
        virtual_time.run(run, backend)


@pytest.mark.anyio
async def test_a_changed_list_stays_an_error_until_it_is_back() -> None:
    """An iteration repeats its error while the list is changed, and resumes when the customers are back."""
    lists = Lists({"c": [["1", "2"], ["3"]]})
    iteration = aiter(listed(lists, "c"))
    await anext(iteration)
    lists.pages["c"] = [["x"], ["3"]]
    rest = aiter(listed(lists, "c", resume=again(iteration.checkpoint())))
    for _ in range(2):
        with pytest.raises(ListChangedError):
            await anext(rest)
    lists.pages["c"] = [["1", "2"], ["3"]]
    assert [customer.id async for customer in rest] == ["2", "3"]


@pytest.mark.anyio
async def test_a_customer_that_the_list_has_twice_comes_twice() -> None:
    """A resumed run leaves a customer out as often as it was yielded, and not wherever its id comes again."""
    lists = Lists({"c": [["a", "b"], ["a", "c"]]})
    iteration = aiter(listed(lists, "c"))
    assert (await anext(iteration)).id == "a"
    rest = listed(lists, "c", resume=again(iteration.checkpoint()))
    assert [customer.id async for customer in rest] == ["b", "a", "c"]


@pytest.mark.anyio
async def test_a_list_that_is_empty_now_has_changed() -> None:
    """A list whose customers are all gone is an error, and not a quiet end."""
    lists = Lists({"c": [["1", "2"], ["3"]]})
    iteration = aiter(listed(lists, "c"))
    await anext(iteration)
    lists.pages["c"] = [[]]
    with pytest.raises(ListChangedError):
        await anext(aiter(listed(lists, "c", resume=again(iteration.checkpoint()))))


class ByCustomer:
    """A list whose cursors name the last customer of a page."""

    def __init__(self, rows: Iterable[str], size: int) -> None:
        self.rows = sorted(rows)
        self.size = size

    async def fetch(self, _query: Any, cursor: str | None) -> CustomerPage:
        rest = [row for row in self.rows if cursor is None or row > cursor]
        page = rest[: self.size]
        customers = tuple(Customer(id=row, corporation_id="c") for row in page)
        return CustomerPage("c", customers, len(self.rows), page[-1] if len(rest) > self.size else None)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    rows=st.sets(st.integers(100, 160), min_size=1, max_size=20),
    size=st.integers(1, 5),
    changes=st.lists(st.tuples(st.integers(1, 6), st.sets(st.integers(100, 160), max_size=4)), max_size=6),
)
def test_inserted_customers_repeat_nobody(
    backend: str, rows: set[int], size: int, changes: list[tuple[int, set[int]]]
) -> None:
    """Customers that are pushed to later pages by inserted ones are not yielded again."""
    server = ByCustomer(map(str, rows), size)

    async def run() -> list[str]:
        seen: list[str] = []
        checkpoint: Checkpoint | None = None
        for taken, inserted in [*changes, (1000, set[int]())]:
            iteration = aiter(CustomerList(server.fetch, SELECTION.of("c"), print, resume=checkpoint))
            with contextlib.suppress(StopAsyncIteration, ListChangedError):
                for _ in range(taken):
                    seen.append((await anext(iteration)).id)
            checkpoint = again(iteration.checkpoint())
            server.rows = sorted({*server.rows, *map(str, inserted)})
        return seen

    seen = virtual_time.run(run, backend)
    assert len(set(seen)) == len(seen)


@pytest.mark.anyio
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
async def test_stopping_at_an_empty_page_loses_nobody(stop: int) -> None:
    """A run that stopped at an empty page compares the page before it, so that customers who moved up are not lost."""
    rows = [*"ab", "", "", *"def"]

    async def fetch(_query: Any, cursor: str | None) -> CustomerPage:
        place = int(cursor or 0)
        customers = tuple(Customer(id=row, corporation_id="c") for row in rows[place : place + 2] if row)
        return CustomerPage("c", customers, None, str(place + 2) if place + 2 < len(rows) else None)

    iteration = CustomerList(fetch, SELECTION.of("c"), print).pages()
    seen = [customer.id for _ in range(stop) for customer in await anext(iteration)]
    rows.remove("a")
    rest = CustomerList(fetch, SELECTION.of("c"), print, resume=again(iteration.checkpoint()))
    assert seen + [customer.id async for customer in rest] == list("abdef")


@pytest.mark.anyio
@pytest.mark.parametrize("stop", [1, 2, 3])
async def test_an_empty_page_is_no_change(stop: int) -> None:
    """An empty page where the run had stopped is no change: the customers are expected after it."""
    lists = Lists({"c": [["a", "b"], ["c", "d"]]})
    iteration = aiter(listed(lists, "c"))
    seen = [(await anext(iteration)).id for _ in range(stop)]
    checkpoint = again(iteration.checkpoint())
    place = int(checkpoint.positions[0].cursor or 0)
    lists.pages["c"] = [*lists.pages["c"][:place], [], [], *lists.pages["c"][place:]]
    rest = listed(lists, "c", resume=checkpoint)
    assert seen + [customer.id async for customer in rest] == list("abcd")


@pytest.mark.anyio
async def test_removed_customers_lose_nobody() -> None:
    """Customers that move to an earlier page because others are removed are not lost."""
    rows = list("abcdefgh")
    lists = Lists({"c": [rows[:3], rows[3:6], rows[6:]]})
    iteration = listed(lists, "c").pages()
    seen = [customer.id for customer in await anext(iteration)] + [customer.id for customer in await anext(iteration)]
    for gone in "ad":
        rows.remove(gone)
    lists.pages["c"] = [rows[:3], rows[3:6], rows[6:]]
    seen += [customer.id async for customer in listed(lists, "c", resume=again(iteration.checkpoint()))]
    assert seen == list("abcdefgh")


@pytest.mark.anyio
async def test_a_changed_corporation_can_be_read_from_its_beginning() -> None:
    """A checkpoint `without` a corporation reads it from its beginning, and resumes the others."""
    lists = Lists(equal(2, 2, size=3))
    async with lists.stream(concurrency=2) as stream:
        async for customer in stream:
            if customer.corporation_id == "c1":
                break
    lists.pages["c1"] = [["x", "y"], ["z"]]
    async with lists.stream(resume=stream.checkpoint(), errors="collect") as stream:
        assert [customer.id async for customer in stream] == ["0.1.0", "0.1.1", "0.1.2"]
    assert isinstance(stream.failures["c1"], ListChangedError)

    async with lists.stream(resume=again(stream.checkpoint()).without("c1")) as stream:
        assert [customer.id async for customer in stream] == ["x", "y", "z"]
    async with lists.stream(resume=stream.checkpoint().without("c0")) as stream:
        assert {customer.corporation_id async for customer in stream} == {"c0"}


@pytest.mark.anyio
async def test_removed_customers_do_not_stay_in_a_checkpoint() -> None:
    """A position holds the ids of two pages at most, however many customers are removed between runs."""
    server = ByCustomer([f"{number:04}" for number in range(2000)], size=SELECTION.limit)
    checkpoint: Checkpoint | None = None
    for _ in range(200):
        iteration = aiter(CustomerList(server.fetch, SELECTION.of("c"), print, resume=checkpoint))
        last = [await anext(iteration) for _ in range(5)][-1]
        checkpoint = again(iteration.checkpoint())
        assert len(checkpoint.positions[0].yielded) <= 2 * SELECTION.limit
        server.rows = [row for row in server.rows if row == last.id or row > last.id or row[-1] in "05"]
