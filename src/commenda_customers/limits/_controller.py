"""
What a limiter learns about the server: a pure function of the outcomes of requests.

Theory of operation. Every outcome is a value, and the `Controller` is plain data: no clock, no I/O, no randomness. Times are
arguments, in seconds of any steady clock. What may begin, and when, is decided elsewhere (`_pacing.py`).

1. *Before the first lesson* no rate is known. Only the number of requests in flight is limited. It grows with every response
   (slow start), so that a limit is met with few requests.
2. *A refusal concerns its request alone while there is an allowance.* A refusal uses up one unit, while a higher rate is
   being tried two; a response earns back a tenth. Real limits refuse in clusters, chance does not.
3. *A lesson* comes when the allowance is used up. All requests pause: for a short nap, or for as long as the server asks if
   that is longer than a second. The rate becomes a little less than what got through. Refusals of requests that were sent
   before the lesson say nothing new.
4. *Growth.* A rate is held for a while, and then grows with the cube of time. If that leads to a lesson, the next rate is a
   little less than what got through during the growth, and is held twice as long. If the rate doubles without a lesson, it
   is the new rate, and holds are short again.
5. *A trial* tells a rate that is slightly too high from refusals by chance. If requests are refused although the rate is not
   growing, the rate is cut by a tenth for 75 requests. If the refusals stop, the rate was too high. If they go on, they are
   chance. So many are tolerated from then on, and all cuts are undone, the first one too. A lesson after that is a limit's.
6. *A quota.* If nearly all requests got through between two long waits, the server counts requests per minute or longer. It
   is used up at full speed, and waited for.
7. *An outage* (`_breaker.py`) changes no rate. All resume at the rate that was known.

The constants were found by simulation, over servers like those of `benchmarks/limits.py`: 95.0 % of the limit is used in the
mean, and 1.19 % of the requests are refused. Most comments say what half of a value and twice of it did to these two, when
they were 95.4 and 1.12.
"""

import math
from dataclasses import dataclass, field

from ._breaker import LONG_WAIT, Breaker
from ._outcomes import Kind, Learned, Outcome, Period, Trial

SAMPLE = 30.0  # requests that are enough to compare two rates; half: 95.5, 1.21; twice: 95.0, 1.08
UNIT = 1.0  # seconds, of growth; half: 95.2, 1.78; twice: 95.2, 0.73, and a limit that rises is found 1.5 times later
LONGEST_HOLD = 15.0  # units, or two samples if that is longer; half: 95.4, 1.25; twice: 95.2, 1.04
TOLERANCE = 0.1  # refusals for each success that are let pass; half: 95.2, 1.13; twice: 95.2, 1.19
ALLOWANCE = 2.0  # refusals that are let pass at once; half: 95.1, 0.90, but chance cripples; twice: 95.4, 1.34
SUSPICIOUS, FEWEST_SUSPICIOUS = 0.005, 4  # refused at a steady rate before a trial; half: 95.4, 1.12; twice: 95.4, 1.15
KEEP = 0.98  # of what got through; half of the margin: 95.5, 1.18; twice: 95.0, 1.10
FIRST_WINDOW = 4.0  # requests in flight; half: 95.1, 1.14; twice: 95.3, 1.17
LEAST_RATE = 0.02  # requests per second
OUTAGE = 2  # lessons in a row after which rejections are an outage


