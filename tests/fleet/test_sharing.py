"""Processes that share a quota: how much of the limit they use together, how many requests are refused, how even it is."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from fleets import PAGE, Fleet, Report, StartFleet
from processes import RedisServer

from commenda_customers.testing import RateLimit

BEGINNING = 5.0
"""Seconds in which a fleet learns the limit. Up to 20 requests are refused in the first one: 2 % of those of 20 seconds."""


class Figures(NamedTuple):
    """What a fleet did to a limit: the part that it used, and the parts of its requests that were refused."""

    used: float
    refused: float
    refused_later: float
    evenness: float


def measure(fleet: Fleet, report: Report) -> Figures:
    """Run a fleet to its end."""
    fleet.go()
    fleet.finish()
    traffic = fleet.traffic()
    learned = traffic.began + BEGINNING
    figures = Figures(traffic.used(), traffic.refused(), traffic.refused(learned), traffic.evenness(learned))
    report(
        used_while_all_are_at_work=figures.used,
        used_until_the_last_page=traffic.used(end=traffic.ended),
        refused=figures.refused,
        refused_after_five_seconds=figures.refused_later,
        slowest_by_fastest_after_five_seconds=figures.evenness,
        seconds=traffic.ended - traffic.began,
    )
    return figures


MeasureSharing = Callable[..., Figures]


@pytest.fixture
def measure_sharing(redis_server: RedisServer, start_fleet: StartFleet, report: Report) -> MeasureSharing:
    """Return a function that runs a fleet with one quota to its end, and counts what it asks of Redis."""

    def run(size: int, **options: str) -> Figures:
        fleet, before = start_fleet(size, redis_server.url, **options), redis_server.commands()
        figures = measure(fleet, report)
        commands, requests = redis_server.commands() - before, fleet.traffic().requests
        report(exchanges_for_each_request=commands["xadd"] / requests)
        report(commands_for_each_request=commands.total() / requests)
        return figures

    return run


@pytest.fixture(scope="module")
def known() -> list[Figures]:
    """Return what one process reaches, if it was measured."""
    return []


@pytest.fixture
def one_process(known: list[Figures], measure_sharing: MeasureSharing) -> Figures:
    """Return what one process reaches. It is measured once in a session."""
    if not known:
        known.append(measure_sharing(1, quota="one"))
    return known[0]


def test_one_process(one_process: Figures) -> None:
    """A single process uses nearly all of the limit."""
    assert one_process.used >= 0.9
    assert one_process.refused_later <= 0.03


@pytest.mark.parametrize(("size", "backend"), [(4, "asyncio"), (4, "trio"), (16, "asyncio")], ids=str)
def test_processes_share_a_limit(
    size: int, backend: str, one_process: Figures, measure_sharing: MeasureSharing, report: Report
) -> None:
    """
    Processes that share a quota use nearly all of it, in equal parts, with few refusals, and read everything once.

    They use 95 % of what one process uses, and are refused 1.2 times as often. The rest of the bounds is for chance, and for
    a busy machine. In 20 seconds, less than ten requests are refused after the beginning. At the beginning, processes that
    hear of the first refusal a few hundredths of a second later are refused 20 times more.
    """
    figures = measure_sharing(size, backend=backend)
    report(
        used_compared_with_one_process=figures.used / one_process.used,
        refused_compared_with_one_process=figures.refused / one_process.refused,
        and_after_five_seconds=figures.refused_later / max(one_process.refused_later, 0.001),
    )
    assert figures.used >= 0.9 * one_process.used
    assert figures.refused_later <= 1.2 * one_process.refused_later + 0.01
    assert figures.refused <= 1.2 * one_process.refused + 0.03
    assert figures.evenness >= 0.85


@pytest.mark.parametrize("size", [1, 4, 16])
def test_processes_that_do_not_know_of_each_other(
    size: int, start_fleet: StartFleet, report: Report, pytestconfig: pytest.Config
) -> None:
    """For comparison: with a limiter of its own in each process, customers are exact as well. The figures are printed."""
    if not pytestconfig.getoption("--compare"):
        pytest.skip("only with --compare")
    measure(start_fleet(size, None), report)


def test_two_quotas_in_one_redis(redis_server: RedisServer, start_fleet: StartFleet, report: Report) -> None:
    """Quotas do not touch each other. Keys expire, and nothing in Redis has a token, a corporation's id or a customer."""
    with redis_server.monitor() as recorded:
        fast = start_fleet(2, redis_server.url, quota="fast", seconds=15)
        slow = start_fleet(2, redis_server.url, quota="slow", seconds=15, limit=RateLimit(rate=20, burst=10))
        fleets = {"fast": fast, "slow": slow}
        for fleet in fleets.values():
            fleet.go()
        fast.settle()
        with redis_server.connect() as client:
            expiry = {key: client.ttl(key) for key in client.scan_iter()}
        for fleet in fleets.values():
            fleet.finish()

    for name, fleet in fleets.items():
        traffic = fleet.traffic()
        used, refused = traffic.used(), traffic.refused(begin=traffic.began + BEGINNING)
        report(**{f"used_of_the_{name}_one": used, f"refused_of_the_{name}_one_after_five_seconds": refused})
        assert used >= 0.85
        assert refused <= 0.05
        for corporation_id in fleet.server.corporations:
            assert corporation_id.encode() not in recorded
            for customer in list(fleet.server.customers(corporation_id))[:PAGE]:
                assert customer["id"].encode() not in recorded
                assert customer["name"].encode() not in recorded
        assert fleet.server.token.encode() not in recorded
        assert name.encode() in recorded, "the recording is not complete"
    report(keys=len(expiry), longest_expiry=max(expiry.values()))
    assert min(expiry.values()) > 0
