"""Redis is killed, frozen, full or not there. No request fails or waits for it."""

import time
import traceback
from collections.abc import Callable

import anyio
import pytest
from fleets import Fleet, Report, StartFleet
from processes import RedisServer

LONGEST_SILENCE = 4.0
"""Seconds in which a process sends nothing, or a page waits. The server asks for one second after a refusal."""


def set_memory(redis_server: RedisServer, most: str) -> float:
    """Set how much Redis may store, and return the time."""
    with redis_server.connect() as client:
        client.config_set("maxmemory", most)
    return time.monotonic()


OUTAGES: dict[str, tuple[Callable[[RedisServer], float], Callable[[RedisServer], float]]] = {
    "killed and started again": (RedisServer.kill, RedisServer.start),
    "frozen": (RedisServer.freeze, RedisServer.thaw),
    "full": (lambda server: set_memory(server, "1"), lambda server: set_memory(server, "0")),
}
"""What begins an outage, and what ends it."""


@pytest.mark.parametrize("outage", OUTAGES)
def test_no_request_waits_for_redis(outage: str, redis_server: RedisServer, start_fleet: StartFleet, report: Report) -> None:
    """In an outage of Redis, each process keeps its share and warns once. Then they share the limit again."""
    begin, end = OUTAGES[outage]
    fleet = start_fleet(4, redis_server.url, seconds=28)
    fleet.go()
    fleet.settle()
    begun = begin(redis_server)
    time.sleep(6)
    ended = end(redis_server)
    check_outage(fleet, begun, ended, report)


def test_redis_that_is_not_there_at_first(redis_server: RedisServer, start_fleet: StartFleet, report: Report) -> None:
    """Without Redis, processes start, warn once and learn the limit alone. When Redis is there, they share the limit."""
    redis_server.kill()
    fleet = start_fleet(4, redis_server.url, seconds=28)
    begun = fleet.go()
    time.sleep(8)
    ended = redis_server.start()
    check_outage(fleet, begun, ended, report)


def check_outage(fleet: Fleet, begun: float, ended: float, report: Report) -> None:
    """Check what a fleet did in an outage, and what it does after it."""
    notes = fleet.finish()
    traffic, size = fleet.traffic(), len(fleet.workers)
    silence = traffic.longest_silence(range(size), begun, ended)
    wait = max(each.longest_wait for each in notes)
    again = ended + max(each.seconds_until(size - 1, ended) for each in notes)
    report(
        used_in_the_outage=traffic.used(begun, ended),
        refused_in_the_outage=traffic.refused(begun, ended),
        longest_silence_of_a_process=silence,
        longest_wait_of_a_page=wait,
        seconds_until_all_share_again=again - ended,
        used_until_all_share_again=traffic.used(ended, again),
        used_after_it=traffic.used(again),
        refused_after_it=traffic.refused(again),
        slowest_by_fastest_after_it=traffic.evenness(again),
    )
    assert [len(worker.warnings) for worker in fleet.workers] == [1] * size, [worker.errors for worker in fleet.workers]
    assert [each.failed for each in notes] == [0] * size
    assert silence <= LONGEST_SILENCE
    assert wait <= LONGEST_SILENCE
    assert traffic.used(begun, ended) >= 0.7
    assert again - ended <= 10
    assert traffic.used(again) >= 0.85
    assert traffic.refused(again) <= 0.05
    assert traffic.evenness(again) >= 0.7


def test_a_process_ends_while_redis_is_frozen(redis_server: RedisServer, start_fleet: StartFleet, report: Report) -> None:
    """A process that has read everything ends within seconds, also if Redis does not answer."""
    fleet = start_fleet(2, redis_server.url, seconds=8)
    fleet.go()
    fleet.settle()
    redis_server.freeze()
    fleet.finish()
    seconds = time.monotonic() - fleet.traffic().ended
    report(seconds_to_end=seconds)
    assert seconds <= 5


@pytest.mark.anyio
@pytest.mark.parametrize("user", [":wr0ng-passw0rd@", ""], ids=["wrong", "missing"])
async def test_a_wrong_password_is_an_error_at_once(user: str, redis_server: RedisServer) -> None:
    """A password that is wrong or missing is a `ValueError` about the URL when the limiter is entered; it is not shown."""
    from commenda_customers.limits.redis import RedisLimiter

    with redis_server.connect() as client:
        client.config_set("requirepass", "right-passw0rd")
    limiter = RedisLimiter(redis_server.url.replace("//", f"//{user}"), quota="prod")
    with anyio.fail_after(10), pytest.raises(ValueError, match="url") as caught:
        async with limiter:
            pass
    assert "wr0ng-passw0rd" not in "".join(traceback.format_exception(caught.value))
