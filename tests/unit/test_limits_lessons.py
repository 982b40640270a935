"""What a controller makes of a lesson: each rule by itself, from a state in which no other rule applies."""

import math
from dataclasses import asdict
from typing import Any

import pytest

from commenda_customers import Feedback, Permit
from commenda_customers.limits._controller import Controller
from commenda_customers.limits._outcomes import Kind, Learned, Outcome, Period, Trial, outcome_of

OK, REFUSED, REJECTED, FAILED = Kind.SUCCESS, Kind.REFUSAL, Kind.REJECTION, Kind.FAILURE


def knows(rate: float = 50.0, **state: Any) -> Controller:
    """Return a controller that has held a rate, and holds it, for a period that began at 0."""
    state = {"hold": math.inf, "round_trip": 0.1, "period": Period(0.0, grew_at=0.0), **state}
    return Controller(rate=rate, has_worked=True, **state)


def feed(
    controller: Controller, *kinds: Kind, now: float, every: float = 0.02, wait: float | None = None, in_flight: int = 8
) -> float:
    """Let requests end at regular times, a tenth of a second after they began; return the time."""
    for kind in kinds:
        now = max(now + every, controller.paused_until + 0.1)
        controller.observe(Outcome(kind, now - 0.1, now, in_flight, wait if kind is REFUSED else None))
    return now


class TestSlowStart:
    """Before a rate is known."""

    def test_a_burst_after_a_slow_start_is_learned(self) -> None:
        """The first rate is that of the last few requests, not of all those that came before at five a second."""
        controller = Controller()
        now = feed(controller, *[OK] * 300, now=0.0, every=0.2)
        feed(controller, *[OK] * 32, *[REFUSED] * 3, now=now, every=1 / 32)
        assert 6.5 < controller.rate < 32

    def test_responses_of_the_first_round_trips_count_in_full(self) -> None:
        """Responses that arrive together were in flight for a round trip, so their rate is not forgotten too early."""
        controller = Controller()
        for kind in [OK] * 200 + [REFUSED] * 3:
            controller.observe(Outcome(kind, 0.0, 1.0, 8))
        assert controller.rate == pytest.approx(0.98 * 200)

    def test_the_past_is_forgotten_after_two_samples(self) -> None:
        """With each 60 responses, but not before four round trips have passed, half of the past is dropped."""
        controller = Controller()
        now = feed(controller, *[OK] * 59, now=0.0)
        assert controller.period.successes == 59
        feed(controller, OK, now=now)
        assert controller.period.successes == 30
        controller = Controller()
        for ended in [0.1] * 99 + [0.39]:
            controller.observe(Outcome(OK, ended - 0.1, ended, 8))
        assert controller.period.successes == 100
        controller.observe(Outcome(OK, 0.35, 0.45, 8))
        assert controller.period.successes == 50

    def test_waiting_for_a_slow_rate_is_not_idle(self) -> None:
        """At a request in two seconds, one that comes three seconds after another was not wanted for one second."""
        controller = knows(0.5)
        feed(controller, *[OK] * 10, now=0.0, every=3.0, in_flight=1)
        assert controller.period.began == pytest.approx(9.0)

    def test_idle_time_is_skipped(self) -> None:
        """Time in which nothing was wanted does not make the learned rate lower."""
        controller = Controller()
        now = feed(controller, *[OK] * 20, now=0.0, every=0.1, in_flight=1)
        feed(controller, *[OK] * 20, *[REFUSED] * 3, now=now + 100, every=0.1, in_flight=1)
        assert 8 < controller.rate < 10

    def test_a_window_that_is_not_used_does_not_grow(self) -> None:
        """One request at a time proves nothing about many."""
        controller = Controller()
        feed(controller, *[OK] * 20, now=0.0, in_flight=1)
        assert controller.window == 4
        feed(controller, *[OK] * 4, now=10.0, in_flight=3)
        assert controller.window > 4

    @pytest.mark.parametrize(("responses", "is_limited"), [(7, False), (8, True)])
    def test_eight_responses_teach_a_rate(self, responses: int, is_limited: bool) -> None:
        """A quarter of a sample is the least from which a rate is learned."""
        controller = Controller()
        feed(controller, *[OK] * responses, *[REFUSED] * 3, now=0.0)
        assert controller.is_limited is is_limited

    def test_few_responses_halve_what_was_in_flight(self) -> None:
        """Half of the requests that were in flight may be from then on, and always one."""
        controller = Controller(window=40.0)
        feed(controller, OK, *[REFUSED] * 3, now=0.0, in_flight=6)
        assert controller.window == 3
        now = feed(controller, OK, *[REFUSED] * 3, now=10.0, in_flight=1)
        assert (controller.window, controller.let_pass) == (1, 4)
        assert controller.allowance == 2
        # The refusals were those of a window, so they do not count against a quota.
        assert controller.period.refusals == 0
        assert now < 20

    @pytest.mark.parametrize(("wait", "least", "most"), [(None, 6.4, 7.3), (30.0, 0.2, 0.35)])
    def test_naps_are_no_time_for_requests_but_waits_are(self, wait: float | None, least: float, most: float) -> None:
        """A short pause is not part of the time in which requests got through; a wait that the server asks for is."""
        controller = Controller()
        now = feed(controller, *[OK, REFUSED, REFUSED, REFUSED] * 5, now=0.0, every=0.1, wait=wait)
        feed(controller, *[OK] * 40, *[REFUSED] * 3, now=now, every=0.1)
        assert least < controller.rate < most


