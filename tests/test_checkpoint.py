"""Reading on from where another run stopped: nothing twice, nothing lost."""

import contextlib
import functools
import json
import types
from collections import Counter
from collections.abc import Coroutine, Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import virtual_time
from commenda_customers import (
    AsyncCustomersAPI,
    Checkpoint,
    CursorLoopError,
    Customer,
    CustomerList,
    CustomerPage,
    CustomersError,
    ListChangedError,
    RateLimitError,
    ServerError,
)
from commenda_customers.checkpoint import Position, corporation_key
from commenda_customers.query import Selection
from lists import SELECTION, Lists, Pages, again, equal


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


def listed(lists: Lists, corporation: str, *, resume: Checkpoint | None = None, cursor: str | None = None) -> CustomerList:
    """Return what `api.list` returns."""
    return CustomerList(lists.fetch, SELECTION.of(corporation), cursor=cursor, resume=resume)


# --- exactly what was yielded --------------------------------------------------------------------------------------------


class OwnError(Exception):
    """What the program itself raises. One of Python's own would hide mistakes of the same class."""


@st.composite
def servers(draw: st.DrawFn) -> tuple[dict[str, Pages], dict[tuple[str, int], int], dict[str, float]]:
    """Draw corporations with pages of any sizes, empty ones too, and which pages fail how often."""
    corporations = draw(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), max_size=6))
    pages: dict[str, Pages] = {
        f"c{number}": [[f"{number}.{index}.{row}" for row in range(size)] for index, size in enumerate(sizes)]
        for number, sizes in enumerate(corporations)
    }
    places = [(name, index) for name, rows in pages.items() for index in range(len(rows))]
    failures = draw(st.dictionaries(st.sampled_from(places), st.integers(1, 2), max_size=4)) if places else {}
    latencies = {name: draw(st.sampled_from([0.0, 0.1, 0.25])) for name in pages}
    return pages, failures, latencies


INTERRUPTIONS = st.lists(
    st.tuples(st.sampled_from(["break", "raise", "timeout"]), st.integers(0, 6), st.booleans()), max_size=6
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(server=servers(), plan=INTERRUPTIONS, in_pages=st.booleans(), concurrency=st.integers(1, 5), collects=st.booleans())
def test_all_runs_together_yield_everything_once(
    backend: str,
    *,
    server: tuple[dict[str, Pages], dict[tuple[str, int], int], dict[str, float]],
    plan: list[tuple[str, int, bool]],
    in_pages: bool,
    concurrency: int,
    collects: bool,
) -> None:
    """Whatever corporations, faults and interruptions: all runs together yield what the server holds, once, in order."""
    pages, failures, latencies = server
    lists = Lists(pages, latency=lambda name, _number: latencies[name], failures=failures)
    runs = [*plan, *[("none", 0, in_pages)] * (sum(failures.values()) + 1)]
    seen: list[tuple[str, str]] = []

    async def run_all() -> None:
        checkpoint: Checkpoint | None = None
        for way, after, by_page in runs:
            stream = lists.stream(concurrency=concurrency, errors="collect" if collects else "raise", resume=checkpoint)
            try:
                await interrupted(stream, way, after, by_page)
                exact = stream.checkpoint()
            except CustomersError as error:
                exact = error.checkpoint
            assert exact == stream.checkpoint()
            checkpoint = again(exact)
            assert lists.in_flight == 0
        assert checkpoint is not None
        assert checkpoint.positions == ()

    async def interrupted(stream: Any, way: str, after: int, by_page: bool) -> None:
        count = 0
        try:
            with anyio.move_on_after(after * 0.05 if way == "timeout" else None):
                async with stream:
                    async for item in stream.pages() if by_page else stream:
                        seen.extend((each.corporation_id, each.id) for each in (item if by_page else [item]))
                        count += 1
                        if way == "break" and count > after:
                            break
                        if way == "raise" and count > after:
                            raise OwnError  # noqa: TRY301 - as the program's own code would
        except OwnError:
            pass

    virtual_time.run(run_all, backend)
    for name in pages:
        assert [row for corporation, row in seen if corporation == name] == [row for page in pages[name] for row in page]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), stops=st.lists(st.integers(0, 5), max_size=5))
