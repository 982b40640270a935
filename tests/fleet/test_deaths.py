"""Processes of a fleet that are killed or frozen."""

import time

from fleets import Report, StartFleet
from processes import RedisServer, wait_until

LONGEST_TAKEOVER = 6.0
"""Seconds. It is 4 on a machine that has nothing else to do."""


def test_others_take_over_the_share_of_a_killed_process(
    redis_server: RedisServer, start_fleet: StartFleet, report: Report
) -> None:
    """After a SIGKILL, the others use the limit within seconds; a new process gets its share, and reads what was left."""
    fleet = start_fleet(4, redis_server.url, seconds=25)
    fleet.go()
    fleet.settle()
    killed = fleet.workers[0].kill()
    time.sleep(8)
    successor = fleet.add(fleet.workers[0].task.corporations)
    wait_until(successor.is_ready, "the new process is ready")
    joined = time.monotonic()
    successor.go()
    fleet.finish()

    traffic = fleet.traffic()
    taken_over = traffic.recovery(killed)
    begin = joined + 2
    report(
        seconds_to_take_over=taken_over,
        refused_from_the_kill_to_the_new_process=traffic.refused(killed, joined),
        used_with_the_new_process=traffic.used(begin),
        refused_with_the_new_process=traffic.refused(begin),
        slowest_by_fastest_with_the_new_process=traffic.evenness(begin),
    )
    assert taken_over <= LONGEST_TAKEOVER
    assert traffic.refused(killed, joined) <= 0.05
    assert traffic.used(begin) >= 0.85
    assert traffic.refused(begin) <= 0.05
    assert traffic.evenness(begin) >= 0.7


def test_others_take_over_the_share_of_a_frozen_process(
    redis_server: RedisServer, start_fleet: StartFleet, report: Report
) -> None:
    """After a SIGSTOP, the others use the limit within seconds; after a SIGCONT, the process has its share again."""
    fleet = start_fleet(4, redis_server.url, seconds=25)
    fleet.go()
    fleet.settle()
    frozen = fleet.workers[0].freeze()
    time.sleep(8)
    thawed = fleet.workers[0].thaw()
    notes = fleet.finish()

    traffic = fleet.traffic()
    taken_over = traffic.recovery(frozen)
    begin = thawed + 2
    report(
        seconds_to_take_over=taken_over,
        refused_while_frozen=traffic.refused(frozen, thawed),
        seconds_until_it_is_back=traffic.first_of(0, thawed),
        used_when_it_is_back=traffic.used(begin),
        refused_when_it_is_back=traffic.refused(thawed),
        slowest_by_fastest_when_it_is_back=traffic.evenness(begin),
    )
    assert taken_over <= LONGEST_TAKEOVER
    assert traffic.refused(frozen, thawed) <= 0.05
    assert traffic.first_of(0, thawed) <= 3
    assert traffic.used(begin) >= 0.85
    assert traffic.refused(thawed) <= 0.05
    assert traffic.evenness(begin) >= 0.7
    assert [each.failed for each in notes] == [0] * 4