class TestGrowth:
    """How a rate grows, and what a lesson in its growth teaches."""

    @pytest.mark.parametrize(("rate", "round_trip", "unit"), [(50.0, 0.1, 4.0), (5.0, 0.1, 6.0), (50.0, 2.0, 12.0)])
    def test_a_rate_doubles_in_a_unit(self, rate: float, round_trip: float, unit: float) -> None:
        """Growth, with the cube of time, doubles a rate in 4 s, but not before 30 requests and six round trips."""
        controller = knows(rate, hold=10.0, round_trip=round_trip)
        rates = []
        for part in (-1.0, 0.0, 0.5, 1.0):
            controller.age = 10 + part * unit
            rates.append(controller.present_rate / rate)
        assert rates == pytest.approx([1, 1, 1.125, 2])

    @pytest.mark.parametrize(("rate", "round_trip", "hold"), [(50.0, 0.1, 1.0), (5.0, 0.1, 6.0), (50.0, 2.0, 12.0)])
    def test_a_doubled_rate_is_the_new_rate(self, rate: float, round_trip: float, hold: float) -> None:
        """A rate that has doubled is held for a second, 15 requests at the old rate, or six round trips: the longest."""
        controller = knows(rate / 2, hold=90.0, age=90.0, round_trip=round_trip)
        controller.period.refusals = 1
        while controller.present_rate < rate:
            controller.age += 0.01
        feed(controller, OK, now=1.0)
        assert (controller.rate, controller.hold) == (pytest.approx(rate, rel=0.05), pytest.approx(hold, rel=0.05))
        assert (controller.age, controller.period.refusals) == (controller.hold, 0)

    def test_a_lesson_in_growth_takes_what_got_through_in_it(self) -> None:
        """The next rate is a little less than what got through since the rate began to grow, and is held twice as long."""
        controller = knows(10.0, hold=3.0, age=2.95)
        now = feed(controller, *[OK] * 30, now=100.0, every=1 / 14)
        assert controller.is_growing
        feed(controller, *[REFUSED] * 2, now=now, every=0.01)
        assert controller.rate == pytest.approx(0.98 * 14, rel=0.06)
        assert (controller.hold, controller.age) == (6.0, 0.0)

    def test_growth_that_fails_at_once_keeps_the_rate(self) -> None:
        """A few requests in the first moments of growth say nothing: the rate becomes a little less than it was."""
        controller = knows(10.0, hold=3.0, age=3.05)
        controller.period.grew_at = 100.0
        now = feed(controller, *[OK] * 3, now=100.0, every=0.001)
        feed(controller, *[REFUSED] * 2, now=now, every=0.001)
        assert controller.rate == pytest.approx(9.8)

    @pytest.mark.parametrize(
        ("successes", "round_trip", "seconds", "rate"),
        [(8, 0.1, 0.4, 19.6), (7, 0.1, 0.4, 9.8), (8, 1.0, 0.4, 9.8), (8, 0.0, 0.0, 26.7)],
    )
    def test_growth_lasts_a_round_trip_at_least(
        self, successes: int, round_trip: float, seconds: float, rate: float
    ) -> None:
        """
        What came in the first moments of growth is measured over a round trip, and is never more than the rate was. Fewer
        than eight successes say nothing.
        """
        controller = knows(10.0, hold=3.0, age=3.0 + 1.2 * max(4.0, 6 * round_trip), round_trip=round_trip, allowance=0.0)
        controller.period = Period(0.0, successes=100, grew_at=100.0 - seconds, successes_growing=successes)
        controller.observe(Outcome(REFUSED, 100.0 - round_trip, 100.0, 8))
        assert controller.rate == pytest.approx(rate, rel=0.01)

    @pytest.mark.parametrize(
        ("rate", "hold", "longer"),
        [(10.0, 1.0, 3.0), (10.0, 3.0, 6.0), (10.0, 10.0, 15.0), (10.0, 15.0, 15.0), (2.0, 20.0, 30.6)],
    )
    def test_holds_double_up_to_a_limit(self, rate: float, hold: float, longer: float) -> None:
        """A hold is twice as long after growth that has failed, up to 15 s, or 60 requests if that is longer."""
        controller = knows(rate, hold=hold, age=hold + 1)
        feed(controller, *[REFUSED] * 2, now=100.0)
        assert controller.hold == pytest.approx(longer, rel=0.03)

    def test_a_refusal_in_growth_costs_two(self) -> None:
        """While a higher rate is tried, the second refusal is a lesson; if refusals by chance are known, it is not."""
        controller = knows(10.0, hold=3.0, age=4.0)
        feed(controller, *[REFUSED] * 2, now=100.0)
        assert controller.age == 0
        controller = knows(10.0, hold=3.0, age=4.0, chance=0.05)
        feed(controller, *[REFUSED] * 2, now=100.0)
        assert controller.age > 3

    def test_long_waits_in_growth_count(self) -> None:
        """If the server made requests wait since the last lesson, what got through is measured over the waits too."""
        controller = knows(10.0, hold=3.0, age=4.0)
        controller.period = Period(0.0, successes=600, refusals=300, napped=30.0, grew_at=99.0, successes_growing=30)
        feed(controller, *[REFUSED] * 2, now=100.0)
        assert controller.rate == pytest.approx(0.98 * 6, rel=0.02)