def test_a_list_is_continued_likewise(backend: str, sizes: list[int], stops: list[int]) -> None:
    """A list that is left after any customers, or fails on any page, is continued with the next customer."""
    pages = {"c": [[f"{index}.{row}" for row in range(size)] for index, size in enumerate(sizes)]}
    lists = Lists(pages, failures={("c", len(sizes) - 1): 1})
    seen: list[str] = []

    async def run_all() -> None:
        checkpoint: Checkpoint | None = None
        for stop in [*stops, 100, 100]:
            walk = aiter(listed(lists, "c", resume=checkpoint))
            try:
                for _ in range(stop):
                    seen.append((await anext(walk)).id)
                exact = walk.checkpoint()
            except StopAsyncIteration:
                exact = walk.checkpoint()
            except ServerError as error:
                exact = error.checkpoint
            assert exact == walk.checkpoint()
            checkpoint = again(exact)

    virtual_time.run(run_all, backend)
    assert seen == [row for page in pages["c"] for row in page]


@types.coroutine
def cancelled_at(work: Coroutine[Any, Any, None], scope: anyio.CancelScope, point: int) -> Generator[Any, Any, None]:
    """Do *work*, cancelling *scope* where it waits for the *point*th time."""
    waits, send = 0, functools.partial(work.send, None)
    while True:
        try:
            waiting = send()
        except StopIteration:
            return
        waits += 1
        if waits == point:
            scope.cancel()
        try:
            value = yield waiting
            send = functools.partial(work.send, value)
        except BaseException as exc:  # noqa: BLE001 - it is passed on
            send = functools.partial(work.throw, exc)


@pytest.mark.anyio
@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("lead", [0, 1, 2, 3])
async def test_it_may_be_cancelled_at_every_await(collects: bool, lead: int) -> None:
    """Cancelled at any point, a stream ends as cancelled, leaves nothing in flight, and its checkpoint is exact."""
    point, came_so_far = 0, True
    while came_so_far:
        point += 1
        lists = Lists(equal(3, 3), latency=lambda name, number: 0.1 * ((int(name[1:]) + number) % 3))
        seen: list[tuple[str, str]] = []
        stream = lists.stream(concurrency=2, errors="collect" if collects else "raise")

        async def read(stream: Any = stream, seen: Any = seen) -> None:
            async with stream:
                async for customer in stream:
                    seen.append((customer.corporation_id, customer.id))
                    if len(seen) % 4 == lead:
                        await anyio.sleep(0.15)

        with anyio.CancelScope() as scope:
            await cancelled_at(read(), scope, point)
        came_so_far = scope.cancel_called
        assert lists.in_flight == 0
        async with lists.stream(resume=again(stream.checkpoint())) as rest:
            seen += [(customer.corporation_id, customer.id) async for customer in rest]
        assert sorted(seen) == sorted(lists.everyone())
        assert len(seen) == 18
    assert point > 15


# --- a list that changes in between --------------------------------------------------------------------------------------


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
            walk: Any = listed(lists, "c").pages()
            seen.extend(customer.id for customer in await anext(walk))
        else:
            walk = aiter(listed(lists, "c"))
            for _ in range(taken):
                seen.append((await anext(walk)).id)
        lists.pages["c"] = [[str(each) for each in after], ["end"]]
        rest = [customer.id async for customer in listed(lists, "c", resume=again(walk.checkpoint()))]
        assert Counter(rest) == Counter(map(str, after)) - Counter(seen) + Counter(["end"])

    if not set(before[:taken]) & set(after):
        with pytest.raises(ListChangedError, match="no longer holds any of the") as caught:
            virtual_time.run(run, backend)
        assert caught.value.corporation_id == "c"
    else:
        virtual_time.run(run, backend)


