"""How an outage is told from requests that fail by themselves: a pure decision."""

import math

import pytest

from commenda_customers.limits._breaker import Breaker
from commenda_customers.limits._controller import Controller
from commenda_customers.limits._outcomes import Kind, Outcome

OK, REFUSED, REJECTED, FAILED = Kind.SUCCESS, Kind.REFUSAL, Kind.REJECTION, Kind.FAILURE


def failure(ended: float, *, kind: Kind = FAILED, since: float = math.inf, answered: bool = True) -> Outcome:
    """Return a failure after a tenth of a second."""
    return Outcome(kind, ended - 0.1, ended, 1, None, since, answered)


class TestWhomItConcerns:
    """Which outcomes say something about the server."""

    @pytest.mark.parametrize("kind", [REFUSED, REJECTED, FAILED])
    def test_a_request_that_fails_by_itself_concerns_nobody(self, kind: Kind) -> None:
        """A request that has failed since before the last success of others says nothing about the server."""
        breaker = Breaker(has_worked=True, succeeded_at=10.0)
        assert not breaker.concerns_all(failure(12, kind=kind, since=9.9))

    @pytest.mark.parametrize("since", [10.0, 10.1, math.inf])
    def test_a_request_that_fails_since_the_last_success_concerns_all(self, since: float) -> None:
        """If nothing has succeeded since a request failed for the first time, the server may be the reason."""
        assert Breaker(has_worked=True, succeeded_at=10.0).concerns_all(failure(12, since=since))

    def test_a_success_concerns_all(self) -> None:
        """A request that succeeds at last shows that the server works."""
        breaker = Breaker(has_worked=True, succeeded_at=10.0)
        assert breaker.concerns_all(Outcome(OK, 11, 12, 1, failing_since=1.0))

    def test_any_answer_shows_that_the_address_is_right(self) -> None:
        """Failures count from the first answer on, even if that is an error; what has worked once has worked."""
        breaker = Breaker()
        assert not breaker.concerns_all(failure(1, answered=False))
        assert breaker.concerns_all(failure(2))
        assert breaker.concerns_all(failure(3, answered=False))


class TestShut:
    """When a server is shut."""

    def test_it_takes_four_failures_in_a_row(self) -> None:
        """Three failures may be chance; the fourth in a row shuts a server from which nothing comes any more."""
        breaker = Breaker(round_trip=0.1)
        assert [breaker.is_shut_by(failure(number)) for number in range(1, 6)] == [False, False, False, True, True]

    def test_a_success_between_failures_begins_the_count_anew(self) -> None:
        """Failures with a success between them are not in a row."""
        breaker = Breaker(round_trip=0.1)
        assert [breaker.is_shut_by(failure(number)) for number in (1, 2, 3)] == [False] * 3
        breaker.note_success(Outcome(OK, 4.0, 4.1, 1))
        assert [breaker.is_shut_by(failure(number)) for number in (5, 6, 7)] == [False] * 3

    @pytest.mark.parametrize(("ended", "is_shut"), [(11.9, False), (12.0, True)])
    def test_it_takes_two_round_trips_of_silence(self, ended: float, is_shut: bool) -> None:
        """However many requests fail at once, others that are on their way may still succeed."""
        breaker = Breaker(round_trip=1.0, succeeded_at=10.0)
        assert [breaker.is_shut_by(failure(ended)) for _ in range(4)] == [False, False, False, is_shut]

    def test_one_failure_after_a_pause_is_enough(self) -> None:
        """A failure that follows a pause, before anything has succeeded, shuts the server."""
        assert Breaker(strikes=1, round_trip=1.0, lesson_at=10.0).is_shut_by(failure(12))

    def test_what_was_sent_before_the_lesson_says_nothing_new(self) -> None:
        """Neither a failure nor a success of a request that was sent before the last pause changes anything."""
        breaker = Breaker(strikes=2, round_trip=1.0, lesson_at=10.0)
        assert not breaker.is_shut_by(failure(10.05))
        assert breaker.failures == 0
        breaker.note_success(Outcome(OK, 9.9, 10.1, 1))
        assert breaker.is_half_open
        breaker.note_success(Outcome(OK, 10.0, 10.1, 1))
        assert not breaker.is_half_open

    def test_it_is_half_open_after_the_second_pause(self) -> None:
        """After one pause all resume; after the second, one request alone finds out."""
        assert [Breaker(strikes=strikes).is_half_open for strikes in range(4)] == [False, False, True, True]

    def test_the_round_trip_is_an_average(self) -> None:
        """A single slow response does not change how long silence has to be."""
        breaker = Breaker()
        breaker.note_success(Outcome(OK, 0, 0.1, 1))
        assert breaker.round_trip == pytest.approx(0.1)
        breaker.note_success(Outcome(OK, 1, 4.3, 1))
        assert breaker.round_trip == pytest.approx(0.2)