class TestFall:
    """What a lesson at a steady rate teaches."""

    @pytest.mark.parametrize(("successes", "rate"), [(400, 39.2), (900, 49.0), (50, 25.0)])
    def test_it_falls_to_what_got_through(self, successes: int, rate: float) -> None:
        """The rate becomes a little less than what got through: never more than a little less than before, nor half."""
        controller = knows(50.0)
        controller.period.successes = successes
        controller.allowance = 0.0
        feed(controller, REFUSED, now=10.0, every=0.0)
        assert controller.rate == pytest.approx(rate, rel=0.01)
        assert controller.hold < 2

    def test_what_came_at_once_took_a_round_trip(self) -> None:
        """Responses that arrive together were in flight for a round trip, however short the time since the last lesson."""
        controller = knows(50.0, allowance=0.0, round_trip=0.1, period=Period(10.0, successes=4))
        controller.observe(Outcome(REFUSED, 10.0, 10.01, 8))
        assert controller.rate == pytest.approx(0.98 * 4 / 0.1)

    def test_a_server_that_takes_no_time_is_learned(self) -> None:
        """Where nothing takes any time, as in a test, a lesson is one all the same."""
        controller = Controller()
        for kind in [OK] * 20 + [REFUSED] * 3:
            controller.observe(Outcome(kind, 5.0, 5.0, 1))
        assert controller.rate == pytest.approx(0.98 * 20 / 0.001)

    def test_naps_are_no_time_in_which_requests_were_wanted(self) -> None:
        """Short pauses of the controller are not part of the time in which the others got through."""
        controller = knows(50.0, allowance=0.0)
        controller.period = Period(0.0, successes=100, refusals=50, napped=0.8)
        feed(controller, REFUSED, now=3.0, every=0.0)
        assert controller.rate == pytest.approx(0.98 * 100 / 2.2)

    def test_a_quota_changes_no_rate(self) -> None:
        """Between two long waits nearly all got through: the rate stays, and so does its age."""
        controller = knows(50.0, hold=99.0, age=42.0, allowance=0.0)
        controller.period.successes = 300
        feed(controller, REFUSED, now=10.0, wait=40.0)
        assert (controller.rate, controller.age, controller.period.successes) == (50, 42, 0)
        feed(controller, OK, now=50.1)
        assert (controller.period.successes, controller.period.began) == (1, pytest.approx(10.0, abs=0.1))

    def test_a_refusal_of_an_older_request_counts_once(self) -> None:
        """Two of a hundred requests are still those of a quota, also if one of them was sent before the last wait."""
        controller = knows(50.0, allowance=0.0, lesson_at=1.0)
        controller.period.successes = 100
        controller.observe(Outcome(REFUSED, 0.9, 1.1, 8))
        feed(controller, REFUSED, now=10.0, wait=40.0)
        assert controller.rate == 50

    @pytest.mark.parametrize("late", [False, True])
    def test_many_refusals_are_no_quota(self, late: bool) -> None:
        """If many were refused between two long waits, a rate is learned, also if they were sent before the first wait."""
        controller = knows(50.0, allowance=0.0, lesson_at=1.0)
        controller.period.successes, controller.period.refusals = 100, 0 if late else 20
        if late:
            for _ in range(20):
                controller.observe(Outcome(REFUSED, 0.9, 1.1, 8))
        feed(controller, REFUSED, now=10.0, wait=40.0)
        assert controller.rate < 50

    def test_without_a_wait_there_is_no_quota(self) -> None:
        """Nearly all got through before a lesson without a wait: it is a rate."""
        controller = knows(50.0, allowance=0.0)
        controller.period.successes = 300
        feed(controller, REFUSED, now=10.0)
        assert controller.rate < 50

    def test_no_rate_is_lower_than_one_in_fifty_seconds(self) -> None:
        """A server that takes next to nothing is asked all the same."""
        controller = knows(0.03, allowance=0.0)
        feed(controller, REFUSED, now=5000.0, wait=2.0)
        assert controller.rate == 0.02

    def test_a_rate_that_is_not_adapted_stays_unknown(self) -> None:
        """Where the rate is somebody else's concern, lessons pause and teach none."""
        controller = Controller(adapts=False, window=math.inf)
        now = 0.0
        for _ in range(20):
            now = feed(controller, *[OK] * 60, *[REFUSED] * 8, now=now)
            assert controller.paused_until > now - 0.1
        assert not controller.is_limited
        assert controller.window == math.inf