@pytest.mark.anyio
@pytest.mark.parametrize("is_mended", [False, True])
@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("back_to", ["1", "2", "3"])
@pytest.mark.parametrize("last", [["d"], []])
async def test_a_circle_is_not_gone_round_again(is_mended: bool, collects: bool, last: list[str], back_to: str) -> None:
    """Where a server has led the walk in a circle, a run that continues stops at once, unless the cursor is another now."""
    lists = Lists({"c": [["a"], ["b"], ["c"], last, ["e"]]})
    fetch, seen = lists.fetch, list[str]()

    async def circular(query: Any, cursor: str | None) -> Any:
        page = await fetch(query, cursor)
        return replace(page, cursor=back_to) if page.cursor == "4" else page

    lists.fetch = circular
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
async def test_a_circle_may_be_mended_before_all_of_its_page_is_read() -> None:
    """A page whose cursor is its own is fetched again by the run that continues: the rest of it is not lost."""
    lists = Lists({"c": [["1", "2"], ["3", "4"], ["5"]]})
    fetch = lists.fetch

    async def circular(query: Any, cursor: str | None) -> Any:
        page = await fetch(query, cursor)
        return replace(page, cursor="1") if cursor == "1" else page

    lists.fetch = circular
    walk = aiter(listed(lists, "c"))
    for _ in range(3):
        await anext(walk)
    rest = aiter(listed(lists, "c", resume=again(walk.checkpoint())))
    assert (await anext(rest)).id == "4"
    with pytest.raises(CursorLoopError):
        await anext(rest)
    lists.fetch = fetch
    assert [customer.id async for customer in listed(lists, "c", resume=again(walk.checkpoint()))] == ["4", "5"]


@pytest.mark.anyio
async def test_a_circle_back_to_before_the_page_is_never_forgotten() -> None:
    """What leads back to pages that were yielded is known to all runs that follow, also behind pages without customers."""
    lists = Lists({"c": [["a"], ["b"], [], ["d"]]})
    fetch, seen, checkpoint = lists.fetch, list[str](), None

    async def circular(query: Any, cursor: str | None) -> Any:
        page = await fetch(query, cursor)
        return replace(page, cursor="0") if page.cursor == "3" else page

    lists.fetch = circular
    for inserted in ["x", "y", "z"]:
        walk = aiter(CustomerList(circular, SELECTION.of("c"), cursor=None if checkpoint else "0", resume=checkpoint))
        with pytest.raises(CursorLoopError):
            while True:
                seen.append((await anext(walk)).id)
        checkpoint = again(walk.checkpoint())
        lists.pages["c"] = [["a"], [inserted, *lists.pages["c"][1]], [], ["d"]]
    assert seen == ["a", "b", "x", "y"]


@pytest.mark.anyio
async def test_a_changed_list_stays_an_error_until_it_is_back() -> None:
    """An iteration that is kept says the same again, and goes on if the customers are there again."""
    lists = Lists({"c": [["1", "2"], ["3"]]})
    walk = aiter(listed(lists, "c"))
    await anext(walk)
    lists.pages["c"] = [["x"], ["3"]]
    rest = aiter(listed(lists, "c", resume=again(walk.checkpoint())))
    for _ in range(2):
        with pytest.raises(ListChangedError):
            await anext(rest)
    lists.pages["c"] = [["1", "2"], ["3"]]
    assert [customer.id async for customer in rest] == ["2", "3"]


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
def test_where_cursors_name_customers_nobody_comes_twice(
    backend: str, rows: set[int], size: int, changes: list[tuple[int, set[int]]]
) -> None:
    """
    Customers that are inserted between two runs push others on to later pages, where these do not come a second time. Who
    was there from the beginning is never left out.
    """
    server = ByCustomer(map(str, rows), size)

    async def run() -> list[str]:
        seen: list[str] = []
        checkpoint: Checkpoint | None = None
        for taken, inserted in [*changes, (1000, set[int]())]:
            walk = aiter(CustomerList(server.fetch, SELECTION.of("c"), resume=checkpoint))
            with contextlib.suppress(StopAsyncIteration, ListChangedError):
                for _ in range(taken):
                    seen.append((await anext(walk)).id)
            checkpoint = again(walk.checkpoint())
            server.rows = sorted({*server.rows, *map(str, inserted)})
        return seen

    seen = virtual_time.run(run, backend)
    assert len(set(seen)) == len(seen)


