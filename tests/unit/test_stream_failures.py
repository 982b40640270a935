"""Corporations that fail: the first error is raised, or all are collected."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from commenda_customers import Checkpoint, CorporationState, CustomerList, CustomersError, ServerError
from lists import SELECTION, Lists, equal

pytestmark = pytest.mark.anyio


async def test_the_first_failure_is_raised_as_itself() -> None:
    """The first failure cancels the other corporations, and is raised as itself, in no group."""
    lists = Lists(equal(6, 4), latency=lambda corporation, _number: 1.0 if corporation == "c1" else 100.0)
    lists.failures["c1", 2] = 1
    with pytest.raises(ServerError) as caught:
        async with lists.stream() as stream:
            async for _customer in stream:
                pass
    assert (caught.value.corporation_id, caught.value.cursor, lists.in_flight) == ("c1", "2", 0)
    assert caught.value.checkpoint == stream.checkpoint()
    assert lists.asked == [("c1", 0), ("c1", 1)]


async def test_a_failure_stays() -> None:
    """A failed stream raises its error again when it is asked again."""
    lists = Lists(equal(3, 2), failures={("c0", 0): 1})
    async with lists.stream() as stream:
        for _ in range(2):
            with pytest.raises(ServerError):
                [page async for page in stream.pages()]


async def test_what_is_raised_again_does_not_grow() -> None:
    """A program that asks a failed stream again and again gets the same error, with the same traceback each time."""
    lists = Lists(equal(1, 1), failures={("c0", 0): 1})
    lengths: set[int] = set()
    async with lists.stream() as stream:
        for _ in range(3):
            with pytest.raises(ServerError) as caught:
                await anext(stream.pages())
            lengths.add(len(caught.traceback))
            assert caught.traceback[-1].name == "fetch", "it says where the error came from"
    assert len(lengths) == 1


async def test_failures_can_be_collected() -> None:
    """All other corporations are read to their end with `errors="collect"`, and `failures` tells what failed and why."""
    lists = Lists(equal(6, 4), failures={("c1", 2): 1, ("c4", 0): 1})
    async with lists.stream(errors="collect") as stream:
        seen = [customer.id async for customer in stream]
    assert {name: (error.cursor, type(error)) for name, error in stream.failures.items()} == {
        "c1": ("2", ServerError),
        "c4": (None, ServerError),
    }
    assert len(seen) == len(set(seen)) == 4 * 8 + 4
    assert (stream.progress.finished, stream.progress.failed, stream.progress.reading) == (4, 2, 0)
    assert stream.progress.corporations["c1"].state is CorporationState.FAILED


async def test_a_collected_failure_can_be_resumed() -> None:
    """Each collected failure holds its own position and no response, and a list resumes from it."""
    lists = Lists(equal(50, 3), failures={(f"c{number}", number % 3): 1 for number in range(50)})
    seen: list[str] = []
    async with lists.stream(errors="collect") as stream:
        seen += [customer.id async for customer in stream]
    assert len(stream.failures) == 50
    for name, error in stream.failures.items():
        assert error.__traceback__ is None
        assert error.checkpoint is not None
        assert [position.corporation_id for position in error.checkpoint.positions] == [name]
        seen += [
            customer.id async for customer in CustomerList(lists.fetch, SELECTION.of(name), print, resume=error.checkpoint)
        ]
    assert sorted(seen) == sorted(row for _, row in lists.everyone())


async def test_a_resumed_failure_keeps_its_count() -> None:
    """The progress of a corporation that fails at once, when it is resumed, has what was yielded before."""
    lists = Lists(equal(1, 3), failures={("c0", 1): 2})
    for mode in ("raise", "collect"):
        resume: Checkpoint | None = None
        lists.failures["c0", 1] = 1
        with contextlib.suppress(ServerError):
            async with lists.stream(errors=mode) as stream:
                [customer async for customer in stream]
        resume = stream.checkpoint()
        lists.failures["c0", 0] = 1
        with contextlib.suppress(ServerError):
            async with lists.stream(errors=mode, resume=resume) as stream:
                [customer async for customer in stream]
        assert list(stream.failures) == ["c0"]
        mine = stream.progress.corporations["c0"]
        assert (mine.customers_before, mine.customers, mine.state) == (2, 0, CorporationState.FAILED)
        assert (stream.progress.failed, stream.progress.reading) == (1, 0)


async def test_an_error_of_the_ids_is_no_failure_of_a_corporation() -> None:
    """An error of the iterator of ids is raised, and no corporation is blamed."""

    async def ids() -> AsyncIterator[str]:
        yield "c0"
        raise ServerError("of the ids", corporation_id="elsewhere")

    async with Lists(equal(1, 50), latency=lambda *_: 1.0).stream(ids()) as stream:
        with pytest.raises(ServerError, match="of the ids"):
            [customer async for customer in stream]
        assert stream.failures == {}


async def test_other_exceptions_are_not_collected() -> None:
    """An exception of another kind, say of a hook, ends the stream."""
    lists = Lists({"a": [["1"]]})

    async def fetch(*_: Any) -> Any:
        raise KeyError("hook")

    lists.fetch = fetch
    with pytest.raises(KeyError, match="hook"):
        async with lists.stream(errors="collect") as stream:
            [customer async for customer in stream]


async def test_an_exception_is_raised_once() -> None:
    """An exception that the block has caught is not raised again when the block is left."""
    async with Lists(equal(1, 1)).stream(["c0", "c0"]) as stream:
        with pytest.raises(ValueError, match="is given twice"):
            [page async for page in stream.pages()]


def test_errors_are_one_family() -> None:
    """Every error of the SDK has a place for its checkpoint; it is empty until a list or stream raises it."""
    assert CustomersError("x").checkpoint is None