class TestTrials:
    """A cut of the rate tells a limit from chance."""

    def test_refusals_at_a_steady_rate_begin_a_trial(self) -> None:
        """The fourth refusal among 45 requests or more cuts the rate by a tenth, and by the part that was refused."""
        controller = knows(50.0, hold=99.0)
        now = feed(controller, *([OK] * 14 + [REFUSED]) * 3, now=1.0)
        assert controller.trial is None
        feed(controller, *[OK] * 14, REFUSED, now=now)
        assert controller.trial == Trial(50.0, 99.0, pytest.approx(4 / 60))
        assert controller.rate == pytest.approx(50 * 0.9 * 56 / 60)
        assert controller.hold == math.inf

    @pytest.mark.parametrize(
        "period",
        [
            Period(0.0, successes=39, refusals=4),  # too few requests
            Period(0.0, successes=1500, refusals=5),  # too few refusals for so many
            Period(0.0, successes=100, refusals=40),  # too many for chance
            Period(0.0, successes=100, refusals=8, successes_growing=10, refusals_growing=6),  # by growth
            Period(0.0, successes=60, refusals=6, successes_growing=21, refusals_growing=2),  # too few but for growth
        ],
    )
    def test_other_refusals_begin_none(self, period: Period) -> None:
        """Refusals that are few, many, or explained by growth are tried neither one by one nor in a cluster."""
        for allowance in (2.0, 0.0):
            controller = knows(50.0, hold=math.inf, allowance=allowance)
            controller.period = Period(**asdict(period))
            feed(controller, REFUSED, now=30.0)
            assert controller.trial is None

    def test_what_came_in_growth_is_left_out(self) -> None:
        """A trial compares the refusals at the steady rate with the requests at the steady rate."""
        controller = knows(50.0, period=Period(0.0, successes=60, refusals=6, successes_growing=20, refusals_growing=2))
        feed(controller, REFUSED, now=30.0)
        assert controller.trial == Trial(50.0, math.inf, pytest.approx(5 / 45))

    @pytest.mark.parametrize(("refusals", "begins"), [(9, False), (13, True)])
    def test_refusals_that_are_known_to_be_chance_begin_none(self, refusals: int, begins: bool) -> None:
        """Twice the known part is not suspicious yet; more than that is."""
        controller = knows(50.0, chance=0.05, allowance=2.0)
        controller.period.successes, controller.period.refusals = 100, refusals
        feed(controller, REFUSED, now=30.0)
        assert (controller.trial is not None) is begins

    def test_a_cluster_may_begin_a_trial(self) -> None:
        """Where a cluster of refusals would be a lesson, it is tried first whether it is chance."""
        controller = knows(50.0, allowance=0.0)
        controller.period.successes, controller.period.refusals = 60, 4
        feed(controller, REFUSED, now=10.0)
        assert controller.trial is not None
        assert controller.hold == math.inf
        assert controller.paused_until > 10

    @pytest.mark.parametrize(
        ("before", "refusals", "rate", "chance"),
        [
            (0.06, 0, 0.98 * 55 * 0.94, 0.0),
            (0.06, 1, 0.98 * 55 * 0.94, 0.0),
            (0.06, 2, 55.0, 2 / 75),
            (0.06, 4, 55.0, 4 / 75),
            (0.06, 8, 55.0, 8 / 75),
            (0.06, 10, 0.98 * 50 * 65 / 75, 0.0),
            (0.06, 50, 25.0, 0.0),
            (0.10, 2, 0.98 * 55 * 0.90, 0.0),
            (0.10, 3, 55.0, 3 / 75),
            (0.10, 11, 55.0, 11 / 75),
            (0.10, 12, 0.98 * 50 * 63 / 75, 0.0),
        ],
    )
    def test_the_judgement_of_a_trial(self, before: float, refusals: int, rate: float, chance: float) -> None:
        """
        If refusals go on, they are chance. If they stop, or a third is left, the rate was too high. If they become twice as
        many, or more than 15 %, the limit is much lower: but a rate falls by half at most.
        """
        controller = knows(50.0, trial=Trial(55.0, 3.0, before))
        controller.period.successes, controller.period.refusals = 74 - refusals, refusals
        feed(controller, OK, now=10.0)
        assert controller.trial is None
        assert (controller.rate, controller.chance) == (pytest.approx(rate, rel=0.01), pytest.approx(chance, abs=0.001))

    def test_a_cluster_in_a_trial_restores_what_is_let_pass(self) -> None:
        """After a pause in a trial, single refusals are let pass again."""
        controller = knows(50.0, trial=Trial(55.0, 3.0, 0.06), allowance=0.0)
        now = feed(controller, REFUSED, OK, now=10.0)
        pause = controller.paused_until
        feed(controller, REFUSED, REFUSED, now=now)
        assert controller.paused_until == pause

    def test_one_refusal_does_not_show_chance(self) -> None:
        """A single refusal in a trial may be the last of a rate that was too high."""
        controller = knows(50.0, trial=Trial(55.0, 3.0, 0.03))
        controller.period.successes, controller.period.refusals = 73, 1
        feed(controller, OK, now=10.0)
        assert (controller.rate, controller.chance) == (pytest.approx(0.98 * 55 * 0.97), 0.0)

    def test_chance_returns_to_the_rate_before_the_first_cut(self) -> None:
        """If refusals turn out to be chance, all cuts are undone, and not the last one alone."""
        controller = knows(50.0, trial=Trial(55.0, 3.0, 0.06), uncut=80.0)
        controller.period.successes, controller.period.refusals = 70, 4
        feed(controller, OK, now=10.0)
        assert controller.rate == 80

    def test_refusals_in_growth_are_counted_apart(self) -> None:
        """Growth explains its own refusals: they are not suspicious later."""
        controller = knows(10.0, hold=3.0, age=4.0, chance=0.05)
        feed(controller, OK, REFUSED, now=100.0)
        assert (controller.period.successes_growing, controller.period.refusals_growing) == (1, 1)

    def test_what_chance_refuses_is_let_pass(self) -> None:
        """Where refusals are chance, more of them in a cluster are let pass, and successes earn more."""
        controller = knows(50.0, chance=0.1, allowance=0.0)
        feed(controller, *[OK] * 4, now=1.0)
        assert controller.allowance == pytest.approx(1.0)
        feed(controller, *[OK] * 100, now=2.0)
        assert controller.allowance == pytest.approx(6.5)

    def test_a_lesson_that_chance_does_not_explain_forgets_it(self) -> None:
        """A cluster beyond what chance explains is a limit: refusals are chance no more, and no cut is undone."""
        controller = knows(50.0, chance=0.02, uncut=80.0, allowance=0.0)
        controller.period.successes, controller.period.refusals = 100, 40
        feed(controller, REFUSED, now=10.0)
        assert (controller.chance, controller.uncut) == (0.0, 0.0)

    def test_a_lesson_in_a_trial_may_turn_out_to_be_a_limit(self) -> None:
        """If a cluster ends a trial as chance and nothing gets through after it, what got through before is the rate."""
        controller = knows(50.0, trial=Trial(55.0, 3.0, 0.06), allowance=0.0)
        controller.period.successes, controller.period.refusals = 70, 4
        now = feed(controller, REFUSED, now=10.0)
        assert (controller.rate, controller.chance > 0) == (55.0, True)
        feed(controller, REFUSED, now=now)
        assert (controller.rate, controller.chance) == (pytest.approx(0.98 * 7.0, rel=0.02), 0.0)