@pytest.mark.anyio
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
async def test_to_stop_at_an_empty_page_hides_no_change(stop: int) -> None:
    """A page without customers cannot be known again; the last one that has some is compared: what moved up is not lost."""
    rows = [*"ab", "", "", *"def"]

    async def fetch(_query: Any, cursor: str | None) -> CustomerPage:
        place = int(cursor or 0)
        customers = tuple(Customer(id=row, corporation_id="c") for row in rows[place : place + 2] if row)
        return CustomerPage("c", customers, None, str(place + 2) if place + 2 < len(rows) else None)

    walk = CustomerList(fetch, SELECTION.of("c")).pages()
    seen = [customer.id for _ in range(stop) for customer in await anext(walk)]
    rows.remove("a")
    rest = CustomerList(fetch, SELECTION.of("c"), resume=again(walk.checkpoint()))
    assert seen + [customer.id async for customer in rest] == list("abdef")


@pytest.mark.anyio
@pytest.mark.parametrize("stop", [1, 2, 3])
async def test_an_empty_page_is_no_change(stop: int) -> None:
    """A server that filters may send an empty page where the run had stopped: the customers are looked for behind it."""
    lists = Lists({"c": [["a", "b"], ["c", "d"]]})
    walk = aiter(listed(lists, "c"))
    seen = [(await anext(walk)).id for _ in range(stop)]
    checkpoint = again(walk.checkpoint())
    place = int(checkpoint.positions[0].cursor or 0)
    lists.pages["c"] = [*lists.pages["c"][:place], [], [], *lists.pages["c"][place:]]
    rest = listed(lists, "c", resume=checkpoint)
    assert seen + [customer.id async for customer in rest] == list("abcd")


@pytest.mark.anyio
async def test_customers_removed_between_two_pages_take_nobody_along() -> None:
    """A server that counts from the start moves its pages up when customers are removed: those that moved are not lost."""
    rows = list("abcdefgh")
    lists = Lists({"c": [rows[:3], rows[3:6], rows[6:]]})
    walk = listed(lists, "c").pages()
    seen = [customer.id for customer in await anext(walk)] + [customer.id for customer in await anext(walk)]
    for gone in "ad":
        rows.remove(gone)
    lists.pages["c"] = [rows[:3], rows[3:6], rows[6:]]
    seen += [customer.id async for customer in listed(lists, "c", resume=again(walk.checkpoint()))]
    assert seen == list("abcdefgh")


@pytest.mark.anyio
async def test_a_corporation_that_cannot_go_on_can_begin_again() -> None:
    """A checkpoint without a corporation reads that one from its beginning, and the others on."""
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


# --- what it belongs to --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_other_ids_in_another_order_may_follow() -> None:
    """A stream that continues leaves out what was finished, whatever the order; new ids are read, missing ones kept."""
    lists = Lists(equal(4, 2, size=2))
    async with lists.stream(["c0", "c1", "c2"], concurrency=1) as stream:
        async for customer in stream:
            if customer.id == "1.0.0":
                break
    checkpoint = again(stream.checkpoint())
    async with lists.stream(["c3", "c2", "c0"], resume=checkpoint) as stream:
        assert {customer.corporation_id async for customer in stream} == {"c2", "c3"}
    async with lists.stream(["c1", "c0"], resume=again(stream.checkpoint())) as stream:
        assert [customer.id async for customer in stream] == ["1.0.1", "1.1.0", "1.1.1"]


@pytest.mark.anyio
async def test_a_list_continues_a_stream_and_a_stream_a_list() -> None:
    """A checkpoint belongs to the query and not to the way of reading."""
    lists = Lists(equal(2, 2, size=2))
    async with lists.stream(concurrency=1) as stream:
        async for customer in stream:
            if customer.id == "1.0.0":
                break
    assert [customer.id async for customer in listed(lists, "c0", resume=stream.checkpoint())] == []
    assert len(await listed(lists, "c0", resume=stream.checkpoint())) == 0
    assert [customer.id for customer in await listed(lists, "c1", resume=stream.checkpoint())] == ["1.0.1"]
    walk = listed(lists, "c1", resume=stream.checkpoint()).pages()
    assert [position.customers for position in walk.checkpoint().positions] == [1]
    assert [customer.id for customer in await anext(walk)] == ["1.0.1"]
    async with lists.stream(resume=walk.checkpoint()) as stream:
        assert [customer.id async for customer in stream] == ["1.1.0", "1.1.1"]
    assert stream.progress.corporations["c1"].customers_before == 2


