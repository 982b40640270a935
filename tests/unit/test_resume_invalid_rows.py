"""Resumed runs of a list with rows that are not valid, and what an error about a changed list says."""

from typing import Any

import pytest

from commenda_customers import (
    Checkpoint,
    Customer,
    CustomerList,
    CustomerPage,
    Event,
    InvalidCustomer,
    InvalidCustomerReceived,
    ListChangedError,
)
from commenda_customers.query import Selection
from lists import SELECTION, Lists, again

pytestmark = pytest.mark.anyio


class OnePage:
    """A list of one page: rows without an id, and then two customers."""

    def __init__(self, *rows: Any) -> None:
        self.rows = rows
        self.reported: list[Any] = []

    async def fetch(self, *_: Any) -> CustomerPage:
        invalid = tuple(InvalidCustomer(index, None, ("id: Field required",), row) for index, row in enumerate(self.rows))
        customers = tuple(Customer(id=name, corporation_id="c") for name in "ab")
        return CustomerPage("c", customers, None, None, invalid)

    def note(self, event: Event) -> None:
        assert isinstance(event, InvalidCustomerReceived)
        self.reported.append(event.customer.raw)

    def list(self, resume: Checkpoint | None = None) -> CustomerList:
        return CustomerList(self.fetch, SELECTION.of("c"), self.note, resume=resume)


async def test_a_row_without_an_id_is_known_by_what_it_holds() -> None:
    """A row without an id is reported once, in whatever order its members come. Another one in its place is reported too."""
    server = OnePage({"name": "x", "age": 5}, {"name": "y"})
    iteration = aiter(server.list())
    assert (await anext(iteration)).id == "a"
    checkpoint = again(iteration.checkpoint())
    assert server.reported == [{"name": "x", "age": 5}, {"name": "y"}]

    server.reported.clear()
    server.rows = {"age": 5, "name": "x"}, {"name": "z"}
    assert [customer.id async for customer in server.list(checkpoint)] == ["b"]
    assert server.reported == [{"name": "z"}]


async def test_a_page_of_invalid_rows_is_known_by_their_ids() -> None:
    """A run resumes at the last page that has rows with ids, valid or not; and if they are gone, the list has changed."""
    lists = Lists({"c": [["a"], ["!x"], [], ["b"]]})
    pages = CustomerList(lists.fetch, SELECTION.of("c"), print).pages()
    for _ in range(3):
        await anext(pages)
    checkpoint = again(pages.checkpoint())
    lists.asked.clear()
    rest = CustomerList(lists.fetch, SELECTION.of("c"), print, resume=checkpoint)
    assert [customer.id async for customer in rest] == ["b"]
    assert lists.asked == [("c", 1), ("c", 2), ("c", 3)]
    lists.pages["c"] = [["a"], ["!z"], [], ["b"]]
    with pytest.raises(ListChangedError):
        await anext(aiter(rest))


async def test_a_reported_row_says_where_it_was() -> None:
    """The event of a row that is not valid has the corporation, and the cursor of its page."""
    lists = Lists({"c": [["!x", "a"], ["!y"]]})
    assert [customer.id async for customer in CustomerList(lists.fetch, SELECTION.of("c"), lists.events.append)] == ["a"]
    places = [(e.corporation_id, e.cursor, e.customer.id) for e in lists.events if isinstance(e, InvalidCustomerReceived)]
    assert places == [("c", None, "x"), ("c", "1", "y")]


async def test_a_large_row_without_an_id_takes_little_of_a_checkpoint() -> None:
    """A checkpoint holds a few bytes for a row without an id, and nothing of what the row says."""
    iteration = aiter(OnePage({"name": "jane" * 10_000}).list())
    await anext(iteration)
    (key,) = iteration.checkpoint().positions[0].invalid
    assert len(key) <= 16
    assert "jane" not in key


@pytest.mark.parametrize(
    ("now", "limit", "message"),
    [
        (
            ["x"],
            100,
            (
                "the list has changed: the page at which the checkpoint was taken has none of the 2 customers that were "
                "already yielded from it, so others may have been missed; Checkpoint.without() restarts the corporation"
            ),
        ),
        (
            ["x", "b"],
            50,
            (
                "the list has changed: the page at which the checkpoint was taken begins with a customer that was not "
                "yielded from it, so others may come twice; or the server's cursors do not allow another limit, then "
                "resume with limit=100; Checkpoint.without() restarts the corporation"
            ),
        ),
    ],
    ids=["gone", "another limit"],
)
async def test_an_error_about_a_changed_list_says_what_to_do(now: list[str], limit: int, message: str) -> None:
    """The error says what is wrong, what that means, which page it is about, and what helps."""
    lists = Lists({"c": [["0"], ["a", "b", "c"]]})
    iteration = aiter(CustomerList(lists.fetch, SELECTION.of("c"), print))
    for _ in range(3):
        await anext(iteration)
    lists.pages["c"] = [["0"], now]
    query = Selection.build(limit=limit).of("c")
    with pytest.raises(ListChangedError) as caught:
        await anext(aiter(CustomerList(lists.fetch, query, print, resume=again(iteration.checkpoint()))))
    error = caught.value
    assert (error.message, error.corporation_id, error.cursor) == (message, "c", "1")