def test_the_past_weighs_half() -> None:
    """Half of what happened is forgotten, of successes, refusals and time alike."""
    period = Period(0.0, successes=61, refusals=7)
    period.forget_half(10.0)
    assert period == Period(5.0, successes=30, refusals=3)


def test_what_is_skipped_is_no_time_of_growth() -> None:
    """Time in which nothing was wanted counts neither since the lesson nor since the rate began to grow."""
    period = Period(0.0, grew_at=3.0)
    period.skip(2.0)
    assert (period.began, period.grew_at) == (2.0, 5.0)


@pytest.mark.parametrize(
    ("feedback", "kind"),
    [
        (Feedback(is_answered=True), OK),
        (Feedback(is_answered=True, is_throttled=True, wait=3.0, failing_since=0.5), REFUSED),
        (Feedback(is_answered=True, is_rejected=True, failing_since=0.5), REJECTED),
        (Feedback(is_rejected=True), REJECTED),
        (Feedback(is_failed=True, failing_since=0.5), FAILED),
    ],
    ids=repr,
)
def test_an_outcome_says_what_the_client_has_said(feedback: Feedback, kind: Kind) -> None:
    """All that a client says of a request, but for its quota, is in its outcome."""
    outcome = outcome_of(Permit(1.0, 3), feedback, 2.0)
    assert outcome == Outcome(kind, 1.0, 2.0, 3, feedback.wait, feedback.failing_since, feedback.is_answered)
    assert outcome_of(Permit(1.0, 3), Feedback(), 2.0) is None