@pytest.mark.parametrize("other", [{"limit": 99}, {"name": "x"}, {"search_term": "acme"}, {"extend": ["shipping_address"]}])
def test_a_checkpoint_of_another_query_is_refused(other: dict[str, Any]) -> None:
    """Other filters or another limit have other pages: to resume there would lose or repeat customers."""
    api = AsyncCustomersAPI("token-0")
    checkpoint = aiter(api.list("corp_1", name="acme")).checkpoint()
    message = "resume: the checkpoint belongs to a list with other filters or another limit"
    with pytest.raises(ValueError, match=message):
        api.list("corp_1", resume=checkpoint, **{"name": "acme", **other})
    with pytest.raises(ValueError, match=message):
        api.stream(["corp_1"], resume=checkpoint, **{"name": "acme", **other})
    api.list("corp_1", resume=checkpoint, name="acme")


@pytest.mark.anyio
async def test_a_list_that_is_not_in_the_checkpoint_is_read_from_its_beginning() -> None:
    """As in a stream: it is of a run that had not come to the corporation, or one `without` it."""
    lists = Lists(equal(2, 1))
    walk = aiter(listed(lists, "c0"))
    await anext(walk)
    assert [customer.id async for customer in listed(lists, "c1", resume=walk.checkpoint())] == ["1.0.0", "1.0.1"]
    anew = walk.checkpoint().without("c0")
    assert [customer.id async for customer in listed(lists, "c0", resume=anew)] == ["0.0.0", "0.0.1"]


def test_a_list_has_one_beginning() -> None:
    """It does not begin both at a cursor and at a checkpoint."""
    api = AsyncCustomersAPI("token-0")
    checkpoint = aiter(api.list("corp_1")).checkpoint()
    with pytest.raises(ValueError, match="cursor: cannot be given together with resume"):
        api.list("corp_1", resume=checkpoint, cursor="abc")


def test_filters_given_in_another_way_are_the_same_query() -> None:
    """The fingerprint is of what goes on the wire: `None`, order and kind of sequence make no difference."""
    one = Selection.build(limit=10, name=None, extend=["a", "b"], search_term="x")
    two = Selection.build(limit=10, search_term="x", extend=("a", "b"))
    assert one.fingerprint == two.fingerprint == "aa729df1a83ea6db9ea451f4"


def plain(**other: Any) -> Mapping[str, Any]:
    """Return a checkpoint as JSON has it."""
    return {"version": 1, "query": "abc", "positions": [{"corporation_id": "c", "cursor": None}], "finished": "", **other}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (plain(version=2, novelty=1), "version 2 of a checkpoint is unknown here; if a later release wrote it, upgrade"),
        (plain(positions=[{"corporation_id": "c"}] * 2), "a corporation has two positions"),
        (plain(positions=[{"corporation_id": "a"}], finished=corporation_key("a")), "or is finished twice, or both"),
        (plain(finished=2 * corporation_key("a")), "or is finished twice"),
        (plain(positions=[{"corporation_id": ""}]), "at least 1 character"),
        (plain(positions=[{"corporation_id": "c", "cursor": ""}]), "at least 1 character"),
        (plain(positions=[{"corporation_id": "c", "customers": -1}]), "greater than or equal to 0"),
        (plain(finished="short"), "match pattern"),
        (plain(more=1), "not permitted"),
        ([], "should be an object"),
    ],
)
def test_what_is_no_checkpoint_is_refused(data: Any, message: str) -> None:
    """A file that was damaged, or that a later release wrote, is refused with a reason that shows no customer."""
    with pytest.raises(ValidationError, match=message):
        Checkpoint.model_validate_json(json.dumps(data))


