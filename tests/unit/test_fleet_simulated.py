"""What processes that share a limit promise each other: the fleet of `benchmarks/fleets.py`, for less than a minute each."""

import importlib
import logging
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import virtual_time

pytestmark = pytest.mark.one_python

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"

STEADY = "bucket 50/s, burst 10, RA"
BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(scope="module")
def simulation() -> Iterator[Any]:
    """Return a function that imports a file of the simulation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield lambda name: importlib.import_module(f"simulation.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "simulation"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def run(simulation: Any) -> Any:
    """Return a function that runs a fleet in virtual time, once for each plan."""
    fleet = simulation("fleet")

    @cache
    def run_once(backend: str, plan: Any) -> Any:
        async def run_here() -> Any:
            return await fleet.Fleet(plan).run()

        return virtual_time.run(run_here, backend)

    return lambda backend="trio", **options: run_once(backend, fleet.Plan(**options))


@pytest.fixture
def one(run: Any) -> Any:
    """Return a function that lets one process with an `AdaptiveLimiter` do what a fleet does."""

    def run_one(**options: Any) -> Any:
        return run(**{**options, "processes": 1, "contender": "AdaptiveLimiter in each"})

    return run_one


def per_second(times: list[float], began: float, ended: float) -> float:
    return sum(began <= at < ended for at in times) / (ended - began)


@BOTH
def test_four_processes_share_a_limit_nearly_as_well_as_one_uses_it(backend: str, run: Any, one: Any) -> None:
    """Four processes use as much of a limit, are refused as seldom, and none gets less than nine tenths of the fastest."""
    job = {"server": STEADY, "seconds": 40.0}
    fleet, alone = run(backend, processes=4, **job), one(**job)
    assert len(fleet.admitted) >= 0.93 * len(alone.admitted)
    assert fleet.refused_part() <= 0.02
    assert fleet.evenness() >= 0.9


def test_processes_that_know_nothing_of_each_other_are_refused_far_more_often(run: Any) -> None:
    """What the tests of this file show is not due to the server: without the log, every tenth request is refused."""
    apart = run(server=STEADY, seconds=40.0, processes=4, contender="AdaptiveLimiter in each")
    assert apart.refused_part() > 0.05
    assert apart.evenness() < 0.9


def test_sixteen_processes_share_a_limit(run: Any, one: Any) -> None:
    """Also sixteen processes do."""
    job = {"server": STEADY, "seconds": 30.0}
    fleet, alone = run(processes=16, **job), one(**job)
    assert len(fleet.admitted) >= 0.85 * len(alone.admitted)
    assert fleet.refused_part() <= 0.06
    assert fleet.evenness() >= 0.85


@pytest.mark.parametrize("seed", [1, 2])
def test_the_first_rate_is_right_soon(seed: int, run: Any, one: Any) -> None:
    """A burst makes the first rate too high. A fleet finds that out nearly as fast as one process does."""
    job = {"server": "bucket 50/s, burst 50", "seconds": 8.0, "seed": seed}
    fleet, alone = run(processes=4, **job), one(**job)
    assert len(fleet.refused) <= len(alone.refused) + 20


@pytest.mark.parametrize("seed", [0, 1])
def test_the_rate_does_not_swing(seed: int, run: Any) -> None:
    """What sixteen processes tell late makes no rate too low. So it does not have to grow again and again."""
    fleet = run(server="bucket 50/s, burst 50", processes=16, seconds=40.0, seed=seed)
    assert per_second(fleet.admitted, 5, 40) >= 0.97 * 50
    assert per_second(fleet.refused, 5, 40) <= 1.2


def test_all_learn_together_that_a_limit_has_halved(run: Any, one: Any) -> None:
    """When a limit of 50 requests per second becomes 25, few requests are refused, and the new limit is used."""
    job = {"server": "bucket 50/s, halves, RA", "seconds": 80.0}
    fleet, alone = run(processes=4, **job), one(**job)
    assert per_second(fleet.admitted, 65, 80) >= 0.9 * 25
    assert len(fleet.admitted) >= 0.93 * len(alone.admitted)
    assert per_second(fleet.refused, 60, 80) <= 2.5
    assert fleet.evenness() >= 0.9


@BOTH
def test_a_death_is_noticed_within_four_seconds(backend: str, run: Any, simulation: Any) -> None:
    """A process that is killed says nothing. Four seconds later, the others use its share."""
    events = simulation("fleet").Events(deaths=15.0)
    fleet = run(backend, server=STEADY, processes=4, seconds=25.0, events=events)
    before = per_second(fleet.admitted, 5, 15)
    assert len(fleet.pages[0]) < 0.25 * len(fleet.admitted)
    assert max(fleet.pages[0]) < 15
    assert per_second(fleet.admitted, 19, 25) >= 0.9 * before
    assert per_second(fleet.refused, 15, 25) <= 2


@pytest.mark.parametrize("seconds", [2.0, 3.5, 20.0])
@BOTH
def test_nothing_waits_for_a_log_that_hangs(
    backend: str, seconds: float, run: Any, simulation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """While the log hangs, and when it is back, no process waits, and the limit is used: few requests are refused."""
    caplog.set_level(logging.INFO)
    end = 15 + seconds
    plan = {"server": STEADY, "processes": 4, "seconds": end + 15}
    fleet = run(backend, events=simulation("fleet").Events(outage=(15.0, seconds)), **plan)
    assert simulation("fleet_tables").longest_wait(simulation("fleet").Plan(**plan), fleet, 15, end + 15) < 2.5
    assert per_second(fleet.admitted, 15, end) >= 0.8 * 50
    assert per_second(fleet.admitted, end, end + 15) >= 0.8 * 50
    assert per_second(fleet.refused, 15, end + 15) <= 3
    assert fleet.evenness() >= 0.85
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) <= 4
    assert sum("shared with other processes again" in record.message for record in caplog.records) == len(warnings)


def test_a_process_that_joins_gets_its_part_at_once(run: Any, simulation: Any) -> None:
    """A process that joins a busy fleet begins at its part of what the others have learned."""
    events = simulation("fleet").Events(joins_at=15.0)
    fleet = run(server=STEADY, processes=4, seconds=25.0, events=events)
    assert per_second(fleet.pages[-1], 16, 25) >= 0.9 * 50 / 4
    assert per_second(fleet.admitted, 15, 25) >= 0.9 * 50
    assert per_second(fleet.refused, 15, 25) <= 2


def test_a_process_that_wants_little_gets_it_and_the_others_the_rest(run: Any, simulation: Any) -> None:
    """Beside three processes that want all there is, a fourth that wants 8 pages per second gets them, without a wait."""
    events = simulation("fleet").Events(modest=8.0)
    fleet = run(server=STEADY, processes=4, seconds=30.0, events=events)
    assert per_second(fleet.pages[-1], 5, 30) >= 0.95 * 8
    assert per_second(fleet.admitted, 5, 30) >= 0.9 * 50
    later = sorted(fleet.waits[40:])
    assert later[len(later) * 9 // 10] < 0.5


def test_a_process_far_from_the_log_gets_as_much_as_the_others(run: Any, simulation: Any) -> None:
    """Each exchange takes it 0.6 s. It hears of everything late, and gets its part nevertheless."""
    events = simulation("fleet").Events(slow_way=0.3)
    fleet = run(server=STEADY, processes=4, seconds=30.0, events=events)
    assert fleet.evenness() >= 0.85
    assert len(fleet.admitted) >= 0.9 * 50 * 30
    assert fleet.refused_part() <= 0.03