class TestNaps:
    """For how long all requests pause."""

    @pytest.mark.parametrize(("round_trip", "nap"), [(0.0, 0.16), (0.05, 0.1), (0.1, 0.2), (5.0, 0.2)])
    def test_the_first_nap_is_two_round_trips(self, round_trip: float, nap: float) -> None:
        """The first pause is two round trips, or a fifth of a second if that is shorter."""
        assert Breaker(round_trip=round_trip).nap_after(Outcome(REFUSED, 0, 0.08, 1)) == pytest.approx(nap)

    @pytest.mark.parametrize("kind", [REFUSED, REJECTED, FAILED])
    def test_naps_double_up_to_a_limit(self, kind: Kind) -> None:
        """While a server is shut, each pause is twice as long as the last, up to 8 s of a limit and 4 s of an outage."""
        longest = 8.0 if kind is REFUSED else 4.0
        naps = [Breaker(strikes=strikes).nap_after(failure(1, kind=kind)) for strikes in (1, 2, 3, 4, 5, 6, 7, 5000)]
        assert naps == pytest.approx([min(longest, nap) for nap in (0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 1e9)])

    @pytest.mark.parametrize("strikes", [0, 1, 6])
    def test_a_long_wait_is_kept_exactly(self, strikes: int) -> None:
        """A server that asks for more than a second gets it, whether it is shut or not."""
        assert Breaker(strikes=strikes, round_trip=0.1).nap_after(Outcome(REFUSED, 0, 0.1, 1, 1.5)) == 1.5

    @pytest.mark.parametrize(("strikes", "asked", "nap"), [(0, 1.0, 0.2), (0, 0.9, 0.2), (1, 0.9, 0.4), (5, 0.9, 6.4)])
    def test_shorter_waits_are_rounded_up(self, strikes: int, asked: float, nap: float) -> None:
        """A wait of up to a second is most likely rounded up, so the nap takes its place: a storm it makes none."""
        breaker = Breaker(strikes=strikes, round_trip=0.1)
        assert breaker.nap_after(Outcome(REFUSED, 0, 0.1, 1, asked)) == pytest.approx(nap)

    def test_a_wait_of_a_second_counts_while_it_is_shut(self) -> None:
        """After a pause without a success, a wait of exactly a second is kept too."""
        assert Breaker(strikes=5).nap_after(Outcome(REFUSED, 0, 0.1, 1, 1.0)) == 1.0


class TestIdle:
    """Time in which nothing was wanted."""

    def test_time_without_a_request_is_idle(self) -> None:
        """Between the end of one request and the beginning of the next, nothing was wanted."""
        breaker = Breaker()
        assert breaker.idle_before(Outcome(OK, 0, 2, 1), 0.0) == 0
        assert breaker.idle_before(Outcome(OK, 9, 10, 1), 0.0) == 7

    def test_time_that_the_rate_did_not_allow_is_not_idle(self) -> None:
        """Time in which no request might begin is part of what the rate costs."""
        breaker = Breaker()
        breaker.idle_before(Outcome(OK, 0, 2, 1), 5.0)
        assert breaker.idle_before(Outcome(OK, 9, 10, 1), 5.0) == 4

    def test_a_pause_is_not_idle(self) -> None:
        """In a pause, requests were wanted, for all that is known."""
        breaker = Breaker()
        breaker.idle_before(Outcome(OK, 0, 2, 1), 0.0)
        breaker.paused_until = 8.0
        assert breaker.idle_before(Outcome(OK, 9, 10, 1), 0.0) == 1

    def test_others_in_flight_are_not_idle(self) -> None:
        """While another request is in flight, the server is in use, although its end is not known yet."""
        breaker = Breaker()
        breaker.idle_before(Outcome(OK, 0, 2, 1), 0.0)
        assert breaker.idle_before(Outcome(OK, 9, 10, 2), 0.0) == 0


class TestOutages:
    """What the controller makes of it."""

    def test_failures_that_shut_a_server_pause_all(self) -> None:
        """The failure that shuts a server makes the next request the one that finds out."""
        controller = Controller(has_worked=True, round_trip=0.1)
        for number in range(1, 5):
            assert not controller.is_half_open
            controller.observe(failure(number))
        assert controller.is_half_open
        assert controller.paused_until == pytest.approx(4.4)
        controller.observe(failure(5))
        assert controller.paused_until == pytest.approx(5.8)
