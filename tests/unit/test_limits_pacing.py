"""When the next request may begin: a pure decision, but for its jitter."""

import math

import pytest

from commenda_customers.limits._controller import Controller
from commenda_customers.limits._outcomes import Kind, Outcome
from commenda_customers.limits._pacing import Pacer


def shut(jitter: float, *, wait: float | None = None, naps: int = 6) -> tuple[Pacer, float]:
    """Return a pacer whose jitter is fixed, after refusals that follow pauses; and the time."""
    pacer, now = Pacer(Controller(has_worked=True, round_trip=0.1, rate=50.0, hold=math.inf), lambda: jitter), 0.0
    for _ in range(naps + 2):  # two refusals are let pass
        now = max(now, pacer.paused_until)
        pacer.begin(now)
        now += 0.1
        pacer.end(now - 0.1)
        pacer.observe(Outcome(Kind.REFUSAL, now - 0.1, now, 1, wait))
    return pacer, now


class TestJitter:
    """Clients of one server do not all find out at the same moment whether it is back."""

    def test_two_clients_do_not_return_at_the_same_moment(self) -> None:
        """While the server is shut, a pause is longer by a random part of up to a quarter."""
        delays = [pacer.delay(now) for pacer, now in (shut(jitter, naps=3) for jitter in (0.0, 0.5, 1.0))]
        assert delays == pytest.approx([0.8, 0.9, 1.0])

    @pytest.mark.parametrize("wait", [None, 60.0])
    def test_a_pause_is_never_more_than_a_second_longer(self, wait: float | None) -> None:
        """Of a long pause, a quarter would be much."""
        (exact, now), (latest, then) = shut(0.0, wait=wait), shut(1.0, wait=wait)
        assert latest.delay(then) - exact.delay(now) == pytest.approx(1.0)

    @pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("naps", [1, 2, 6])
    def test_a_wait_that_the_server_asks_for_is_never_shortened(self, jitter: float, naps: int) -> None:
        """Jitter makes a wait longer, never shorter."""
        pacer, now = shut(jitter, wait=30.0, naps=naps)
        assert 30.0 <= pacer.delay(now) + 1e-9 <= 31.1

    def test_the_first_pause_has_no_jitter(self) -> None:
        """After the first pause, the learned rate spreads the requests."""
        pacer, now = shut(1.0, naps=1)
        assert pacer.delay(now) == pytest.approx(0.2)


class TestPace:
    """Requests begin evenly."""

    def test_a_late_request_delays_none_behind_it(self) -> None:
        """A timer that is late by some milliseconds does not slow down the rate, and one that is later sends no burst."""
        pacer = Pacer(Controller(rate=10.0, hold=math.inf))
        pacer.begin(0.0)
        pacer.begin(0.108)
        assert 0.108 + pacer.delay(0.108) == pytest.approx(0.2, abs=0.003)
        pacer.begin(1.0)
        assert 0.08 < pacer.delay(1.0) < 0.1

    def test_a_learned_rate_begins_after_the_pause(self) -> None:
        """The first request after a lesson begins at the end of the pause, and the second one interval later."""
        pacer = Pacer(Controller(has_worked=True, rate=10.0, hold=math.inf, allowance=0.0))
        pacer.end(0.0)
        pacer.observe(Outcome(Kind.REFUSAL, 0.0, 0.1, 1, 5.0))
        rate = pacer.controller.rate
        assert pacer.delay(0.1) == pytest.approx(5.0)
        pacer.begin(5.1)
        assert pacer.delay(5.1) == pytest.approx(1 / rate, abs=1e-6)

    def test_requests_from_before_a_lesson_do_not_count_as_in_flight(self) -> None:
        """Of the requests in flight, those from before the last lesson neither block a probe nor free its place."""
        pacer, now = shut(0.0)
        now += pacer.delay(now)
        pacer.begin(now)
        pacer.end(0.0)
        assert pacer.delay(now) == pytest.approx(4.0)
        pacer.end(now)
        assert pacer.delay(now) < 0.1

    def test_requests_that_hang_since_before_a_lesson_block_no_probe(self) -> None:
        """A probe is sent at the end of the pause, although requests from before it are still in flight."""
        pacer, now = Pacer(Controller(has_worked=True, round_trip=0.1, rate=50.0, hold=math.inf), lambda: 0.0), 0.0
        for _ in range(3):
            pacer.begin(now)
        for _ in range(4):
            now = max(now, pacer.paused_until)
            pacer.begin(now)
            pacer.end(now)
            pacer.observe(Outcome(Kind.REFUSAL, now, now + 0.1, 1))
            now += 0.1
        assert pacer.controller.is_half_open
        assert pacer.delay(pacer.paused_until) == 0

    def test_requests_of_another_event_loop_block_nothing(self) -> None:
        """The requests of an event loop that has ended never end, so they are not in flight in the next one."""
        pacer = Pacer(Controller(window=1.0))
        for _ in range(4):
            pacer.begin(0.0)
        pacer.forget_requests()
        assert pacer.delay(1000.0) == 0

    def test_a_response_makes_room_for_two(self) -> None:
        """While no rate is known, a success frees its own place, and adds one."""
        pacer = Pacer()
        for _ in range(4):
            pacer.begin(0.0)
        pacer.end(0.0)
        pacer.observe(Outcome(Kind.SUCCESS, 0.0, 0.1, 4))
        for _ in range(2):
            assert pacer.delay(0.1) == 0
            pacer.begin(0.1)
        assert pacer.delay(0.1) == math.inf

    def test_a_quota_that_is_used_up_pauses_once(self) -> None:
        """After the pause of a quota, requests from before it block nobody. What an older response says changes nothing."""
        pacer = Pacer(Controller(window=4.0, has_worked=True, round_trip=0.1))
        for _ in range(4):
            pacer.begin(0.0)
        pacer.exhaust(Outcome(Kind.REFUSAL, 0.0, 0.1, 4))  # after few responses, it halves the window
        assert pacer.delay(0.1) == pytest.approx(0.2)
        for _ in range(2):
            assert pacer.delay(1.0) == 0
            pacer.begin(1.0)
        pacer.exhaust(Outcome(Kind.REFUSAL, 0.0, 1.1, 2))
        assert pacer.delay(1.1) == math.inf

    def test_a_window_that_is_full_waits_for_a_response(self) -> None:
        """While no rate is known, a request begins only when fewer are in flight than the window allows."""
        pacer = Pacer()
        for _ in range(4):
            assert pacer.delay(0.0) == 0
            pacer.begin(0.0)
        assert pacer.delay(0.0) == math.inf
        pacer.end(0.0)
        assert pacer.delay(0.0) == 0