@dataclass(slots=True)
class Controller(Breaker):
    """
    What was learned, as plain data.

    Attributes:
        adapts: Whether a rate is learned. If not, the rate is somebody else's concern.
        is_shared: Whether several processes learn together. Their first rate may be far too high, and a trial of it looks
            like chance. So they try only rates that have grown, and never return to no limit at all.
        rate: Requests per second that hold; infinite while no limit is known.
        hold: Seconds of use before the rate grows.
        has_grown: Whether the rate was found by growth. Other rates may be far from the limit.
        age: Seconds for which the rate was in use.
        chance: The part of the requests that is refused whatever the rate.
        trial: The trial that is going on.
        allowance: Refusals that are let pass.
        window: Requests that may be in flight.
        let_pass: Refusals that were let pass, in all.
        before: What was known before the last lesson, if that may turn out to have been the beginning of an outage.
        uncut: The rate before the first cut, to which chance returns; 0 once that has failed.
        fallback: The rate, if the last judgement of a trial turns out to be wrong.
        decided_at: When the rate was decided last.
        period: Since then.
    """

    adapts: bool = True
    is_shared: bool = False
    rate: float = math.inf
    hold: float = 0.0
    has_grown: bool = False
    age: float = 0.0
    chance: float = 0.0
    trial: Trial | None = None
    allowance: float = ALLOWANCE
    window: float = FIRST_WINDOW
    let_pass: int = 0
    before: Learned | None = None
    uncut: float = 0.0
    fallback: float = math.inf
    decided_at: float = -math.inf
    period: Period = field(default_factory=Period)

    @property
    def present_rate(self) -> float:
        """Requests per second that may begin now, growth included."""
        if not self.is_growing:
            return self.rate
        unit = max(4 * UNIT, SAMPLE / self.rate, 6 * self.round_trip)
        return self.rate * (1 + ((self.age - self.hold) / unit) ** 3)

    @property
    def is_limited(self) -> bool:
        """Whether a rate is known."""
        return self.rate < math.inf

    @property
    def is_growing(self) -> bool:
        """Whether a higher rate than the one that holds is being tried."""
        return self.is_limited and self.age > self.hold

    @property
    def changed_at(self) -> float:
        """When the rate was decided last, or a pause."""
        return max(self.decided_at, self.lesson_at)

    def observe(self, outcome: Outcome) -> None:
        """Learn from an outcome."""
        if not self.concerns_all(outcome):
            return

        if outcome.kind is Kind.SUCCESS:
            self.period.began = min(self.period.began, outcome.known_at - outcome.duration)
        self.period.skip(self.idle_before(outcome, 1 / self.present_rate))
        if outcome.kind is Kind.SUCCESS:
            self._succeeded(outcome)
        elif outcome.kind is not Kind.FAILURE:
            self._refused(outcome)
        elif self.is_shut_by(outcome):
            self.strikes = max(self.strikes, 1)
            self._strike(outcome)

    def exhaust(self, outcome: Outcome) -> None:
        """Learn from a quota that a response says is used up."""
        if outcome.sent >= self.lesson_at and not self.strikes:
            self._learn(outcome)
            self.strikes = 0

    def resume_at(self, rate: float, now: float) -> None:
        """Continue with another rate, because a process joined or left."""
        self.rate, self.trial, self.before, self.fallback = rate, None, None, math.inf
        self._begin_period(now)  # first: the rate may be too low
        self._hold_briefly()

    def _succeeded(self, outcome: Outcome) -> None:
        self.note_success(outcome)
        if outcome.sent >= self.lesson_at:
            self.before, self.fallback = None, math.inf
        self.allowance = min(self._most_allowed, self.allowance + TOLERANCE + 1.5 * self.chance)
        if 2 * outcome.in_flight > self.window:
            self.window += 1
        period, now = self.period, outcome.known_at
        period.successes += 1
        if self.is_limited:
            self._age(now)
        elif period.successes >= 2 * SAMPLE and now - period.began >= 4 * self.round_trip:
            # Two samples over four round trips are enough. The first rate that is learned is that of the last few requests.
            period.forget_half(now)

    def _age(self, now: float) -> None:
        """Count the use of a rate: what is not made use of proves nothing."""
        period, was_growing = self.period, self.is_growing
        period.successes_growing += was_growing
        self.age += 1 / self.present_rate
        if self.trial is not None:
            if period.total >= 2.5 * SAMPLE:
                self._judge(self.trial, now)
        elif self.present_rate >= 2 * self.rate:
            self._hold_briefly()
            self.rate *= 2
            self._begin_period(now, age=self.hold)
        elif self.is_growing and not was_growing:
            period.grew_at = now

    def _refused(self, outcome: Outcome) -> None:
        if outcome.sent < self.lesson_at:
            self.period.late_refusals += 1
            if self.is_half_open and outcome.wait is not None and outcome.wait > LONG_WAIT:
                self._pause(outcome, outcome.wait)
            return

        self.period.refusals += 1
        self.period.refusals_growing += self.is_growing
        cost = 2.0 if self.is_growing and not self.chance else 1.0
        if self.strikes or self.allowance < cost:
            self._learn(outcome)
            return

        self.allowance -= cost
        self.let_pass += 1
        if self.is_limited and not self.is_growing and self.trial is None:
            self._begin_trial(outcome.ended)

    def _learn(self, outcome: Outcome) -> None:
        """Learn from an allowance that is used up, and pause."""
        if self.strikes:
            self._strike(outcome)
            return

        now, wait = outcome.ended, self.nap_after(outcome)
        self.strikes = 1
        if outcome.kind is Kind.REJECTION:
            self.before = Learned(self.rate, self.hold, self.chance, self.trial, self.has_grown)
        period = self.period
        if not self.adapts:
            # The rate stays too high, so the pause has to do what a lower rate would do.
            wait = max(wait, LONG_WAIT)
            self._begin_period(now)
        elif not self.is_limited and period.successes < SAMPLE / 4:  # too few to learn a rate from
            self.window = max(1.0, min(self.window, outcome.in_flight) / 2)
            period.refusals, self.allowance = 0, self._most_allowed
        elif wait > LONG_WAIT and period.is_quota:
            self._begin_period(now, age=self.age)
        else:
            self._change_rate(outcome)
        self._pause(outcome, wait)
        self.lesson_at = now

    def _strike(self, outcome: Outcome) -> None:
        """Pause for longer: nothing got through after the last pause."""
        nap = self.nap_after(outcome)
        self.strikes += 1
        if self.before is not None and self.strikes > OUTAGE:  # no limit: the rate is not the cause
            self.rate, self.hold, self.chance, self.trial, self.has_grown = self.before
            self.before, self.fallback = None, math.inf
        if self.fallback < self.rate:  # chance does not refuse again and again
            self.rate, self.chance = self.fallback, 0.0
        self._pause(outcome, nap)
        self.lesson_at = outcome.ended

    def _change_rate(self, outcome: Outcome) -> None:
        period, now, old = self.period, outcome.ended, self.present_rate
        if self.trial is not None:
            self.allowance = self._most_allowed
            if period.total >= SAMPLE:
                self.fallback = KEEP * self._got_through(now)
                self._judge(self.trial, now)
            return

        if self.chance:
            self.uncut = 0.0  # a lesson in spite of the tolerance is a limit's
        elif old < math.inf or not self.is_shared:
            self.uncut = max(self.uncut, old)
        self.chance = 0.0
        if not self.is_limited:
            self.rate = KEEP * self._got_through(now)
        elif self._begin_trial(now):
            return
        elif not self.is_growing or period.napped > LONG_WAIT:
            self.rate = max(min(KEEP * self._got_through(now), KEEP * old), old / 2)
        else:
            seconds = max(now - period.grew_at, self.round_trip, 0.001)
            grown = KEEP * period.successes_growing / seconds if period.successes_growing >= SAMPLE / 4 else 0.0
            self.rate = max(min(grown, KEEP * old), KEEP * self.rate)
            self.hold = min(2 * max(self.hold, self._least_hold), max(LONGEST_HOLD * UNIT, 2 * SAMPLE / self.rate))
            self.has_grown = True
            self._begin_period(now)
            return
        self._hold_briefly()
        self._begin_period(now)

    def _got_through(self, now: float) -> float:
        """Return the requests per second that got through in this period."""
        period = self.period
        seconds = now - period.began
        if period.is_quota or period.napped <= LONG_WAIT:
            seconds -= period.napped
        return period.successes / max(seconds, self.round_trip, 0.001)

    def _begin_trial(self, now: float) -> bool:
        """Cut the rate, if requests were refused although it was not growing."""
        period = self.period
        refusals = period.refusals - period.refusals_growing
        requests = period.total - period.successes_growing - period.refusals_growing
        if requests < 1.5 * SAMPLE or refusals < FEWEST_SUSPICIOUS or (self.is_shared and not self.has_grown):
            return False
        refused = refusals / requests
        if not 2 * self.chance + SUSPICIOUS <= refused <= 2.5 * TOLERANCE:
            return False

        self.trial = Trial(self.rate, self.hold, refused)
        self.rate *= (1 - TOLERANCE) * (1 - refused)
        self.hold = math.inf
        self._begin_period(now)
        return True

    def _judge(self, trial: Trial, now: float) -> None:
        """End the trial: were the refusals by chance?"""
        period = self.period
        refused = period.refusals / period.total
        self.trial, self.hold = None, trial.hold
        if refused > min(2 * trial.refused, 1.5 * TOLERANCE):  # the limit is much lower
            self.rate, self.chance = max(KEEP * self.rate * (1 - refused), self.rate / 2), 0.0
            self._hold_briefly()
        elif refused >= trial.refused / 3 and period.refusals > 1:
            self.rate, self.chance = max(trial.rate, self.uncut), refused
        else:
            self.rate, self.chance = KEEP * trial.rate * (1 - trial.refused), 0.0
        self._begin_period(now)

    def _hold_briefly(self) -> None:
        self.hold, self.has_grown = self._least_hold, False

    def _begin_period(self, now: float, *, age: float = 0.0) -> None:
        self.rate = max(self.rate, LEAST_RATE)
        self.age, self.allowance, self.decided_at = age, self._most_allowed, now
        self.period = Period(now, grew_at=now)

    def _pause(self, outcome: Outcome, seconds: float) -> None:
        until = max(self.paused_until, outcome.ended + seconds)
        longer, self.paused_until = until - max(outcome.ended, self.paused_until), until
        is_outage = self.is_half_open and outcome.kind is not Kind.REFUSAL
        if is_outage or (not self.is_limited and seconds <= LONG_WAIT):
            # The server decides how long such a pause is, not the rate.
            self.period.skip(longer)
        else:
            self.period.napped += longer

    @property
    def _most_allowed(self) -> float:
        return ALLOWANCE + 1.5 * SAMPLE * self.chance

    @property
    def _least_hold(self) -> float:
        return max(UNIT, SAMPLE / 2 / self.rate, 6 * self.round_trip)
