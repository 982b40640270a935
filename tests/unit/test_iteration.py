"""The iteration from cursor to cursor, over a function in place of a network."""

import gc
import warnings
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from commenda_customers import (
    CursorLoopError,
    Customer,
    CustomerList,
    CustomerPage,
    Event,
    InvalidCustomerReceived,
    ServerError,
)
from commenda_customers.query import CustomersQuery, Selection
from lists import SELECTION, Lists

pytestmark = pytest.mark.anyio

QUERY = Selection.build(limit=2, name="Acme").of("corp_1")


class Server:
    """Pages by cursor, and a record of what was asked."""

    def __init__(self, pages: Mapping[str | None, tuple[str, str | None]]) -> None:
        self.pages = pages
        self.asked: list[str | None] = []

    async def fetch(self, query: CustomersQuery, cursor: str | None) -> CustomerPage:
        assert query is QUERY
        self.asked.append(cursor)
        await anyio.lowlevel.checkpoint()
        ids, following = self.pages[cursor]
        return CustomerPage("corp_1", tuple(Customer(id=name, corporation_id="corp_1") for name in ids), None, following)

    def list(self, cursor: str | None = None) -> CustomerList:
        return CustomerList(self.fetch, QUERY, print, cursor=cursor)


THREE = {None: ("ab", "1"), "1": ("cd", "2"), "2": ("e", None)}


async def ids_of(iteration: Any) -> str:
    """Return the ids of all customers of an iteration, one letter each."""
    return "".join([customer.id async for customer in iteration])


async def test_all_customers_come_in_order() -> None:
    """An iteration yields every customer of every page in the server's order, and requests each page once."""
    server = Server(THREE)
    assert await ids_of(server.list()) == "abcde"
    assert server.asked == [None, "1", "2"]


async def test_pages_come_as_they_are() -> None:
    """`pages()` is the same iteration page by page."""
    server = Server(THREE)
    assert [(len(page), page.cursor) async for page in server.list().pages()] == [(2, "1"), (2, "2"), (1, None)]


async def test_awaiting_is_one_request() -> None:
    """Awaiting a list fetches its first page and nothing else."""
    server = Server(THREE)
    page = await server.list()
    assert [customer.id for customer in page] == ["a", "b"]
    assert server.asked == [None]


async def test_nothing_is_requested_before_it_is_used() -> None:
    """Making a list or an iterator requests nothing."""
    server = Server(THREE)
    aiter(server.list())
    server.list().pages()
    assert server.asked == []


async def test_each_iteration_starts_afresh() -> None:
    """A list may be iterated over again, also while another iteration of it runs."""
    server = Server(THREE)
    customers = server.list()
    assert await ids_of(customers) == await ids_of(customers) == "abcde"
    pairs = [(first.id, second.id) async for first in customers async for second in customers]
    assert len(pairs) == 25


async def test_an_iteration_may_start_at_a_cursor() -> None:
    """An iteration with a cursor starts at its page."""
    assert await ids_of(Server(THREE).list("1")) == "cde"


@pytest.mark.parametrize("empty", [1, 700])
async def test_an_empty_page_is_not_the_end(empty: int) -> None:
    """An empty page with a cursor does not end the list, however many follow each other."""
    pages: dict[str | None, tuple[str, str | None]] = {None: ("a", "0")}
    pages |= {str(number): ("", str(number + 1)) for number in range(empty)}
    pages[str(empty)] = ("b", None)
    assert await ids_of(Server(pages).list()) == "ab"


@pytest.mark.parametrize(
    ("pages", "good", "asked", "repeated"),
    [
        ({None: ("a", "1"), "1": ("b", "1")}, "ab", [None, "1"], "1"),
        ({None: ("a", "1"), "1": ("b", "2"), "2": ("c", "1")}, "abc", [None, "1", "2"], "1"),
        ({None: ("", "1"), "1": ("", "2"), "2": ("", "3"), "3": ("", "1")}, "", [None, "1", "2", "3"], "1"),
    ],
)
async def test_a_repeated_cursor_is_an_error(
    pages: dict[str | None, tuple[str, str | None]], good: str, asked: list[str | None], repeated: str
) -> None:
    """A repeated cursor is an error, without a request, after all customers before it."""
    server, seen = Server(pages), ""
    with pytest.raises(CursorLoopError, match="form a loop") as caught:
        async for customer in server.list():
            seen += customer.id
    assert (seen, server.asked) == (good, asked)
    assert (caught.value.corporation_id, caught.value.cursor) == ("corp_1", repeated)
    assert not caught.value.transient


async def test_the_first_cursor_may_not_come_again() -> None:
    """A cursor that leads back to the start of the iteration is a repeated cursor too."""
    with pytest.raises(CursorLoopError):
        await ids_of(Server({"1": ("a", "2"), "2": ("b", "1")}).list("1"))


