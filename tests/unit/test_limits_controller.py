"""The decision of the adaptive limiter, against simulated servers."""

import copy
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers.limits._controller import Controller
from commenda_customers.limits._outcomes import Kind, Outcome, Trial
from commenda_customers.limits._pacing import Pacer


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


Send = Callable[[float], Kind]


def drive(pacer: Pacer, send: Send, *, seconds: float, wait: float | None = None, at_once: int = 40) -> list[float]:
    """Send as fast as the pacer allows, with a round trip of 0.1 s; return when requests succeeded."""
    now, succeeded = 0.0, list[float]()
    in_flight: deque[tuple[float, Outcome]] = deque()
    while now < seconds:
        while in_flight and in_flight[0][0] <= now:
            _, outcome = in_flight.popleft()
            pacer.end(outcome.sent)
            pacer.observe(outcome)
        delay = pacer.delay(now) if len(in_flight) < at_once else math.inf
        if delay <= 0:
            pacer.begin(now)
            kind = send(now)
            asked = wait if kind is Kind.REFUSAL else None
            in_flight.append((now + 0.1, Outcome(kind, now, now + 0.1, len(in_flight) + 1, asked)))
            succeeded += [now] * (kind is Kind.SUCCESS)
        else:
            now = min(now + delay, in_flight[0][0] if in_flight else math.inf)
    return succeeded


def limited_by(bucket: Bucket, kind: Kind = Kind.REFUSAL) -> Send:
    """Return a server with this limit."""
    return lambda now: Kind.SUCCESS if bucket.admits(now) else kind


def at_chance(part: float, beyond: Send = lambda _now: Kind.SUCCESS, *, seed: int = 2) -> Send:
    """Return a server that refuses a part of the requests at random."""
    draw = Random(seed)
    return lambda now: Kind.REFUSAL if draw.random() < part else beyond(now)


def observe(controller: Controller, *kinds: Kind, now: float = 0.0, wait: float | None = None) -> float:
    """Let one request after the other have these outcomes; return the time."""
    for kind in kinds:
        now = max(now, controller.paused_until)
        controller.observe(Outcome(kind, now, now + 0.1, 1, wait if kind is Kind.REFUSAL else None))
        now += 0.1
    return now


def find_chance(controller: Controller, now: float) -> float:
    """Let a trial show that one of fifteen requests is refused by chance; return the time."""
    controller.trial, controller.hold = Trial(controller.rate, 1.0, 1 / 15), math.inf
    now = observe(controller, *([OK] * 14 + [REFUSED]) * 5, OK, now=now)
    assert controller.chance == pytest.approx(1 / 15, rel=0.1)
    return now


OK, REFUSED, REJECTED, FAILED = Kind.SUCCESS, Kind.REFUSAL, Kind.REJECTION, Kind.FAILURE


