"""What anybody who can write to the log may write into it: it makes requests slower or faster, and does nothing else."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from commenda_customers.limits._log import Entry, Snapshot
from commenda_customers.limits._outcomes import Kind
from commenda_customers.limits._replica import Message, Replica, Report

NOW = 1_785_000_000.0
ODD: list[Any] = [0, -1, 5e-324, 1e300, -1e300, 10**400, math.nan, math.inf, -math.inf]


def entry(after: float, *reports: Report, member: str = "a", **others: Any) -> Entry:
    """Return a message of a member, so many seconds after the beginning."""
    return Entry(f"{round((NOW + after) * 1000)}-0", Message(member, NOW + after, reports=reports, **others).text())


def reports(kind: Kind | None, sent: float = NOW, ended: float = NOW) -> list[Report]:
    """Return enough of the same to learn from them."""
    return [Report(kind, sent, ended, 3)] * 20


def check(replica: Replica) -> None:
    """Check that a limiter still works with it."""
    controller = replica.controller
    assert controller.present_rate > 0
    assert 0 <= controller.round_trip < math.inf
    assert controller.hold < 1e6
    assert int(min(controller.window, 100)) >= 1


def odd_values(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value with one number in it that is odd."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            for odd in odd_values(inner):
                copy: Any = value.copy()
                copy[key] = odd
                yield copy
    elif not isinstance(value, str | bool):
        yield from ODD


def test_snapshots_with_odd_numbers() -> None:
    """A snapshot with impossible numbers is ignored."""
    replica = Replica()
    replica.apply([entry(0, brings=9.0), entry(0.1, *reports(Kind.SUCCESS), *reports(Kind.REFUSAL))])
    last = Entry(replica.position, "")
    for state in odd_values(json.loads(replica.snapshot().text)):
        restored = Replica.restored(Snapshot(replica.position, json.dumps(state)))
        restored.apply([last])
        for number, kind in enumerate([Kind.SUCCESS, Kind.REFUSAL, Kind.REJECTION, Kind.FAILURE, Kind.SUCCESS, None]):
            sent = NOW + 0.2 + number
            restored.apply([entry(0.2 + number, *reports(kind, sent, sent))])
            assert int(min(restored.controller.window, 100)) >= 1
            assert not restored.controller.present_rate <= 0


@pytest.mark.parametrize(
    ("sent", "ended"),
    [(-1e308, 1e308), (NOW, 1e308), (1e308, NOW), (-1e308, NOW), (NOW + 1e6, NOW + 1e6), (NOW, NOW - 1), (NOW - 7200, NOW)],
)
def test_impossible_times(sent: float, ended: float) -> None:
    """Nothing is learned from requests that were sent or ended when that cannot have been."""
    replica = Replica()
    replica.apply([entry(0), *(entry(0.1, *reports(kind, sent, ended)) for kind in [*Kind, None])])
    assert replica.controller == Replica().controller


@pytest.mark.parametrize("rate", [5e-324, 1e-9, 1e9])
def test_odd_rates(rate: float) -> None:
    """A rate that a member brings may be wrong, but not for ever."""
    replica = Replica()
    replica.apply([entry(0, brings=rate), entry(0.1, *reports(Kind.SUCCESS), *reports(Kind.REFUSAL))])
    check(replica)


def test_many_members() -> None:
    """Thousands of members that nobody has started do not make each request slow."""
    replica = Replica()
    replica.apply(entry(number / 1000, member=f"m{number}") for number in range(2000))
    assert len(replica.members) == 1000
    replica.apply(entry(2 + number, member="a") for number in range(4))
    assert list(replica.members) == ["a"]


@pytest.mark.parametrize("name", ["waiting", "in_flight"])
def test_huge_numbers(name: str) -> None:
    """Numbers that no process has are no messages."""
    replica = Replica()
    replica.apply([entry(0, **{name: 10**10})])
    assert replica.members == {}
