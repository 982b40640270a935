"""The decision of the adaptive limiter, against simulated servers."""

import math
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers import Permit
from commenda_customers.limits._controller import Controller


class Bucket:
    """A server with a token bucket."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, burst, 0.0

    def admits(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def drive(controller: Controller, admits: Callable[[float], bool], *, seconds: float, wait: float | None) -> list[float]:
    """Send as fast as the controller lets, with a round trip of 0.1 s; return when requests were admitted."""
    now, admitted = 0.0, list[float]()
    in_flight: deque[tuple[float, Permit, bool]] = deque()
    while now < seconds:
        while in_flight and in_flight[0][0] <= now:
            _, permit, good = in_flight.popleft()
            controller.ended(permit)
            if good:
                controller.succeeded(permit, now)
            else:
                controller.throttled(permit, now, wait)
        delay = controller.delay(now, len(in_flight))
        if delay <= 0:
            controller.begin(now)
            good = admits(now)
            in_flight.append((now + 0.1, Permit(now, len(in_flight) + 1), good))
            admitted += [now] * good
        else:
            now = min(now + delay, in_flight[0][0] if in_flight else math.inf)
    return admitted


class TestController:
    """The pure decision."""

    @pytest.mark.parametrize("wait", [None, 1.0])
    @pytest.mark.parametrize(("rate", "burst"), [(50, 50), (50, 10), (5, 5), (200, 20)])
    def test_it_finds_the_rate_of_the_server(self, rate: float, burst: float, wait: float | None) -> None:
        """The controller uses most of the server's limit once it is known, and few requests are refused."""
        bucket, controller, refused = Bucket(rate, burst), Controller(), 0

        def admits(now: float) -> bool:
            nonlocal refused
            good = bucket.admits(now)
            refused += not good
            return good

        admitted = [at for at in drive(controller, admits, seconds=200, wait=wait) if at > 20]
        assert len(admitted) >= 0.88 * 180 * rate
        assert refused <= 0.02 * len(admitted) + 5

    def test_a_limit_that_falls_is_followed(self) -> None:
        """The rate follows a limit that falls within seconds, and rises again."""
        bucket, controller = Bucket(100, 20), Controller()

        def admits(now: float) -> bool:
            bucket.rate = 20 if 50 <= now < 150 else 100
            return bucket.admits(now)

        admitted = drive(controller, admits, seconds=300, wait=None)
        assert sum(70 <= at < 150 for at in admitted) >= 0.9 * 80 * 20
        assert sum(240 <= at < 300 for at in admitted) >= 0.85 * 60 * 100

    def test_a_limit_of_requests_in_flight_is_found(self) -> None:
        """The window finds the server's limit of requests in flight."""
        controller, active = Controller(), deque[float]()

        def admits(now: float) -> bool:
            while active and active[0] <= now:
                active.popleft()
            if len(active) >= 6:
                return False
            active.append(now + 0.1)
            return True

        admitted = drive(controller, admits, seconds=120, wait=None)
        assert int(controller.window.value) == 6
        assert sum(at > 60 for at in admitted) >= 0.95 * 60 * 6 / 0.1

    def test_without_a_limit_the_window_grows(self) -> None:
        """The number of requests in flight grows by half with each round trip while nothing is refused."""
        controller = Controller()
        admitted = drive(controller, lambda _now: True, seconds=1.5, wait=None)
        assert not controller.is_limited
        assert sum(at > 1.4 for at in admitted) > 500

    def test_refusals_of_one_episode_count_once(self) -> None:
        """Refusals of requests that were sent before the first refusal change nothing."""
        controller = Controller()
        permits = [Permit(number / 100, number + 1) for number in range(20)]
        for permit in permits:
            controller.begin(permit.sent)
        controller.succeeded(permits[0], 0.5)
        controller.throttled(permits[1], 0.6, None)
        rate, pause = controller.rate.value, controller.paused_until
        for permit in permits[2:]:
            controller.throttled(permit, 0.7, None)
        assert (controller.rate.value, controller.paused_until) == (rate, pause)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["ok", "throttled", "waits", "lost"]),
                st.floats(0, 5),
                st.floats(0.001, 60),
                st.booleans(),
            ),
            max_size=80,
        )
    )
    def test_it_never_stops_for_ever(self, story: list[tuple[str, float, float, bool]]) -> None:
        """The next request may begin within the pause and a few seconds, whatever happened, when nothing is in flight."""
        controller, now, last_wait = Controller(), 0.0, 0.0
        for outcome, passes, wait, is_probe in story:
            delay = controller.delay(now, 0)
            assert 0 <= delay <= max(last_wait, 8.0) + 1 / controller.LEAST_RATE
            now += delay if is_probe else passes
            permit = Permit(now, 1)
            controller.begin(now)
            now += 0.1
            controller.ended(permit)
            if outcome == "ok":
                controller.succeeded(permit, now)
            elif outcome != "lost":
                controller.throttled(permit, now, wait if outcome == "waits" else None)
                last_wait = max(last_wait, wait)