def test_its_form_is_kept() -> None:
    """Checkpoints that were written before can be read: a change of this form needs another version."""
    text = (
        '{"version":1,"query":"71144b39afa652928b151a28","positions":'
        '[{"corporation_id":"c1","cursor":"7","yielded":["a"],"customers":8,"loop_cursor":null}],"finished":"mjPUvUOz0fl1"}'
    )
    position = Position(corporation_id="c1", cursor="7", yielded=("a",), customers=8)
    checkpoint = Checkpoint(query=SELECTION.fingerprint, positions=(position,), finished="mjPUvUOz0fl1")
    assert checkpoint.model_dump_json() == text
    assert Checkpoint.model_validate_json(text) == checkpoint


@pytest.mark.anyio
async def test_its_size_is_bounded() -> None:
    """It grows by 12 bytes for each corporation that is finished, and by a page of ids for each that is open."""
    lists = Lists({f"corporation-{number}": [["x"]] for number in range(1000)})
    async with lists.stream() as stream:
        async for _customer in stream:
            pass
    assert len(stream.checkpoint().model_dump_json()) < 12 * 1000 + 100

    lists = Lists(equal(100, 50, size=10))
    async with lists.stream(concurrency=5) as stream:
        async for _page in stream.pages():
            assert sum(len(position.yielded) for position in stream.checkpoint().positions) <= 5 * 10


@pytest.mark.anyio
async def test_customers_that_vanish_do_not_stay_in_it() -> None:
    """However many of the customers that were yielded are removed between runs, there are ids of two pages at the most."""
    server = ByCustomer([f"{number:04}" for number in range(2000)], size=SELECTION.limit)
    checkpoint: Checkpoint | None = None
    for _ in range(200):
        walk = aiter(CustomerList(server.fetch, SELECTION.of("c"), resume=checkpoint))
        last = [await anext(walk) for _ in range(5)][-1]
        checkpoint = again(walk.checkpoint())
        assert len(checkpoint.positions[0].yielded) <= 2 * SELECTION.limit
        server.rows = [row for row in server.rows if row == last.id or row > last.id or row[-1] in "05"]


@pytest.mark.anyio
async def test_it_counts_what_was_yielded() -> None:
    """A position says how many customers of its corporation were yielded, over all runs."""
    lists, seen, checkpoint = Lists(equal(1, 5, size=3)), 0, None
    for _ in range(7):
        walk = aiter(listed(lists, "c0", resume=checkpoint))
        for _ in range(2):
            await anext(walk)
        seen += 2
        checkpoint = walk.checkpoint()
        assert [position.customers for position in checkpoint.positions] == [seen]


@pytest.mark.anyio
async def test_it_can_be_taken_after_each_of_very_many() -> None:
    """One may be taken after each customer, however many corporations are finished, and none changes what others hold."""
    lists = Lists({f"corporation-{number}": [["x", "y"]] for number in range(3000)})
    taken: list[Checkpoint] = []
    async with lists.stream(concurrency=16) as stream:
        async for _customer in stream:
            taken.append(stream.checkpoint())
    assert [len(each.finished) // 12 for each in taken[1::2]] == list(range(1, 3001))


@pytest.mark.anyio
async def test_every_error_has_one() -> None:
    """What a list raises, over customers, over pages or awaited, has a checkpoint that is exact."""
    lists = Lists(equal(1, 4), failures={("c0", 0): 1, ("c0", 3): 2})
    with pytest.raises(ServerError) as caught:
        await listed(lists, "c0")
    assert caught.value.checkpoint is not None
    assert caught.value.checkpoint.positions == (Position(corporation_id="c0"),)
    for walk in (aiter(listed(lists, "c0")), listed(lists, "c0").pages()):
        with pytest.raises(ServerError) as caught:
            [item async for item in walk]
        assert caught.value.checkpoint is not None
        expected = Position(corporation_id="c0", cursor="2", yielded=("0.2.0", "0.2.1"), customers=6)
        assert caught.value.checkpoint.positions == (expected,)


def test_errors_take_it_along() -> None:
    """A checkpoint survives the pickling of its error."""
    import pickle

    error = RateLimitError("later", corporation_id="c", retry_after=5)
    error.checkpoint = Checkpoint(query="q", positions=(Position(corporation_id="c"),))
    copy = pickle.loads(pickle.dumps(error))
    assert copy.checkpoint == error.checkpoint