class TestOutages:
    """Nothing gets through: no rate is to blame."""

    def test_rejections_that_go_on_are_an_outage(self) -> None:
        """A lesson from rejections is taken back with the third pause in a row, and only then."""
        controller = knows(50.0, hold=9.0, allowance=0.0)
        controller.period.successes = 100
        rates, now = [], 10.0
        for _ in range(3):
            now = feed(controller, REJECTED, now=now)
            rates.append(controller.rate)
        assert rates == [25.0, 25.0, 50.0]
        assert controller.hold == 9

    def test_the_first_pause_of_an_outage_is_short(self) -> None:
        """When the server is found to be shut, the first pause lasts 0.4 s, and the next twice as long."""
        controller = knows(50.0, succeeded_at=0.0)
        now = feed(controller, *[FAILED] * 4, now=10.0)
        assert controller.paused_until - now == pytest.approx(0.4)
        now = feed(controller, FAILED, now=now)
        assert controller.paused_until - now == pytest.approx(0.8)

    def test_refusals_that_go_on_are_a_limit(self) -> None:
        """The server says that it is a limit, so the lesson stays."""
        controller = knows(50.0, allowance=0.0)
        controller.period.successes = 100
        feed(controller, *[REFUSED] * 6, now=10.0)
        assert controller.rate == 25

    @pytest.mark.parametrize(("sent", "rate"), [(10.0, 50.0), (20.0, 25.0)])
    def test_a_success_after_the_pause_confirms_a_lesson(self, sent: float, rate: float) -> None:
        """Rejections followed by a success were a limit. One that was sent before the lesson confirms nothing."""
        controller = knows(50.0, allowance=0.0)
        controller.period.successes = 100
        feed(controller, REJECTED, now=10.0)
        controller.observe(Outcome(OK, sent, 20.1, 8))
        controller.allowance = 0.0
        controller.round_trip = 0.1
        feed(controller, *[FAILED] * 9, now=30.0)
        assert controller.is_half_open
        assert controller.rate == rate

    def test_pauses_of_an_outage_do_not_count_as_time(self) -> None:
        """How long an outage lasts says nothing about the rate: the next lesson does not see it."""
        controller = knows(50.0)
        now = feed(controller, *[OK] * 100, now=0.0)
        now = feed(controller, *[FAILED] * 25, now=now)
        assert now > 40
        now = feed(controller, *[OK] * 100, now=now)
        controller.period.refusals, controller.allowance = 100, 0.0  # too many for a trial
        feed(controller, REFUSED, now=now)
        assert controller.rate > 28

    def test_pauses_of_a_limit_count_as_time(self) -> None:
        """While a limit refuses again and again, its pauses are part of the time in which so few got through."""
        controller = knows(50.0)
        now = feed(controller, *[OK] * 100, *[REFUSED] * 10, now=0.0)
        assert (controller.rate, now > 20) == (pytest.approx(48, rel=0.05), True)
        assert controller.period.napped == pytest.approx(0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 6.4 + 8.0 + 8.0)
        now = feed(controller, *[OK] * 100, now=now)
        controller.period.refusals, controller.allowance = 100, 0.0  # too many for a trial
        feed(controller, REFUSED, now=now)
        assert controller.rate == pytest.approx(24, rel=0.05)

    def test_a_hint_in_an_outage_is_ignored(self) -> None:
        """While the server is shut, a quota that is used up teaches nothing; otherwise it pauses without a strike."""
        controller = knows(50.0, strikes=2, lesson_at=10.0)
        before = asdict(controller)
        controller.exhaust(Outcome(REFUSED, 11.0, 11.1, 8))
        assert asdict(controller) == before
        controller = knows(50.0)
        controller.period.successes = 100
        controller.exhaust(Outcome(REFUSED, 11.0, 11.1, 8))
        assert (controller.paused_until > 11.1, controller.strikes) == (True, 0)

    @pytest.mark.parametrize(("strikes", "until"), [(0, 10.4), (1, 10.4), (2, 40.1)])
    def test_older_waits_count_only_while_it_is_half_open(self, strikes: int, until: float) -> None:
        """Refusals of one cluster pause once, whatever they ask for, unless one request at a time finds out."""
        controller = knows(50.0, strikes=strikes, lesson_at=10.0, paused_until=10.4)
        controller.observe(Outcome(REFUSED, 9.9, 10.1, 8, 30.0))
        assert controller.paused_until == pytest.approx(until)

    def test_a_pause_is_never_shortened(self) -> None:
        """A later pause that would end earlier changes nothing."""
        controller = knows(50.0, strikes=1, lesson_at=10.0, paused_until=40.0)
        controller.observe(Outcome(REFUSED, 10.1, 10.2, 8))
        assert controller.paused_until == 40


