"""The checkpoint itself: what it belongs to, its form, its size."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from commenda_customers import (
    AsyncCustomersAPI,
    Checkpoint,
    CustomerList,
    RateLimitError,
    ServerError,
)
from commenda_customers.checkpoint import Position, Totals, check_resume, corporation_key, totals
from commenda_customers.query import Selection
from lists import SELECTION, Lists, again, equal


def listed(lists: Lists, corporation: str, *, resume: Checkpoint | None = None, cursor: str | None = None) -> CustomerList:
    """Return what `api.list` returns."""
    return CustomerList(lists.fetch, SELECTION.of(corporation), lists.events.append, cursor=cursor, resume=resume)


@pytest.mark.anyio
async def test_the_ids_may_change_between_runs() -> None:
    """A resumed stream skips what was finished in any order, reads new ids, and keeps the positions of missing ones."""
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
async def test_lists_and_streams_share_checkpoints() -> None:
    """A list resumes from a stream's checkpoint, and a stream from a list's."""
    lists = Lists(equal(2, 2, size=2))
    async with lists.stream(concurrency=1) as stream:
        async for customer in stream:
            if customer.id == "1.0.0":
                break
    assert [customer.id async for customer in listed(lists, "c0", resume=stream.checkpoint())] == []
    assert len(await listed(lists, "c0", resume=stream.checkpoint())) == 0
    assert [customer.id for customer in await listed(lists, "c1", resume=stream.checkpoint())] == ["1.0.1"]
    iteration = listed(lists, "c1", resume=stream.checkpoint()).pages()
    assert [position.customers for position in iteration.checkpoint().positions] == [1]
    assert [customer.id for customer in await anext(iteration)] == ["1.0.1"]
    async with lists.stream(resume=iteration.checkpoint()) as stream:
        assert [customer.id async for customer in stream] == ["1.1.0", "1.1.1"]
    assert stream.progress.corporations["c1"].customers_before == 2


@pytest.mark.parametrize("other", [{"name": "x"}, {"search_term": "acme"}, {"extend": ["shipping_address"]}])
def test_a_checkpoint_of_another_query_is_refused(other: dict[str, Any]) -> None:
    """Other filters have other pages: to resume there would lose or repeat customers. Another limit is accepted."""
    api = AsyncCustomersAPI("token-0")
    checkpoint = aiter(api.list("corp_1", name="acme")).checkpoint()
    message = "resume: the checkpoint belongs to a list with other filters$"
    with pytest.raises(ValueError, match=message):
        api.list("corp_1", resume=checkpoint, **{"name": "acme", **other})
    with pytest.raises(ValueError, match=message):
        api.stream(["corp_1"], resume=checkpoint, **{"name": "acme", **other})
    api.list("corp_1", resume=checkpoint, name="acme", limit=99)
    api.stream(["corp_1"], resume=checkpoint, name="acme", limit=1)


@pytest.mark.anyio
async def test_a_list_that_is_not_in_the_checkpoint_is_read_from_its_beginning() -> None:
    """A corporation that is not in the checkpoint is read from its beginning."""
    lists = Lists(equal(2, 1))
    iteration = aiter(listed(lists, "c0"))
    await anext(iteration)
    assert [customer.id async for customer in listed(lists, "c1", resume=iteration.checkpoint())] == ["1.0.0", "1.0.1"]
    anew = iteration.checkpoint().without("c0")
    assert [customer.id async for customer in listed(lists, "c0", resume=anew)] == ["0.0.0", "0.0.1"]


def test_cursor_and_resume_exclude_each_other() -> None:
    """A list starts at a cursor or at a checkpoint, and not at both."""
    api = AsyncCustomersAPI("token-0")
    checkpoint = aiter(api.list("corp_1")).checkpoint()
    with pytest.raises(ValueError, match="cursor: cannot be combined with resume"):
        api.list("corp_1", resume=checkpoint, cursor="abc")


def test_filters_given_in_another_way_are_the_same_query() -> None:
    """The fingerprint depends on the filters that are sent: `None`, order, kind of sequence and limit make no difference."""
    one = Selection.build(limit=11, name=None, extend=["a", "b"], search_term="x")
    two = Selection.build(limit=10, search_term="x", extend=("a", "b"))
    assert one.fingerprint == two.fingerprint == "538ceb41dcd919a1620bd8ae"


def plain(**other: Any) -> Mapping[str, Any]:
    """Return a checkpoint as JSON has it."""
    return {"version": 1, "query": "abc", "positions": [{"corporation_id": "c", "cursor": None}], "finished": "", **other}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            plain(version=2, novelty=1),
            "version 2 of a checkpoint is unknown to this release; if a later release wrote it, upgrade",
        ),
        (plain(version="jane@example.com"), r"version \(not a version number\) of a checkpoint is unknown"),
        (plain(version=10**6), r"version \(not a version number\) of a checkpoint is unknown"),
        (plain(version=-1), r"version \(not a version number\) of a checkpoint is unknown"),
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
def test_invalid_checkpoints_are_refused(data: Any, message: str) -> None:
    """A damaged file, or one of a later release, is refused with a reason that shows no customer."""
    with pytest.raises(ValidationError, match=message):
        Checkpoint.model_validate_json(json.dumps(data))


def whole() -> Checkpoint:
    """Return a checkpoint with several corporations of each kind."""
    return Checkpoint(
        query="q",
        positions=(
            Position(corporation_id="a", cursor="1", yielded=("x",), customers=101, invalid_customers=3),
            Position(corporation_id="b", customers=20, invalid_customers=4),
            Position(corporation_id="c"),
        ),
        finished="".join(map(corporation_key, "def")),
        customers=1000,
        invalid_customers=50,
    )


@pytest.mark.parametrize("name", ["a", "c", "d", "f", "nobody"])
def test_without_removes_one_corporation(name: str) -> None:
    """A corporation that has started or is finished is removed. All others stay, in their order."""
    left, before = whole().without(name), whole()
    assert left.positions == tuple(position for position in before.positions if position.corporation_id != name)
    assert left.finished == "".join(corporation_key(other) for other in "def" if other != name)
    assert (left.query, left.customers, left.invalid_customers) == ("q", 1000, 50)


def test_totals_count_started_and_finished_corporations() -> None:
    """The totals are those of all corporations. Only finished ones count as corporations."""
    assert totals(whole()) == Totals(corporations=3, customers=1121, invalid_customers=57)


def test_a_wrong_argument_is_named() -> None:
    """What is no checkpoint is refused by the name of the argument."""
    with pytest.raises(TypeError, match=r"^resume: "):
        check_resume("text", "q")  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_an_error_that_was_collected_has_the_position_of_its_corporation() -> None:
    """The checkpoint of a failure has the place where its corporation resumes, and nothing of the others."""
    lists = Lists(equal(2, 3), failures={("c0", 1): 1})
    async with lists.stream(errors="collect") as stream:
        assert len([customer async for customer in stream]) == 8
    checkpoint = stream.failures["c0"].checkpoint
    assert checkpoint is not None
    assert [(position.corporation_id, position.customers) for position in checkpoint.positions] == [("c0", 2)]
    assert checkpoint.finished == ""


def test_its_form_is_kept() -> None:
    """A checkpoint that was written before can still be read: another form needs another version."""
    text = (
        '{"version":1,"query":"5feb596270186253f9f617f0","positions":'
        '[{"corporation_id":"c1","cursor":"7","yielded":["a"],"invalid":["b"],"customers":8,"invalid_customers":2,'
        '"loop_cursor":null,"limit":50}],"finished":"mjPUvUOz0fl1","customers":5,"invalid_customers":1}'
    )
    position = Position(
        corporation_id="c1", cursor="7", yielded=("a",), invalid=("b",), invalid_customers=2, customers=8, limit=50
    )
    checkpoint = Checkpoint(
        query=SELECTION.fingerprint, positions=(position,), finished="mjPUvUOz0fl1", customers=5, invalid_customers=1
    )
    assert checkpoint.model_dump_json() == text
    assert Checkpoint.model_validate_json(text) == checkpoint


@pytest.mark.anyio
async def test_its_size_is_bounded() -> None:
    """It grows by 12 bytes for each corporation that is finished, and by a page of ids for each that is open."""
    lists = Lists({f"corporation-{number}": [["x"]] for number in range(1000)})
    async with lists.stream() as stream:
        async for _customer in stream:
            pass
    assert len(stream.checkpoint().model_dump_json()) < 12 * 1000 + 150

    lists = Lists(equal(100, 50, size=10))
    async with lists.stream(concurrency=5) as stream:
        async for _page in stream.pages():
            assert sum(len(position.yielded) for position in stream.checkpoint().positions) <= 5 * 10


@pytest.mark.anyio
async def test_it_counts_what_was_yielded() -> None:
    """A position says how many customers of its corporation were yielded, over all runs."""
    lists, seen, checkpoint = Lists(equal(1, 5, size=3)), 0, None
    for _ in range(7):
        iteration = aiter(listed(lists, "c0", resume=checkpoint))
        for _ in range(2):
            await anext(iteration)
        seen += 2
        checkpoint = iteration.checkpoint()
        assert [position.customers for position in checkpoint.positions] == [seen]


@pytest.mark.anyio
async def test_it_may_be_taken_after_each_customer() -> None:
    """A checkpoint may be taken after each customer, and does not change when later ones are taken."""
    lists = Lists({f"corporation-{number}": [["x", "y"]] for number in range(3000)})
    taken: list[Checkpoint] = []
    async with lists.stream(concurrency=16) as stream:
        async for _customer in stream:
            taken.append(stream.checkpoint())
    assert [len(each.finished) // 12 for each in taken[1::2]] == list(range(1, 3001))


@pytest.mark.anyio
async def test_every_error_has_one() -> None:
    """Each error of a list, iterated or awaited, has an exact checkpoint."""
    lists = Lists(equal(1, 4), failures={("c0", 0): 1, ("c0", 3): 2})
    with pytest.raises(ServerError) as caught:
        await listed(lists, "c0")
    assert caught.value.checkpoint is not None
    assert caught.value.checkpoint.positions == (Position(corporation_id="c0"),)
    for iteration in (aiter(listed(lists, "c0")), listed(lists, "c0").pages()):
        with pytest.raises(ServerError) as caught:
            [item async for item in iteration]
        assert caught.value.checkpoint is not None
        expected = Position(corporation_id="c0", cursor="2", yielded=("0.2.0", "0.2.1"), customers=6, limit=100)
        assert caught.value.checkpoint.positions == (expected,)


def test_it_survives_pickling_with_its_error() -> None:
    """A checkpoint survives the pickling of its error."""
    import pickle

    error = RateLimitError("later", corporation_id="c", retry_after=5)
    error.checkpoint = Checkpoint(query="q", positions=(Position(corporation_id="c"),))
    copy = pickle.loads(pickle.dumps(error))
    assert copy.checkpoint == error.checkpoint
