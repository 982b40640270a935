"""Resumed runs with another `limit`: their pages end elsewhere, and all customers still come exactly once."""

import contextlib
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from commenda_customers import (
    Checkpoint,
    Customer,
    CustomerList,
    CustomerPage,
    CustomerStream,
    ListChangedError,
    ServerError,
)
from commenda_customers.query import CustomersQuery, Selection
from lists import again

LIMITS = st.one_of(st.integers(1, 8), st.sampled_from([30, 99, 100]))
RUNS = st.lists(st.tuples(LIMITS, st.sampled_from(["customers", "pages", "timeout"]), st.integers(0, 40)), max_size=6)
"""For each run: its limit, how it is interrupted, and after how much."""


class Windows:
    """
    A list whose pages are as large as the client asks for.

    *kind* says what its cursors name: the `offset` of the page, the `key` of the customer before it, or the number of the
    `page`. A row that is not in *shown* is filtered out after the page was cut, so pages may be short or empty.
    """

    def __init__(self, rows: int, kind: str, *, shown: Sequence[bool] = (True,), too_large: int = 1000) -> None:
        self.rows = [f"r{number:03}" for number in range(rows)]
        self.kind = kind
        self.shown = [shown[number % len(shown)] for number in range(rows)]
        self.too_large = too_large

    @property
    def everyone(self) -> list[str]:
        return [row for row, is_shown in zip(self.rows, self.shown, strict=True) if is_shown]

    async def fetch(self, query: CustomersQuery, cursor: str | None) -> CustomerPage:
        await anyio.sleep(0.1)
        limit = query.selection.limit
        if cursor is None:
            begin = 0
        elif self.kind == "key":
            begin = self.rows.index(cursor) + 1
        else:
            begin = int(cursor) * (limit if self.kind == "page" else 1)
        end = begin + limit
        if begin and limit >= self.too_large:
            raise ServerError("the page takes too long", corporation_id="c", cursor=cursor)
        following = {"key": lambda: self.rows[end - 1], "offset": lambda: str(end), "page": lambda: str(end // limit)}
        names = [row for row, is_shown in zip(self.rows[begin:end], self.shown[begin:end], strict=True) if is_shown]
        customers = tuple(Customer(id=name, corporation_id="c") for name in names)
        return CustomerPage("c", customers, None, following[self.kind]() if end < len(self.rows) else None)

    async def run(self, limit: int, way: str, amount: int, resume: Checkpoint | None) -> tuple[list[str], Checkpoint]:
        """Return what a list yields until it is interrupted, and its checkpoint."""
        listed = CustomerList(self.fetch, Selection.build(limit=limit).of("c"), print, resume=resume)
        iteration: Any = listed.pages() if way == "pages" else aiter(listed)
        seen: list[str] = []
        with anyio.move_on_after(amount * 0.05 if way == "timeout" else None), contextlib.suppress(StopAsyncIteration):
            while way == "timeout" or amount:
                item = await anext(iteration)
                seen += [customer.id for customer in (item if way == "pages" else [item])]
                amount -= 1
        return seen, again(iteration.checkpoint())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    rows=st.integers(0, 220),
    kind=st.sampled_from(["offset", "key"]),
    shown=st.lists(st.booleans(), min_size=1, max_size=5),
    runs=RUNS,
    last=LIMITS,
)
def test_any_limits_yield_every_customer_once(
    backend: str, *, rows: int, kind: str, shown: list[bool], runs: list[tuple[int, str, int]], last: int
) -> None:
    """Runs with any limits, interrupted anywhere, together yield each customer once and in order."""
    server = Windows(rows, kind, shown=shown)

    async def run_all() -> None:
        seen: list[str] = []
        checkpoint: Checkpoint | None = None
        for limit, way, amount in [*runs, (last, "pages", 1000)]:
            came, checkpoint = await server.run(limit, way, amount, checkpoint)
            seen += came
            assert all(position.customers == len(seen) for position in checkpoint.positions)
            assert all(len(position.yielded) <= 100 for position in checkpoint.positions)
        assert seen == server.everyone

    virtual_time.run(run_all, backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(rows=st.integers(0, 220), runs=RUNS, last=LIMITS)
def test_cursors_that_count_pages_repeat_and_lose_nobody(
    backend: str, rows: int, runs: list[tuple[int, str, int]], last: int
) -> None:
    """
    If cursors count pages, another limit moves the page. Either it makes no difference to what is yielded, or it is an error
    that names the limit to resume with, and that limit works.
    """
    server = Windows(rows, "page")

    async def run_all() -> None:
        seen: list[str] = []
        checkpoint: Checkpoint | None = None
        for limit, way, amount in [*runs, (last, "pages", 1000)]:
            try:
                came, checkpoint = await server.run(limit, way, amount, checkpoint)
            except ListChangedError as error:
                assert checkpoint is not None
                before = checkpoint.positions[0].limit
                assert before is not None
                assert error.checkpoint == checkpoint  # noqa: PT017 - some runs are refused, not each
                assert f"resume with limit={before}; " in str(error)  # noqa: PT017
                came, checkpoint = await server.run(before, way, amount, checkpoint)
            seen += came
        assert seen == server.everyone

    virtual_time.run(run_all, backend)


@pytest.mark.anyio
@pytest.mark.parametrize(("limit", "words"), [(8, "begins with a customer that was not yielded"), (20, "has none of the 3")])
async def test_a_page_that_has_moved_is_refused(limit: int, words: str) -> None:
    """A page that begins earlier with another limit would repeat customers, and one that begins later would lose some."""
    server = Windows(100, "page")
    _, checkpoint = await server.run(10, "customers", 13, None)
    with pytest.raises(ListChangedError, match=words):
        await server.run(limit, "pages", 1, checkpoint)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["offset", "key"])
async def test_a_page_that_always_times_out_is_read_in_smaller_ones(kind: str) -> None:
    """A stream resumes with a smaller limit from a page that is too large for the server, and yields the rest once."""
    server = Windows(350, kind, too_large=50)
    seen: list[str] = []

    async def read(limit: int, resume: Checkpoint | None) -> None:
        selection = Selection.build(limit=limit)
        stream = CustomerStream(server.fetch, selection, ["c"], print, concurrency=1, errors="raise", resume=resume)
        async with stream:
            async for customer in stream:
                seen.append(customer.id)

    with pytest.raises(ServerError) as caught:
        await read(100, None)
    assert len(seen) == 100
    assert caught.value.checkpoint is not None
    await read(30, again(caught.value.checkpoint))
    assert seen == server.everyone
