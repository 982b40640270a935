"""A hook that raises interrupts a list before the first customer of a page; another run may resume with another limit."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from commenda_customers import Checkpoint, CustomerList, CustomerPage, Event, InvalidCustomerReceived
from commenda_customers.query import CustomersQuery, Selection
from lists import again, page_of

KINDS = st.lists(st.sampled_from(["valid", "valid", "valid", "invalid", "nameless"]), max_size=60)
LIMITS = st.lists(st.sampled_from([1, 3, 10, 30]), min_size=1, max_size=4)


class HookError(Exception):
    pass


class Program:
    """Reads a list whose hook fails at every row that is not valid, and resumes each time with another limit."""

    def __init__(self, kinds: Sequence[str], limits: Sequence[int], *, counts_pages: bool) -> None:
        marks = {"valid": "", "invalid": "!", "nameless": "?"}
        self.rows = ["?" if kind == "nameless" else f"{marks[kind]}{number}" for number, kind in enumerate(kinds)]
        self.limits = limits
        self.counts_pages = counts_pages
        self.came: list[str] = []
        self.reported: list[str | None] = []

    async def fetch(self, query: CustomersQuery, cursor: str | None) -> CustomerPage:
        limit = query.selection.limit
        begin = int(cursor or 0) * (limit if self.counts_pages else 1)
        end = begin + limit
        following = str(end // limit if self.counts_pages else end) if end < len(self.rows) else None
        return page_of("c", self.rows[begin:end], None, following)

    def hook(self, event: Event) -> None:
        assert isinstance(event, InvalidCustomerReceived)
        self.reported.append(event.customer.id)
        raise HookError

    async def run(self) -> None:
        checkpoint: Checkpoint | None = None
        for number in range(len(self.rows) + 1):
            limit = self.limits[number % len(self.limits)]
            query = Selection.build(limit=limit, collect_invalid=True).of("c")
            iterator: Any = aiter(CustomerList(self.fetch, query, self.hook, resume=checkpoint))
            try:
                async for customer in iterator:
                    self.came.append(customer.id)
            except HookError:
                checkpoint = again(iterator.checkpoint())
            else:
                return


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(kinds=KINDS, limits=LIMITS)
def test_all_limits_yield_every_row_once(backend: str, kinds: list[str], limits: list[int]) -> None:
    """Every customer comes once and in order, and every invalid row is reported once."""
    program = Program(kinds, limits, counts_pages=False)
    virtual_time.run(program.run, backend)
    assert program.came == [row for row in program.rows if row[0] not in "!?"]
    wanted = [row[1:] or None for row in program.rows if row[0] in "!?"]
    assert sorted(program.reported, key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cursors_that_count_pages_repeat_nobody(backend: str) -> None:
    """If the next page has moved, the run resumes on the last page of which it has yielded customers."""
    program = Program(["valid"] * 10 + ["nameless"] + ["valid"] * 29, [10, 5], counts_pages=True)
    virtual_time.run(program.run, backend)
    assert program.came == [row for row in program.rows if row != "?"]
