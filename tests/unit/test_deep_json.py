"""JSON that is nested very deeply, and programs that call from very deep."""

import json
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest

from commenda_customers import Checkpoint, InvalidResponseError, RetryPolicy
from commenda_customers._wire import decode_page
from raw_server import listing
from script import Script


def decode(body: bytes, *, collect_invalid: bool = False) -> Any:
    return decode_page(200, {}, body, corporation_id="c", redact=lambda text: text, collect_invalid=collect_invalid)


def row(levels: int, *, name: bytes = b'"a"') -> bytes:
    """Return a listing with one customer that is nested as deeply as told."""
    nested = b"[" * levels + b"]" * levels
    return b'{"customers":[{"id":%b,"corporation_id":"corp_1","x":%b}]}' % (name, nested)


@pytest.fixture(params=[1000, 1_000_000])
def _recursion_limit(request: pytest.FixtureRequest) -> Any:
    """Set Python's recursion limit: the default, or one that protects nothing."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(request.param)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("_recursion_limit")
@pytest.mark.parametrize("collect", [False, True])
@pytest.mark.parametrize("body", [b"[" * 10**6, b'{"a":' * 10**6, b'{"customers":[' + b"[" * 10**6, row(100_000)])
def test_a_body_that_is_too_deep_is_one_clear_error(body: bytes, collect: bool) -> None:
    """A body of nothing but brackets is an error that is not retried, and does not crash Python."""
    with pytest.raises(InvalidResponseError, match="nested too deeply") as caught:
        decode(body, collect_invalid=collect)
    assert not caught.value.transient


@pytest.mark.usefixtures("_recursion_limit")
@pytest.mark.parametrize("_recursion_limit", [10_000], indirect=True)
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"x":', b"}")], ids=["arrays", "objects"])
def test_a_thousand_levels_are_read(opening: bytes, closing: bytes) -> None:
    """
    Where no recursion limit of Python applies, 1,000 levels are read and one more is refused, whatever is beside them.

    Of an invalid row, 200 levels are kept.
    """

    def nested(levels: int) -> bytes:
        inner = levels - 3  # the listing, its rows and the customer are levels too
        deep = opening * inner + b"0" + closing * inner
        return b'{"message":"","page":{},"customers":[{"id":"a","x":[],"y":{},"deep":%b}]}' % deep

    (invalid,) = decode(nested(1000), collect_invalid=True).invalid_customers
    assert (invalid.id, invalid.raw["x"], invalid.raw["y"]) == ("a", [], {})
    kept = json.dumps(invalid.raw["deep"], separators=(",", ":"))
    assert kept == opening.decode() * 199 + "null" + closing.decode() * 199
    with pytest.raises(InvalidResponseError, match="nested too deeply"):
        decode(nested(1001), collect_invalid=True)


def test_brackets_in_strings_are_not_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like nesting inside of a string does not count, even after escaped quotes."""
    monkeypatch.setattr(sys, "getrecursionlimit", lambda: 10**6)
    text = b'{"customers":[{"id":1,"corporation_id":"corp_1","x":"' + rb"[{\"[" * 2000 + b'"},' + b"[]," * 2000 + b"{}]}"
    assert len(decode(text, collect_invalid=True).invalid_customers) == 2002


def test_millions_of_backslashes_need_little_memory() -> None:
    """The search for surrogates in a text of backslashes takes no memory for each backslash."""
    size = 4 * 1024 * 1024
    body = b'{"customers":[{"id":"a","corporation_id":"corp_1","x":"' + b"\\\\" * (size // 2) + rb'\ud800"}]}'
    tracemalloc.start()
    try:
        (customer,) = decode(body).customers
        assert len(customer.x) == size // 2 + 1
        assert tracemalloc.get_traced_memory()[1] < 10 * size
    finally:
        tracemalloc.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("name", [b"1", b'"a"'])
async def test_an_invalid_row_that_is_deep_can_be_used(name: bytes) -> None:
    """A list with a deep row yields it as an invalid row, cut where it is too deep, and resumes after it."""
    script = Script(*[httpx.Response(200, content=row(700, name=name))] * 2)
    api = script.api(retry=RetryPolicy(max_attempts=1))

    async def use() -> None:
        pages = api.list("corp_1", invalid_customers="collect").pages()
        (invalid,) = (await anext(pages)).invalid_customers
        raw, levels = invalid.raw["x"], 1
        while raw[0]:
            raw, levels = raw[0], levels + 1
        assert (raw, levels) == ([None], 199)
        resume = Checkpoint.model_validate_json(pages.checkpoint().model_dump_json())
        assert [page async for page in api.list("corp_1", invalid_customers="collect", resume=resume).pages()] == []

    await from_deep(150, use)


async def from_deep(calls: int, function: Callable[[], Awaitable[None]]) -> None:
    """Call a function from so many calls deeper."""
    if calls > 0:
        await from_deep(calls - 1, function)
    else:
        await function()


def depth() -> int:
    """Return how deep the caller is."""
    frame, count = sys._getframe(), 0
    while frame := frame.f_back:  # type: ignore[assignment]  # it ends with None
        count += 1
    return count


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["list", "stream"])
async def test_a_program_at_the_recursion_limit_loses_nothing(way: str) -> None:
    """Called from too deep a stack for a request, it raises RecursionError; nothing hangs or stays open."""
    api = Script(*[httpx.Response(200, json=listing("a"))] * 200).api()
    outcomes: list[bool] = []

    async def use() -> None:
        if way == "list":
            assert len(await api.list("corp_1")) == 1
            return
        async with api.stream(["corp_1"]) as stream:
            assert len([customer async for customer in stream]) == 1

    for left in [*range(2, 250, 5), 700]:  # where coverage is measured, calls count twice
        with anyio.fail_after(60):
            try:
                await from_deep(sys.getrecursionlimit() - depth() - left, use)
            except RecursionError:
                outcomes.append(False)
            else:
                outcomes.append(True)
    assert api.rate_limit is not None
    snapshot = api.rate_limit.snapshot()
    assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}
    await api.aclose()
