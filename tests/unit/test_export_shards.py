"""`shard`: the parts of a list of corporations."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers.export import shard


@given(ids=st.lists(st.text(min_size=1).filter(str.isprintable), unique=True), of=st.integers(1, 20))
def test_every_corporation_is_in_one_shard(ids: list[str], of: int) -> None:
    """Together, the shards are all corporations, each once, and in their order."""
    shards = [shard(ids, number, of=of) for number in range(1, of + 1)]
    assert sorted(name for each in shards for name in each) == sorted(ids)
    assert all(each == [name for name in ids if name in each] for each in shards)


def test_it_is_always_the_same_shard() -> None:
    """A corporation stays in its shard, in all releases and whatever the others are: a job may resume after an update."""
    expected = {"corp_0": 4, "corp_1": 4, "corp_2": 1, "corp_3": 1, "corp_4": 3, "corp_5": 2, "größe": 2}
    for name, number in expected.items():
        assert shard(iter([name, "corp_9"]), number, of=4)[0] == name


def test_the_shards_of_many_corporations_have_about_one_size() -> None:
    """No shard of 10,000 corporations is a fifth larger than another one."""
    sizes = [len(shard((f"corp_{number}" for number in range(10_000)), number, of=8)) for number in range(1, 9)]
    assert max(sizes) < 1.2 * min(sizes)


@pytest.mark.parametrize(
    ("number", "of", "error", "message"),
    [
        (0, 4, ValueError, "number: must be above 0, got 0"),
        (5, 4, ValueError, "number: must be at most 4, got 5"),
        (1, 0, ValueError, "of: must be above 0, got 0"),
        (1.0, 4, TypeError, "number: expected int, got float"),
        (True, 4, TypeError, "number: expected a number, got bool"),
        (1, "4", TypeError, "of: expected int, got str"),
    ],
)
def test_wrong_arguments(number: Any, of: Any, error: type[Exception], message: str) -> None:
    """The first shard is 1, and the last one has the number of shards."""
    with pytest.raises(error, match=message):
        shard(["corp_1"], number, of=of)