class TestOtherRates:
    """A rate that is not learned here: processes joined that had a part of the limit, or left."""

    def test_it_holds_like_one_that_was_learned(self) -> None:
        """What belongs to the old rate is forgotten: a trial, what to return to, and the growth."""
        controller = knows(trial=Trial(60.0, 8.0, 0.05), before=Learned(60.0, 8.0, 0.0, None), fallback=40.0, age=9.0)
        controller.resume_at(30.0, 5.0)
        assert controller.rate == controller.present_rate == 30.0
        assert (controller.trial, controller.before, controller.fallback) == (None, None, math.inf)
        assert controller.period == Period(5.0, grew_at=5.0)
        assert controller.hold == 1.0
        assert controller.decided_at == controller.changed_at == 5.0

    @pytest.mark.parametrize("rate", [0.0, 1e-9])
    def test_it_is_never_zero(self, rate: float) -> None:
        """A request begins every fifty seconds at least."""
        controller = knows()
        controller.resume_at(rate, 5.0)
        assert controller.present_rate == 0.02
        assert controller.hold == 750.0

    def test_a_pause_without_a_new_rate_is_a_change(self) -> None:
        """An outage changes no rate, but others have to hear of the pause."""
        controller = knows(round_trip=0.1)
        now = feed(controller, OK, now=0.0)
        now = feed(controller, *[FAILED] * 4, now=now + 1)
        assert controller.decided_at == -math.inf
        assert controller.changed_at == controller.lesson_at == now