@pytest.mark.parametrize("failing", ["error", "timeout"])
async def test_a_failed_iteration_resumes(failing: str) -> None:
    """The next item after an error, or after a timeout of the user's, is the next customer."""
    server, failures = Server(THREE), [None, "1", "1", "2"]

    async def fetch(query: CustomersQuery, cursor: str | None) -> CustomerPage:
        if failures and failures[0] == cursor:
            failures.pop(0)
            if failing == "error":
                raise ServerError("no")
            await anyio.sleep_forever()
        return await server.fetch(query, cursor)

    iteration, came, failed = aiter(CustomerList(fetch, QUERY, print)), "", 0
    while len(came) < 5:
        try:
            with anyio.fail_after(0.02):
                came += (await anext(iteration)).id
        except (ServerError, TimeoutError):
            failed += 1
    with pytest.raises(StopAsyncIteration):
        await anext(iteration)
    assert (came, failed, server.asked) == ("abcde", 4, [None, "1", "2"])


async def test_stop_async_iteration_of_others_is_no_end() -> None:
    """A `StopAsyncIteration` of a hook or a token provider does not end the list."""

    async def fetch(_query: CustomersQuery, cursor: str | None) -> CustomerPage:
        if cursor is None:
            return CustomerPage("corp_1", (Customer(id="a", corporation_id="corp_1"),), None, "1")
        raise StopAsyncIteration

    iteration = aiter(CustomerList(fetch, QUERY, print))
    assert (await anext(iteration)).id == "a"
    with pytest.raises(RuntimeError, match=r"^StopAsyncIteration was raised while a page was fetched$"):
        await anext(iteration)


async def test_leaving_early_leaves_nothing() -> None:
    """A `break` requests nothing more, and no event loop warns of an iterator that was not closed."""
    server = Server(THREE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async for _customer in server.list():
            break
        gc.collect()
        await anyio.lowlevel.checkpoint()
    assert server.asked == [None]
    assert caught == []


async def test_it_is_an_async_generator() -> None:
    """What iterates can be closed like an async generator; after that it is at its end."""
    iteration = aiter(Server(THREE).list())
    assert isinstance(iteration, AsyncGenerator)
    async with aclosing(iteration):
        assert (await anext(iteration)).id == "a"
    with pytest.raises(StopAsyncIteration):
        await anext(iteration)
    with pytest.raises(KeyError, match="thrown"):
        await aiter(Server(THREE).list()).athrow(KeyError("thrown"))


async def test_two_tasks_cannot_share_an_iteration() -> None:
    """A second task that asks a waiting iterator gets an error."""
    iteration = Server(THREE).list().pages()
    outcomes: list[object] = []

    async def take() -> None:
        try:
            outcomes.append((await anext(iteration)).cursor)
        except RuntimeError as exc:
            outcomes.append(str(exc))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        tasks.start_soon(take)
    assert sorted(map(str, outcomes)) == ["1", "this iterator is already waiting for its next item in another task"]


async def test_closing_while_another_task_waits_is_an_error() -> None:
    """Closing an iteration while another task waits for its next item is an error, as with any async generator."""
    answered, outcomes = anyio.Event(), list[object]()

    async def fetch(_query: Any, _cursor: str | None) -> CustomerPage:
        await answered.wait()
        return CustomerPage("corp_1", (), cursor="1")

    iteration = CustomerList(fetch, QUERY, print).pages()

    async def take() -> None:
        outcomes.append((await anext(iteration)).cursor)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="already waiting"):
            await iteration.aclose()
        answered.set()
    await iteration.aclose()
    assert outcomes == ["1"]
    assert [page async for page in iteration] == []


def test_the_repr_shows_the_query() -> None:
    """The repr shows the query and the cursor."""
    assert "corp_1" in repr(Server(THREE).list("abc"))
    assert "abc" in repr(Server(THREE).list("abc"))


@pytest.mark.parametrize("by_page", [False, True])
@pytest.mark.parametrize("error", [ValueError, StopAsyncIteration])
async def test_a_hook_that_raises_loses_no_row(error: type[Exception], *, by_page: bool) -> None:
    """If a hook raises for an invalid row, the next step continues with the next row, and nothing is lost."""
    lists = Lists({"c": [["a"], ["!x", "!y"], ["!z", "b"], ["!q"]]})
    reported: list[str | None] = []

    def hook(event: Event) -> None:
        assert isinstance(event, InvalidCustomerReceived)
        reported.append(event.customer.id)
        if event.customer.id in {"x", "y", "q"}:
            raise error

    listed = CustomerList(lists.fetch, SELECTION.of("c"), hook)
    iteration: Any = listed.pages() if by_page else aiter(listed)
    came: list[str] = []
    failed = 0
    while True:
        try:
            item = await anext(iteration)
            came += [customer.id for customer in item] if by_page else [item.id]
        except StopAsyncIteration:
            break
        except (ValueError, RuntimeError):
            failed += 1
    assert (came, reported, failed) == (["a", "b"], ["x", "y", "z", "q"], 3)
    assert iteration.checkpoint().positions == ()
