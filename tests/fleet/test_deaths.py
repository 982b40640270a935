"""Processes of a fleet that are killed or frozen."""

import time
from collections.abc import Sequence

from fleets import Report, StartFleet
from processes import RedisServer, wait_until
from traffic import Traffic
from worker import Notes

SIZE = 4
LONGEST_TAKEOVER = 5.0
"""Seconds. It is 4 on a machine that has nothing else to do."""


def check_takeover(traffic: Traffic, others: Sequence[Notes], gone: float, until: float, report: Report) -> None:
    """Check what the others do after a process has gone: soon, all of them know it, and use the limit without it."""
    taken_over = max(each.seconds_until(SIZE - 2, gone) for each in others)
    report(
        seconds_to_take_over=taken_over,
        used_before=traffic.used(gone - 2, gone),
        used_until_they_take_over=traffic.used(gone, gone + taken_over),
        used_from_then_on=traffic.used(gone + taken_over, until),
        unused_of_the_limit_in_seconds=traffic.unused(gone, until),
        refused_without_it=traffic.refused(gone, until),
    )
    assert taken_over <= LONGEST_TAKEOVER
    assert traffic.used(gone + taken_over, until) >= 0.85
    assert traffic.refused(gone, until) <= 0.05


def test_others_take_over_the_share_of_a_killed_process(
    redis_server: RedisServer, start_fleet: StartFleet, report: Report
) -> None:
    """After a SIGKILL, the others use the limit within seconds; a new process gets its share, and reads what was left."""
    fleet = start_fleet(SIZE, redis_server.url, seconds=25)
    fleet.go()
    fleet.settle()
    killed = fleet.workers[0].kill()
    time.sleep(8)
    successor = fleet.add(fleet.workers[0].task.corporations)
    wait_until(successor.is_ready, "the new process is ready")
    joined = time.monotonic()
    successor.go()
    *others, _ = fleet.finish()

    traffic = fleet.traffic()
    check_takeover(traffic, others, killed, joined, report)
    begin = joined + 2
    report(
        used_with_the_new_process=traffic.used(begin),
        refused_with_the_new_process=traffic.refused(begin),
        slowest_by_fastest_with_the_new_process=traffic.evenness(begin),
    )
    assert traffic.used(begin) >= 0.85
    assert traffic.refused(begin) <= 0.05
    assert traffic.evenness(begin) >= 0.7


def test_others_take_over_the_share_of_a_frozen_process(
    redis_server: RedisServer, start_fleet: StartFleet, report: Report
) -> None:
    """After a SIGSTOP, the others use the limit within seconds; after a SIGCONT, the process has its share again."""
    fleet = start_fleet(SIZE, redis_server.url, seconds=25)
    fleet.go()
    fleet.settle()
    frozen = fleet.workers[0].freeze()
    time.sleep(8)
    thawed = fleet.workers[0].thaw()
    notes = fleet.finish()

    traffic = fleet.traffic()
    check_takeover(traffic, notes[1:], frozen, thawed, report)
    begin = thawed + 2
    report(
        seconds_until_it_is_back=traffic.first_of(0, thawed),
        used_when_it_is_back=traffic.used(begin),
        refused_when_it_is_back=traffic.refused(thawed),
        slowest_by_fastest_when_it_is_back=traffic.evenness(begin),
    )
    assert traffic.first_of(0, thawed) <= 3
    assert traffic.used(begin) >= 0.85
    assert traffic.refused(thawed) <= 0.05
    assert traffic.evenness(begin) >= 0.7
    assert [each.failed for each in notes] == [0] * SIZE
