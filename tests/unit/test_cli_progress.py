"""What `commenda-customers export` says about its progress, in virtual time."""

from dataclasses import replace
from typing import Any

import anyio
import pytest

from commenda_customers import AsyncCustomersAPI, LimiterSnapshot
from commenda_customers.cli._progress import Display, Monitor
from commenda_customers.events import RequestSent
from commenda_customers.progress import CorporationProgress, StreamProgress

pytestmark = pytest.mark.anyio

SNAPSHOT = LimiterSnapshot(rate=None, in_flight=0, max_in_flight=100, waiting=0, paused_for=0)


class Limiter:
    """A limiter in the state that a test gives it."""

    def __init__(self) -> None:
        self.state = SNAPSHOT

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Any:
        raise NotImplementedError

    def release(self, permit: Any, feedback: Any) -> None:
        raise NotImplementedError

    def estimate_wait(self) -> float:
        raise NotImplementedError

    def snapshot(self) -> LimiterSnapshot:
        return self.state


def display_of(monitor: Monitor, limiter: Limiter | None, corporations: int) -> Display:
    api = AsyncCustomersAPI("token", rate_limit=limiter)
    return Display(monitor, api, corporations=corporations, shares_terminal=False)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "no limit known"),
        ({"rate": 12.34}, "limit: 12.3 requests/s"),
        ({"rate": 5, "paused_for": 1.2}, "paused for 2 s, because the server refused requests"),
        ({"is_half_open": True}, "the server accepts no requests; one request at a time tests whether it is back"),
    ],
)
async def test_the_limit(changes: dict[str, Any], text: str) -> None:
    """It says what the limiter has learned, or why nothing is sent."""
    limiter = Limiter()
    limiter.state = replace(SNAPSHOT, **changes)
    assert display_of(Monitor(0), limiter, 1).describe()[-1] == text


async def test_without_a_limiter() -> None:
    """Without a limiter it says nothing of a limit."""
    assert display_of(Monitor(0), None, 1).describe() == ["waiting for the first page, 0 requests so far", "time 0:00:00"]


async def test_the_speed_is_that_of_the_last_half_minute() -> None:
    """Requests per second, and the time that is left, follow what happened lately."""
    monitor = Monitor(0)
    one = CorporationProgress(total_customers=100_000)
    started = {"a": one}
    monitor.advance(StreamProgress(started, started, customers_before=500))
    progress = monitor.progress
    assert progress is not None
    display = display_of(monitor, None, 2)
    display.describe()
    for step in range(200):
        await anyio.sleep(1)
        for _ in range(10 if step < 100 else 2):
            monitor(RequestSent(corporation_id="a", cursor=None, attempt=1))
        one.customers += 100
        progress.customers += 100
        lines = display.describe()
    assert lines[0] == "20,500 customers, 0 pages, 2.0 requests/s"
    assert lines[1] == "0 of 2 corporations done, 1 in flight, 0 failed"
    assert lines[2] == "time 0:03:20, about 0:30:05 left"  # the other one may be as long
    progress.finished = 1
    assert display.describe()[2] == "time 0:03:20, about 0:13:20 left"