class TestPart:
    """Other processes use the limit too."""

    def test_the_rate_is_our_share(self) -> None:
        """Requests begin at our part of the rate."""
        pacer = Pacer(Controller(rate=10.0, hold=math.inf, window=50.0))
        pacer.part.share = 0.25
        assert pacer.rate == 2.5
        pacer.begin(0.0)
        assert pacer.delay(0.0) == pytest.approx(0.4, abs=0.02)

    @pytest.mark.parametrize(("round_trip", "rate"), [(0.5, 1.0), (0.0, 5.0)])
    def test_less_than_one_request_in_flight_means_to_wait(self, round_trip: float, rate: float) -> None:
        """If there is room for half a request, each has to wait for as long again as a request takes."""
        pacer = Pacer(Controller(round_trip=round_trip))
        pacer.part.room = 0.5
        assert pacer.rate == rate
        assert pacer.delay(0.0) == 0
        pacer.begin(0.0)
        pacer.end(0.0)
        assert pacer.delay(0.0) == pytest.approx(1 / rate, abs=0.02)
        pacer.part.share, pacer.controller.rate = 0.1, 1.0
        assert pacer.rate == 0.1

    def test_one_request_may_be_in_flight_in_any_case(self) -> None:
        """Our room is what we may have in flight, but never nothing."""
        pacer = Pacer(Controller(window=8.0))
        for room, window in [(2.0, 2.0), (0.5, 0.5), (20.0, 8.0)]:
            pacer.part.room = room
            assert pacer.window == window
        pacer.part.room = 0.5
        assert pacer.delay(0.0) == 0
        pacer.begin(0.0)
        assert pacer.delay(1000.0) == math.inf

    def test_after_a_pause_all_begin_in_turn(self) -> None:
        """Processes that pause until the same time begin after each other, evenly over an interval."""
        controller, begun = Controller(has_worked=True, rate=10.0, hold=math.inf, allowance=0.0), list[float]()
        pacers = [Pacer(controller) for _ in range(4)]
        controller.observe(Outcome(Kind.REFUSAL, 0.0, 0.1, 1, 5.0))
        for number, pacer in enumerate(pacers):
            pacer.part.share, pacer.part.phase = 0.25, number / 4
            pacer.heed_lesson(0.1)
            now = 0.1 + pacer.delay(0.1)
            begun.append(now + pacer.delay(now))
        interval = 1 / controller.rate
        assert begun == pytest.approx([5.1 + number * interval for number in range(4)])

    def test_half_open_somebody_else_finds_out(self) -> None:
        """A probe of another process holds ours back for a while, and so does one of ours that the others do not know of."""
        for name in ("elsewhere", "untold"):
            pacer, now = shut(0.0)
            now += pacer.delay(now)
            assert pacer.delay(now) == 0
            setattr(pacer.part, name, 1)
            assert pacer.delay(now) == pytest.approx(4.0)
            assert pacer.delay(now + 4.0) == 0

    def test_a_lesson_makes_an_end_of_all_that_is_in_flight(self) -> None:
        """What began before it counts no more, here and elsewhere."""
        pacer, now = shut(0.0)
        pacer.part.elsewhere = pacer.part.untold = 3
        now += pacer.delay(now)
        pacer.begin(now)
        pacer.observe(Outcome(Kind.REFUSAL, now, now + 0.1, 1))
        assert (pacer.part.elsewhere, pacer.part.untold) == (0, 0)
        assert pacer.delay(pacer.paused_until) == 0
