"""Processes that share a quota: how much of the limit they use together, how many requests are refused, how even it is."""

import pytest
from fleets import PAGE, Fleet, Report, StartFleet
from processes import RedisServer

from commenda_customers.testing import RateLimit

BEGINNING = 5.0
"""Seconds in which a fleet learns the limit."""


def measure(fleet: Fleet, report: Report) -> tuple[float, float, float]:
    """Run a fleet to its end. Return the part of the limit that it used, the part refused, and slowest by fastest."""
    fleet.go()
    fleet.finish()
    traffic = fleet.traffic()
    used, refused, evenness = traffic.used(), traffic.refused(), traffic.evenness()
    report(
        used_while_all_are_at_work=used,
        used_until_the_last_page=traffic.used(end=traffic.ended),
        refused=refused,
        refused_after_five_seconds=traffic.refused(begin=traffic.began + BEGINNING),
        slowest_by_fastest=evenness,
        seconds=traffic.ended - traffic.began,
    )
    return used, refused, evenness


@pytest.mark.parametrize(("size", "backend"), [(1, "asyncio"), (4, "asyncio"), (4, "trio"), (16, "asyncio")], ids=str)
def test_processes_share_a_limit(
    size: int, backend: str, redis_server: RedisServer, start_fleet: StartFleet, report: Report
) -> None:
    """Processes that share a quota use nearly all of it, in equal parts, with few refusals, and read everything once."""
    fleet = start_fleet(size, redis_server.url, backend=backend)
    used, refused, evenness = measure(fleet, report)
    commands = redis_server.commands()
    report(
        exchanges_for_each_request=commands["xadd"] / fleet.traffic().requests,
        commands_for_each_request=sum(commands.values()) / fleet.traffic().requests,
    )
    assert used >= 0.9
    assert refused <= 0.03
    assert evenness >= 0.85


@pytest.mark.parametrize("size", [1, 4, 16])
def test_processes_that_do_not_know_of_each_other(size: int, start_fleet: StartFleet, report: Report) -> None:
    """For comparison: with a limiter of its own in each process, customers are exact as well. The figures are printed."""
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
        report(**{f"used_of_the_{name}_one": traffic.used(), f"refused_of_the_{name}_one": traffic.refused()})
        assert traffic.used() >= 0.85
        assert traffic.refused() <= 0.08
        for corporation_id in fleet.server.corporations:
            assert corporation_id.encode() not in recorded
            for customer in list(fleet.server.customers(corporation_id))[:PAGE]:
                assert customer["id"].encode() not in recorded
                assert customer["name"].encode() not in recorded
        assert fleet.server.token.encode() not in recorded
        assert name.encode() in recorded, "the recording is not complete"
    report(keys=len(expiry), longest_expiry=max(expiry.values()))
    assert min(expiry.values()) > 0