class TestLimits:
    """A limit is found, and used."""

    @pytest.mark.parametrize("wait", [None, 1.0])
    @pytest.mark.parametrize(("rate", "burst"), [(50, 50), (50, 10), (5, 5), (200, 20)])
    def test_it_finds_the_rate_of_the_server(self, rate: float, burst: float, wait: float | None) -> None:
        """The controller uses most of the server's limit once it is known, and few requests are refused."""
        bucket, refused = Bucket(rate, burst), 0

        def send(now: float) -> Kind:
            nonlocal refused
            good = bucket.admits(now)
            refused += not good
            return OK if good else REFUSED

        succeeded = [at for at in drive(Pacer(), send, seconds=200, wait=wait) if at > 20]
        assert len(succeeded) >= 0.9 * 180 * rate
        assert refused <= 0.04 * len(succeeded) + 10

    @pytest.mark.parametrize("kind", [REFUSED, REJECTED])
    def test_a_limit_that_falls_is_followed(self, kind: Kind) -> None:
        """The rate follows a limit that falls within seconds, and one that rises again, also where the server is silent."""
        bucket = Bucket(100, 20)

        def send(now: float) -> Kind:
            bucket.rate = 20 if 50 <= now < 150 else 100
            return limited_by(bucket, kind)(now)

        succeeded = drive(Pacer(), send, seconds=300)
        assert sum(70 <= at < 150 for at in succeeded) >= 0.9 * 80 * 20
        assert sum(200 <= at < 300 for at in succeeded) >= 0.85 * 100 * 100

    def test_a_limit_of_requests_in_flight_is_survived(self) -> None:
        """Most of a limit of requests in flight is used, although a rate cannot express it."""
        active = deque[float]()

        def send(now: float) -> Kind:
            while active and active[0] <= now:
                active.popleft()
            if len(active) >= 6:
                return REFUSED
            active.append(now + 0.1)
            return OK

        succeeded = drive(Pacer(), send, seconds=120)
        assert sum(at > 60 for at in succeeded) >= 0.6 * 60 * 6 / 0.1

    def test_a_quota_of_a_minute_is_used_at_full_speed(self) -> None:
        """A server that counts requests per minute gets them at once, and then no more than a few until it takes more."""
        counts: dict[int, int] = {}

        def send(now: float) -> Kind:
            minute = int(now // 60)
            counts[minute] = counts.get(minute, 0) + 1
            return OK if counts[minute] <= 5000 else REFUSED

        pacer = Pacer()
        succeeded = drive(pacer, send, seconds=300)
        assert len(succeeded) >= 0.95 * 25_000
        assert max(counts.values()) <= 5100

    def test_a_long_wait_after_few_refusals_is_a_quota(self) -> None:
        """If nearly all requests got through before a long wait, no rate is learned from it."""
        controller = Controller(rate=50.0, hold=math.inf, has_worked=True)
        now = observe(controller, *[OK] * 300, REFUSED, REFUSED, REFUSED, wait=40)
        assert controller.paused_until == pytest.approx(now + 40, abs=0.2)
        assert controller.rate == 50

    def test_a_slow_limit_with_long_waits_is_learned(self) -> None:
        """If many of the few requests are refused, the waits are part of the time in which the others got through."""
        controller, now = Controller(), 0.0
        for _ in range(10):
            now = observe(controller, *[OK] * 10, REFUSED, REFUSED, REFUSED, now=now, wait=30)
        assert 0.2 < controller.rate < 0.5

    def test_a_hint_of_an_older_request_is_ignored(self) -> None:
        """A used-up quota is learned from once, and not again from responses to requests that were sent before."""
        controller = Controller(has_worked=True)
        now = observe(controller, *[OK] * 20)
        controller.exhaust(Outcome(REFUSED, now, now + 0.1, 1))
        rate, pause = controller.rate, controller.paused_until
        assert rate < math.inf
        controller.exhaust(Outcome(REFUSED, now, now + 0.2, 1))
        assert (controller.rate, controller.paused_until) == (rate, pause)

    def test_without_a_limit_the_window_grows(self) -> None:
        """The number of requests in flight grows by half with each round trip while nothing is refused."""
        pacer = Pacer()
        succeeded = drive(pacer, lambda _now: OK, seconds=1.5, at_once=1000)
        assert not pacer.controller.is_limited
        assert sum(at > 1.4 for at in succeeded) > 500


class TestChance:
    """Refusals that are no limit."""

    def test_single_refusals_concern_their_request_alone(self) -> None:
        """Two refusals in a row are let pass, and one for each ten successes: nothing pauses, and no rate is learned."""
        controller = Controller()
        now = observe(controller, OK, REFUSED, REFUSED, wait=60)
        for _ in range(20):
            now = observe(controller, *[OK] * 11, REFUSED, now=now, wait=60)
        assert (controller.let_pass, controller.paused_until, controller.is_limited) == (22, -math.inf, False)

    def test_the_third_refusal_in_a_row_is_a_lesson(self) -> None:
        """Refusals in a cluster pause everyone for as long as the server asks, and what got through becomes the rate."""
        controller = Controller()
        now = observe(controller, *[OK] * 20, REFUSED, REFUSED, REFUSED, wait=60)
        assert controller.paused_until == pytest.approx(now + 60)
        assert 0.9 * 20 / 2.3 < controller.rate < 20 / 2.3

    def test_the_window_survives_a_lesson(self) -> None:
        """When the cuts are undone, the slow start resumes at its old window."""
        controller = Controller()
        observe(controller, *[OK] * 20, *[REFUSED] * 3)
        assert (controller.is_limited, controller.window < 24) == (True, True)

    def test_too_few_responses_teach_no_rate(self) -> None:
        """Refusals among the first requests halve the window only."""
        controller = Controller()
        observe(controller, OK, OK, REFUSED, REFUSED, REFUSED)
        assert (controller.is_limited, controller.window < 4) == (False, True)

    @pytest.mark.parametrize(("part", "least"), [(0.002, 0.95), (0.01, 0.8), (0.05, 0.85)])
    def test_refusals_by_chance_do_not_cripple(self, part: float, least: float) -> None:
        """A server that refuses a part of the requests at random, whatever their rate, is used nearly in full."""
        best = len(drive(Pacer(), lambda _now: OK, seconds=120, at_once=20))
        succeeded = [len(drive(Pacer(), at_chance(part, seed=seed), seconds=120, at_once=20)) for seed in range(4)]
        assert sum(succeeded) / 4 >= least * best

    def test_chance_does_not_hide_a_limit(self) -> None:
        """Where some requests are refused at random, a limit is found all the same."""
        refused, server = 0, at_chance(0.02, limited_by(Bucket(50, 20)))

        def send(now: float) -> Kind:
            nonlocal refused
            kind = server(now)
            refused += kind is REFUSED
            return kind

        succeeded = drive(Pacer(), send, seconds=200)
        assert len(succeeded) >= 0.85 * 200 * 50
        assert refused <= 0.1 * len(succeeded)

    def test_chance_undoes_all_cuts(self) -> None:
        """If refusals turn out to be chance, there was no reason for the first lesson either: no rate is known again."""
        controller = Controller()
        now = observe(controller, *[OK] * 20, *[REFUSED] * 3)
        assert controller.is_limited
        find_chance(controller, now)
        assert not controller.is_limited

    def test_a_lesson_that_chance_does_not_explain_is_a_limit(self) -> None:
        """If undoing the cuts leads to a lesson although chance is tolerated, there is a limit too, and its cut stays."""
        controller = Controller()
        now = observe(controller, *[OK] * 20, *[REFUSED] * 3)
        now = find_chance(controller, now)
        now = observe(controller, *[OK] * 20, *[REFUSED] * 6, now=now)
        assert controller.is_limited
        find_chance(controller, now)
        assert controller.is_limited

    def test_late_news_do_not_stretch_a_period(self) -> None:
        """What another process tells two seconds after a lesson counts from then on: the rate is not measured too low."""
        controller = Controller(is_shared=True, rate=50.0, round_trip=0.1, has_worked=True)
        controller.resume_at(50.0, now=100.0)
        for told in (100.5, 101.0):
            for number in range(20):
                sent = 98.0 + number / 20
                controller.observe(Outcome(OK, sent, sent + 0.1, 5, told=told))
        for _ in range(20):
            controller.observe(Outcome(REFUSED, 100.9, 101.0, 5))
        assert controller.rate >= 0.9 * 40

    @pytest.mark.parametrize("round_trip", [0.1, 0.4, 1.6])
    def test_a_shared_rate_is_tried_only_after_it_has_grown(self, round_trip: float) -> None:
        """The first rate of several processes may be far too high, also if the burst before it made round trips longer."""
        controller = Controller(is_shared=True, round_trip=round_trip, has_worked=True)
        controller.resume_at(50.0, now=0.0)
        often_refused = ([OK] * 11 + [REFUSED]) * 5
        observe(controller, *often_refused)
        assert controller.trial is None
        controller.age = controller.hold + 0.1
        now = observe(controller, REFUSED, REFUSED, OK)
        assert not controller.is_growing
        observe(controller, *often_refused, now=now)
        assert controller.trial is not None

    def test_a_cluster_in_a_trial_does_not_end_it(self) -> None:
        """Chance has clusters too: all pause, but the trial goes on."""
        trial = Trial(rate=11.0, hold=2.0, refused=0.1)
        controller = Controller(rate=10.0, hold=math.inf, trial=trial, has_worked=True)
        now = observe(controller, OK, REFUSED, REFUSED, REFUSED)
        assert (controller.trial, controller.rate, controller.paused_until > now) == (trial, 10, True)
        observe(controller, *[OK] * 71, now=now)
        assert (controller.trial, controller.rate, controller.chance) == (None, 11, pytest.approx(3 / 75))

    def test_a_server_that_refuses_much_ends_a_trial(self) -> None:
        """If many of the first requests of a trial are refused, the limit is much lower, and the rate falls at once."""
        trial = Trial(rate=11.0, hold=2.0, refused=1 / 15)
        controller = Controller(rate=10.0, hold=math.inf, trial=trial, has_worked=True)
        observe(controller, *[OK, OK, REFUSED] * 12)
        assert (controller.trial, 5 <= controller.rate < 7) == (None, True)

    def test_a_rate_that_is_a_little_too_high_is_no_chance(self) -> None:
        """Refusals that stop when the rate is cut were no chance: the lower rate is kept."""
        controller, bucket = Controller(rate=52.0, hold=1e6, has_worked=True), Bucket(50, 1)
        pacer = Pacer(controller)
        drive(pacer, limited_by(bucket), seconds=60)
        assert (controller.chance, controller.rate < 50) == (0.0, True)


class TestShut:
    """A server that takes nothing at all."""

    def test_one_request_at_a_time_finds_out(self) -> None:
        """After refusals that follow a pause, the pauses double, and one request at a time is sent."""
        pacer, sent = Pacer(), list[float]()

        def send(now: float) -> Kind:
            sent.append(now)
            return OK if now < 5 or now >= 65 else REFUSED

        succeeded = drive(pacer, send, seconds=90)
        probes = [at for at in sent if 6 <= at < 65]
        assert len(probes) <= 14
        assert max(later - at for at, later in pairwise(probes)) <= 9.2
        assert min(at for at in succeeded if at > 65) < 65 + 9.2

    @pytest.mark.parametrize("kind", [REJECTED, FAILED])
    def test_after_an_outage_all_goes_on_at_the_rate_that_was_known(self, kind: Kind) -> None:
        """An outage is asked about every few seconds, and costs little more than itself: no rate is to blame for it."""
        sent, bucket = list[float](), Bucket(50, 20)

        def send(now: float) -> Kind:
            sent.append(now)
            return kind if 60 <= now < 210 else limited_by(bucket)(now)

        pacer = Pacer()
        succeeded = drive(pacer, send, seconds=240)
        assert sum(61 <= at < 210 for at in sent) <= 45
        again = min(at for at in succeeded if at > 210)
        assert again < 216
        assert sum(again + 1 <= at < again + 11 for at in succeeded) >= 0.9 * 500

    @pytest.mark.parametrize("kind", [REJECTED, FAILED])
    def test_a_blip_costs_little(self, kind: Kind) -> None:
        """Two seconds without a success cost at most two more."""
        succeeded = drive(Pacer(), lambda now: kind if 20 <= now < 22 else OK, seconds=40)
        assert min(at for at in succeeded if at > 22) < 24

    def test_failures_of_a_server_that_never_worked_are_not_an_outage(self) -> None:
        """As long as nothing was answered, failures are the business of the retry policy."""
        controller = Controller()
        for number in range(20):
            controller.observe(Outcome(FAILED, number, number + 0.1, 1, is_answered=False))
        assert (controller.is_half_open, controller.paused_until) == (False, -math.inf)

    def test_failures_between_successes_are_not_an_outage(self) -> None:
        """A page that always fails does not slow down the others."""
        controller = Controller()
        observe(controller, *[OK, FAILED, FAILED, FAILED] * 20)
        assert (controller.is_half_open, controller.is_limited, controller.paused_until) == (False, False, -math.inf)

    def test_an_outage_does_not_end_a_trial(self) -> None:
        """After an outage in a trial, the trial goes on at its rate, and ends."""
        trial = Trial(rate=11.0, hold=2.0, refused=1 / 15)
        controller = Controller(rate=10.0, hold=math.inf, trial=trial, has_worked=True)
        now = observe(controller, *[OK] * 35, *[REJECTED] * 6)
        assert (controller.is_half_open, controller.rate, controller.trial) == (True, 10, trial)
        observe(controller, *[OK] * 80, now=now)
        assert (controller.trial, controller.hold < math.inf) == (None, True)

    def test_a_probe_that_hangs_does_not_block_the_next(self) -> None:
        """While one probe hangs, another is sent every four seconds."""
        pacer = Pacer()
        now = observe(pacer.controller, OK, *[FAILED] * 6)
        now = max(now, pacer.controller.paused_until)
        pacer.begin(now)
        assert pacer.delay(now + 1) == pytest.approx(3)
        assert pacer.delay(now + 4) == 0

    def test_a_probe_that_hangs_does_not_fill_a_small_window(self) -> None:
        """The next probe is sent after four seconds, even if only one request may be in flight."""
        pacer = Pacer(Controller(window=1.0, strikes=2, has_worked=True))
        pacer.begin(10.0)
        assert (pacer.delay(11.0), pacer.delay(14.0)) == (3.0, 0.0)

    def test_a_long_wait_of_an_older_request_prolongs_the_pause(self) -> None:
        """While one request at a time finds out, a long wait holds, whichever request was told of it."""
        controller = Controller(strikes=2, has_worked=True, lesson_at=10.0, paused_until=10.4)
        controller.observe(Outcome(REFUSED, 9.9, 10.1, 1, 30.0))
        assert controller.paused_until == pytest.approx(40.1)

    def test_refusals_again_and_again_are_no_chance(self) -> None:
        """If nothing gets through after refusals were taken for chance, the lower rate holds."""
        controller = Controller(rate=50.0, fallback=20.0, chance=0.1, strikes=1, has_worked=True)
        observe(controller, REFUSED)
        assert (controller.rate, controller.chance, controller.is_half_open) == (20.0, 0.0, True)


class TestState:
    """The state is plain data, and outcomes are values."""

    def test_refusals_of_one_cluster_count_once(self) -> None:
        """Refusals of requests that were sent before a lesson change nothing."""
        controller = Controller()
        now = observe(controller, *[OK] * 20, REFUSED, REFUSED, REFUSED)
        rate, pause = controller.rate, controller.paused_until
        for _ in range(20):
            controller.observe(Outcome(REFUSED, now - 0.5, now + 0.1, 5))
        assert (controller.rate, controller.paused_until) == (rate, pause)

    @given(st.lists(st.tuples(st.sampled_from(Kind), st.floats(0.01, 3), st.none() | st.floats(0.1, 30)), max_size=120))
    def test_it_can_be_dumped_and_loaded(self, story: list[tuple[Kind, float, float | None]]) -> None:
        """A controller that was dumped and loaded in the middle of a story ends like one that was not."""
        now, one, other = 0.0, Controller(), Controller()
        for kind, seconds, wait in story:
            outcome = Outcome(kind, now, now + 0.1, 3, wait)
            one.observe(outcome)
            other = copy.deepcopy(other)
            other.observe(Outcome(*outcome))
            now += seconds
        assert asdict(one) == asdict(other)

    @given(
        st.lists(
            st.tuples(st.sampled_from([*Kind, None]), st.floats(0, 5), st.none() | st.floats(0.001, 60), st.booleans()),
            max_size=80,
        )
    )
    def test_it_never_stops_for_ever(self, story: list[tuple[Kind | None, float, float | None, bool]]) -> None:
        """The next request may begin within the pause and the time of one request, when nothing is in flight."""
        pacer, now, last_wait = Pacer(), 0.0, 0.0
        for kind, passes, wait, is_probe in story:
            delay = pacer.delay(now)
            assert 0 <= delay <= max(last_wait, 8.0) + 1 / 0.02
            now += delay if is_probe else passes
            pacer.begin(now)
            pacer.end(now)
            if kind is not None:
                pacer.observe(Outcome(kind, now, now + 0.1, 1, wait))
            now += 0.1
            last_wait = max(last_wait, wait or 0.0)
