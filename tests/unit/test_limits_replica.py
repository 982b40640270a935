"""What several processes learn together: every replica makes the same of the same entries, whatever is in them."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers.limits._controller import Controller
from commenda_customers.limits._log import Entry, Snapshot
from commenda_customers.limits._outcomes import Kind, Learned, Outcome, Trial
from commenda_customers.limits._replica import START, Message, Replica, Report, fair_part

OK, REFUSED, REJECTED, FAILED = Kind.SUCCESS, Kind.REFUSAL, Kind.REJECTION, Kind.FAILURE


def entry(message: Message, at: float | None = None) -> Entry:
    """Return the entry of a message, written when it was made or *at* another time."""
    return Entry(f"{round((message.at if at is None else at) * 1000)}-0", message.text())


def said(member: str, at: float, *kinds: Kind | None, **details: Any) -> Entry:
    """Return the entry of a message with requests that took a tenth of a second."""
    heard = details.pop("heard", at - 0.1)
    reports = tuple(Report(kind, at - 0.1, at, 4) for kind in kinds)
    return entry(Message(member, at, heard, reports=reports, **details))


def restored(snapshot: Snapshot | None, entries: Sequence[Entry]) -> Replica:
    """Return what a process knows that joins."""
    replica = Replica.restored(snapshot)
    news = replica.news(entries)
    if news is None:
        replica, news = Replica(), entries
    replica.apply(news)
    return replica


def replica_of(*entries: Entry) -> Replica:
    """Return what entries amount to."""
    replica = Replica()
    replica.apply(entries)
    return replica


def knows(rate: float, *members: str, at: float = 100.0) -> Replica:
    """Return a replica of a group that holds a rate."""
    replica = replica_of(*[said(member, at) for member in members])
    replica.controller.resume_at(rate, at)
    return replica


times = st.floats(-2.0, 2.0).map(lambda second: round(second, 3))
reports = st.builds(
    lambda kind, ended, took, in_flight, is_late, wait, since: Report(
        kind, 100 + ended - took, 100 + ended, in_flight, is_late, wait, since
    ),
    st.sampled_from([OK, OK, OK, REFUSED, REJECTED, FAILED, None]),
    times,
    st.floats(0.01, 1.0),
    st.integers(1, 9),
    st.booleans(),
    st.none() | st.floats(0.0, 60.0),
    st.none() | times.map(lambda second: 100 + second),
)
messages = st.builds(
    lambda member, heard, reports, brings, **details: Message(
        member, 0.0, 100 + heard, reports=tuple(reports), brings=brings, **details
    ),
    st.sampled_from("abcd"),
    times,
    st.lists(reports, max_size=6),
    st.none() | st.floats(0.0, 100.0),
    wanted=st.floats(0.0, 50.0),
    in_flight=st.integers(0, 9),
    waiting=st.integers(0, 9),
    anew=st.booleans(),
    leaves=st.booleans(),
)
garbage = st.one_of(
    st.text(max_size=20),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ).map(json.dumps),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Return entries of several processes and of other programs, with times between them, short ones and long ones."""
    now, entries = 100.0, list[Entry]()
    for number, item in enumerate(draw(st.lists(messages | garbage, max_size=30))):
        now += draw(st.sampled_from([0.0, 0.1, 0.25, 1.0, 1.0, 2.0, 3.5, 5.0]))
        text = item if isinstance(item, str) else replace(item, at=now - draw(st.sampled_from([0.0, 0.1, 5.0]))).text()
        entries.append(Entry(f"{round(now * 1000)}-{number}", text))
    return entries


class TestReplicas:
    """All who read the same know the same."""

    @given(logs(), st.data())
    def test_it_does_not_matter_when_one_reads(self, log: list[Entry], data: st.DataObject) -> None:
        """Whoever reads entries in any portions, or joins at any time with any snapshot, ends with the same replica."""
        everything = replica_of(*log)
        assert everything.position == (log[-1].id if log else START)

        in_portions, number = Replica(), 0
        while number < len(log):
            size = data.draw(st.integers(1, 10))
            in_portions.apply(log[number : number + size])
            number += size
        assert in_portions == everything

        count = data.draw(st.integers(0, len(log)))
        snapshot = replica_of(*log[:count]).snapshot()
        assert restored(snapshot, log[max(0, count - 1) :]) == everything

    @given(logs())
    def test_a_snapshot_is_the_replica(self, log: list[Entry]) -> None:
        """A snapshot is JSON from which the same replica is restored, infinities included."""
        replica = replica_of(*log, said("a", 200.0))
        snapshot = replica.snapshot()
        assert restored(snapshot, [Entry(snapshot.position, "")]) == replica

    def test_a_snapshot_has_everything_that_was_learned(self) -> None:
        """Also what is rarely there: a trial, and what was known before a lesson that may be an outage's."""
        replica = knows(50.0, "a", "b")
        trial = Trial(40.0, math.inf, 0.05)
        replica.controller.trial, replica.controller.before = trial, Learned(40.0, math.inf, 0.1, trial)
        snapshot = replica.snapshot()
        assert restored(snapshot, [Entry(snapshot.position, "")]) == replica

    def test_a_message_is_its_text(self) -> None:
        """What was put into a message comes out of its entry."""
        outcome = Outcome(REJECTED, 99.5, 99.75, 3, 2.5, 98.0, is_answered=False)
        assert Report.of(outcome, is_late=False).outcome() == outcome
        plain = Outcome(OK, 99.5, 99.75, 3)
        assert Report.of(plain, is_late=False).outcome() == plain
        assert Report.of(plain._replace(wait=math.inf), is_late=False).wait == 1e9
        assert Report.of(plain, is_late=True).is_late

        replica = replica_of(entry(Message("a", 100.0, 99.0, 12.5, 3, 7, (Report.of(outcome, is_late=False),))))
        assert asdict(replica.members["a"]) == {"heard": 100.0, "wanted": 12.5, "in_flight": 3, "waiting": 7}
        assert replica.time == 100.0

    def test_without_a_snapshot_that_fits_the_entries_must_do(self) -> None:
        """A snapshot of which entries are missing, or that is no snapshot, is the same as none."""
        log = [said("a", 100.0 + number, OK, REFUSED) for number in range(8)]
        fits = replica_of(*log[:4]).snapshot()
        assert restored(fits, log[3:]) == replica_of(*log)
        unfit = [None, fits, Snapshot(log[4].id, fits.text), Snapshot(log[4].id, "{}"), Snapshot(log[4].id, "[" * 10_000)]
        for snapshot in unfit:
            assert restored(snapshot, log[4:]) == replica_of(*log[4:])
        assert restored(fits, []) == Replica()


class TestOtherPrograms:
    """Somebody else may write to the log."""

    NEAR_MISSES = (
        {"member": ""},
        {"member": "x" * 65},
        {"member": None},
        {"member": "\ud800"},
        {"at": math.nan},
        {"at": math.inf},
        {"at": 1e308},
        {"at": "yesterday"},
        {"wanted": -1.0},
        {"wanted": math.nan},
        {"wanted": 1e10},
        {"in_flight": -1},
        {"in_flight": 1.5},
        {"in_flight": 10**400},
        {"waiting": -1},
        {"waiting": 10**400},
        {"brings": math.inf},
        {"brings": -1},
        {"leaves": "perhaps"},
        {"reports": None},
        {"reports": [[]]},
        {"reports": [["success", 99.9, 100.0, 0]]},
        {"reports": [["success", 99.9, 100.0]]},
        {"reports": [["success", math.nan, 100.0, 1]]},
        {"reports": [["success", -1e308, 1e308, 1]]},
        {"reports": [["success", 99.9, 100.0, 10**400]]},
        {"reports": [["miracle", 99.9, 100.0, 1]]},
        {"reports": [["refusal", 99.9, 100.0, 1, False, math.nan]]},
        {"reports": [["refusal", 99.9, 100.0, 1, False, -5.0]]},
        {"reports": [["failure", 99.9, 100.0, 1, False, None, math.inf]]},
    )

    @pytest.mark.parametrize("change", NEAR_MISSES, ids=repr)
    def test_a_message_with_an_impossible_value_is_skipped(self, change: dict[str, Any]) -> None:
        """What is nearly a message changes nothing but the position."""
        text = json.dumps({**asdict(Message("b", 100.5, reports=(Report(OK, 100.0, 100.1, 1),))), **change})
        before = knows(50.0, "a")
        after = knows(50.0, "a")
        after.apply([Entry("100500-0", text)])
        assert after == replace(before, position="100500-0")

    @pytest.mark.parametrize(
        "text", ["", "\0", "null", "1", "[" * 100_000, '{"a":' * 100_000, "x" * 2**20, "\ud800", '{"member": "b"}']
    )
    def test_an_entry_that_is_no_message_is_skipped(self, text: str) -> None:
        """Neither deep nor long nor broken text does any harm."""
        after = knows(50.0, "a")
        after.apply([Entry("100500-0", text), said("b", 101.0)])
        assert list(after.members) == ["a", "b"]
        assert after.controller.rate == 50.0

    @given(st.lists(st.tuples(st.sampled_from(Kind), st.floats(-1e12, 1e12), st.floats(-1e12, 1e12)), max_size=20))
    def test_no_times_break_anything(self, stories: list[tuple[Kind, float, float]]) -> None:
        """Whatever times a process reports, one can still calculate with what is learned, and nobody is stopped for ever."""
        reports = tuple(Report(kind, sent, ended, 1) for kind, sent, ended in stories)
        replica = knows(50.0, "a")
        for number in range(10):
            replica.apply([entry(Message("b", 100.0 + number / 10, reports=reports)), said("a", 100.05 + number / 10, OK)])
        controller = replica.controller
        assert 0.02 <= controller.present_rate < 200
        assert not math.isnan(controller.round_trip)
        assert controller.paused_until < 120

    @pytest.mark.parametrize(("sent", "ended"), [(100.0, 1e11), (100.2, 100.1)])
    def test_a_report_from_the_future_is_skipped(self, sent: float, ended: float) -> None:
        """No request ends before it began, or long after its outcome was told."""
        replica = knows(50.0, "a")
        replica.apply([entry(Message("a", 100.0, reports=(Report(REFUSED, sent, ended, 1),) * 9))])
        assert replica.controller == knows(50.0, "a").controller

    UNSOUND = (
        {"rate": 0.0},
        {"rate": -1.0},
        {"rate": math.nan},
        {"round_trip": math.nan},
        {"round_trip": math.inf},
        {"round_trip": -1.0},
        {"age": math.inf},
        {"window": math.inf},
        {"window": -math.inf},
        {"strikes": -(10**400)},
        {"lesson_at": 1e300},
        {"hold": math.nan},
        {"before": Learned(0.0, 1.0, 0.0, None)},
        {"before": Learned(1.0, 1.0, 0.0, Trial(0.0, 1.0, 0.1))},
        {"trial": Trial(-5.0, 1.0, 0.1)},
        {"trial": Trial(5.0, 1.0, math.nan)},
    )

    @pytest.mark.parametrize("change", UNSOUND, ids=repr)
    def test_a_snapshot_with_an_impossible_value_is_none(self, change: dict[str, Any]) -> None:
        """One could not calculate with it: the entries must do."""
        log = [said("a", 100.0), said("a", 101.0)]
        replica = replica_of(log[0])
        for name, value in change.items():
            setattr(replica.controller, name, value)
        assert restored(replica.snapshot(), log) == replica_of(*log)

    @pytest.mark.parametrize("change", [{"heard": math.nan}, {"wanted": math.nan}, {"wanted": -1.0}, {"in_flight": -1}])
    def test_a_snapshot_with_an_impossible_member_is_none(self, change: dict[str, Any]) -> None:
        """The same holds for what it says of a process."""
        log = [said("a", 100.0), said("a", 101.0)]
        replica = replica_of(log[0])
        for name, value in change.items():
            setattr(replica.members["a"], name, value)
        assert restored(replica.snapshot(), log) == replica_of(*log)

    @given(garbage)
    def test_a_snapshot_that_is_none_is_none(self, text: str) -> None:
        """Any text may be where the snapshot should be."""
        log = [said("a", 100.0), said("a", 101.0)]
        assert restored(Snapshot(log[0].id, text), log) == replica_of(*log)


class TestMembers:
    """Who takes part."""

    def test_one_that_says_nothing_is_gone_after_three_seconds(self) -> None:
        """Its share goes to the others, for those who ask and for those who read."""
        replica = replica_of(said("a", 100.0), said("b", 100.0, wanted=5.0), said("a", 101.0), said("a", 102.0))
        assert [member.wanted for member in replica.others("a", 103.0)] == [5.0]
        assert replica.others("a", 103.1) == []
        replica.apply([said("a", 103.0)])
        assert list(replica.members) == ["a", "b"]
        replica.apply([said("a", 103.1)])
        assert list(replica.members) == ["a"]

    def test_one_that_leaves_is_gone_at_once(self) -> None:
        """What it saw at last is still learned."""
        replica = replica_of(said("a", 100.0), said("b", 100.0))
        replica.apply([said("b", 100.5, OK, leaves=True), said("c", 100.6, leaves=True)])
        assert list(replica.members) == ["a"]
        assert replica.controller.succeeded_at == 100.5

    def test_the_first_name_saves_the_snapshots(self) -> None:
        """One process does it, all agree which, and when it is gone another one does it."""
        replica = replica_of(said("b", 100.0), said("a", 100.0), said("c", 100.0))
        assert [name for name in "abc" if replica.leads(name)] == ["a"]
        replica.apply([said("a", 100.5, leaves=True)])
        assert [name for name in "abc" if replica.leads(name)] == ["b"]
        assert Replica().leads("z")


class TestSilence:
    """Nobody has said anything for a while."""

    @pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, 3.0, 3.5, 4.0])
    def test_a_short_one_changes_nothing(self, seconds: float) -> None:
        """What all knew still holds for all of them, so those who return bring nothing."""
        replica = knows(50.0, "a", "b")
        replica.apply([said("a", 100.0 + seconds, brings=25.0)])
        replica.apply([said("b", 100.0 + seconds + 2.9, brings=25.0)])
        assert replica.controller.rate == 50.0
        assert list(replica.members) == ["a", "b"]

    @pytest.mark.parametrize(("alone_since", "rate"), [(99.5, 75.0), (100.5, 50.0)])
    def test_a_share_that_the_rate_includes_is_not_added_again(self, alone_since: float, rate: float) -> None:
        """Who was alone adds its share only if the others have decided a rate without it."""
        replica = knows(50.0, "a", at=100.0)
        replica.apply([said("a", 101.0), said("b", 102.0, brings=25.0, alone_since=alone_since)])
        assert replica.controller.rate == rate

    @pytest.mark.parametrize("seconds", [4.1, 10.0, 1e6])
    def test_after_a_long_one_the_parts_add_up(self, seconds: float) -> None:
        """Nothing that was known before holds. Each brings the rate that it had alone."""
        replica = knows(50.0, "a", "b", "c")
        replica.apply([said("a", 100.0 + seconds, brings=20.0)])
        assert (replica.controller.rate, list(replica.members)) == (20.0, ["a"])
        replica.apply([said("b", 101.0 + seconds, brings=10.0), said("b", 101.1 + seconds, brings=10.0)])
        assert replica.controller.rate == 30.0

    def test_nobody_who_knows_nothing_brings_anything(self) -> None:
        """After a silence, a process that knew no limit begins to learn one."""
        replica = knows(50.0, "a")
        replica.apply([said("b", 105.0)])
        assert replica.controller == Controller(is_shared=True)

    def test_one_that_was_away_while_others_went_on_brings_its_part(self) -> None:
        """They have learned without it what is left for them."""
        replica = knows(50.0, "a", "b")
        replica.apply([said("a", 100.0 + seconds) for seconds in range(1, 5)])
        replica.controller.resume_at(30.0, 104.0)
        replica.apply([said("b", 104.5, brings=25.0), said("b", 104.6, brings=25.0)])
        assert replica.controller.rate == 55.0

    def test_one_that_begins_anew_brings_its_part(self) -> None:
        """If the log was emptied, the message that finds out has made it a member: that is no reason to forget its part."""
        replica = replica_of(said("a", 100.0), said("b", 100.0))
        replica.apply([said("a", 100.1, brings=20.0, anew=True), said("b", 100.2, brings=10.0, anew=True)])
        assert replica.controller.rate == 30.0

    def test_a_message_from_before_an_outage_changes_nothing(self) -> None:
        """It was held up on the way for as long as a silence takes: its reports are old, and its author has sent others."""
        stale = Message("b", 100.0, wanted=5.0, reports=(Report(REFUSED, 99.9, 100.0, 4),) * 4, brings=10.0)
        replica, same = knows(50.0, "a", at=103.0), knows(50.0, "a", at=103.0)
        replica.apply([entry(stale, at=104.0)])
        assert replica == replace(same, position="104000-0")
        replica.apply([entry(stale, at=103.9)])
        assert list(replica.members) == ["a", "b"]


class TestLessons:
    """What all learn of what one saw."""

    def test_all_learn_from_all(self) -> None:
        """Refusals of two processes use up one allowance."""
        replica = knows(50.0, "a", "b")
        replica.apply([said("a", 101.0, OK, REFUSED), said("b", 101.1, REFUSED)])
        assert (replica.controller.rate, replica.controller.let_pass) == (50.0, 2)
        replica.apply([said("b", 101.2, REFUSED)])
        assert replica.controller.rate < 50.0
        assert replica.controller.lesson_at == 101.2

    def test_refusals_of_one_that_had_not_heard_teach_nothing(self) -> None:
        """It sent them at the old rate. They say no more than those from before the lesson."""
        replica = knows(50.0, "a", "b")
        replica.apply([said("a", 101.0, OK, REFUSED, REFUSED, REFUSED)])
        rate = replica.controller.rate
        assert rate < 50.0
        deaf = [said("b", 101.5 + number / 10, *[REFUSED] * 3, heard=100.0) for number in range(5)]
        replica.apply(deaf)
        assert (replica.controller.rate, replica.controller.strikes) == (rate, 1)
        late = tuple(Report(REFUSED, 102.4, 102.5, 4, is_late=True) for _ in range(9))
        replica.apply([entry(Message("b", 102.5, 101.0, reports=late))])
        assert (replica.controller.rate, replica.controller.strikes) == (rate, 1)
        replica.apply([said("b", 103.0, REFUSED, heard=101.0)])
        assert replica.controller.strikes == 2

    def test_refusals_of_one_that_had_not_heard_of_a_first_rate_teach_nothing(self) -> None:
        """The rate came with a process, and there was no lesson yet."""
        replica = replica_of(said("a", 100.0, *[OK] * 30), said("b", 100.1, brings=50.0))
        same = replace(replica.controller)
        replica.apply([said("a", 100.2, *[REFUSED] * 9, heard=-math.inf)])
        assert replica.controller == same

    def test_a_success_of_one_that_had_not_heard_counts(self) -> None:
        """If a request gets through, it does not matter what its process knew."""
        replica = knows(50.0, "a", "b")
        replica.apply([said("a", 101.0, OK, REFUSED, REFUSED, REFUSED)])
        replica.apply([said("b", 101.5, OK, heard=-math.inf)])
        assert replica.controller.strikes == 0

    def test_an_outage_is_heard_of_as_well(self) -> None:
        """It changes no rate, but failures of a process that had not heard of the pause make it no longer."""
        replica = replica_of(said("a", 100.0, OK), said("b", 100.0))
        replica.apply([said("a", 101.0, *[FAILED] * 4)])
        strikes, pause = replica.controller.strikes, replica.controller.paused_until
        assert replica.controller.is_half_open
        replica.apply([said("b", 101.5, *[FAILED] * 4, heard=100.0)])
        assert (replica.controller.strikes, replica.controller.paused_until) == (strikes, pause)

    def test_requests_from_before_a_lesson_do_not_count_as_in_flight(self) -> None:
        """Neither those that were told before it, nor those of a process that has not heard of it."""
        replica = replica_of(said("a", 100.0, OK), said("b", 100.0, in_flight=3), said("c", 100.0, in_flight=1))
        replica.apply([said("a", 101.0, *[FAILED] * 4, in_flight=2, heard=100.0)])
        assert [member.in_flight for member in replica.members.values()] == [0, 0, 0]
        replica.apply([said("b", 101.1, in_flight=3, heard=100.0), said("c", 101.2, in_flight=1, heard=101.0)])
        assert [member.in_flight for member in replica.members.values()] == [0, 0, 1]

    def test_a_quota_that_is_used_up_pauses_all(self) -> None:
        """One process has heard of it with a success."""
        replica = knows(50.0, "a")
        replica.controller.has_worked = True
        replica.apply([said("a", 101.0, *[OK] * 30, None)])
        assert replica.controller.paused_until > 101.0
        assert replica.controller.let_pass == 0


amounts = st.floats(0.0, 1e6)


class TestFairPart:
    """Max-min fairness."""

    @given(amounts, st.lists(amounts, min_size=1, max_size=12))
    def test_nobody_gets_more_than_it_wants_while_another_gets_less(self, amount: float, wishes: list[float]) -> None:
        """The parts are those of max-min fairness, and add up to the amount."""
        parts = parts_of(amount, wishes)
        assert sum(parts) == pytest.approx(amount, rel=1e-9, abs=1e-6)
        assert min(parts) >= 0
        for part, wish in zip(parts, wishes, strict=True):
            if part < wish - 1e-6:  # it gets as much as anybody, and nobody has more than it wants
                assert part == pytest.approx(max(parts), abs=1e-6)
                assert all(one <= wanted + 1e-6 for one, wanted in zip(parts, wishes, strict=True))

    @given(amounts, amounts, st.lists(amounts, max_size=8), st.randoms())
    def test_the_order_does_not_matter(self, amount: float, wanted: float, others: list[float], random: Any) -> None:
        """All processes calculate the same, whoever they hear of first."""
        shuffled = random.sample(others, len(others))
        assert fair_part(amount, wanted, others) == fair_part(amount, wanted, shuffled)

    @given(amounts, st.lists(amounts, min_size=1, max_size=8))
    def test_who_wants_more_gets_no_less(self, amount: float, wishes: list[float]) -> None:
        """Modesty is never rewarded with more."""
        ranked = sorted(zip(wishes, parts_of(amount, wishes), strict=True))
        parts = [part for _, part in ranked]
        assert all(one <= other + 1e-6 for one, other in pairwise(parts))

    @pytest.mark.parametrize(
        ("amount", "wanted", "others", "part"),
        [
            (10.0, 1.0, [], 10.0),
            (0.0, 5.0, [5.0], 0.0),
            (0.0, 0.0, [], 0.0),
            (10.0, 0.0, [0.0], 5.0),
            (10.0, 20.0, [2.0], 8.0),
            (10.0, 2.0, [20.0], 2.0),
            (10.0, 5.0, [5.0], 5.0),
            (10.0, 20.0, [20.0] * 9, 1.0),
            (10.0, 2.0, [2.0, 2.0], 2.0 + 4.0 / 3),
            (10.0, math.inf, [1.0], 9.0),
            (math.inf, 1.0, [1.0], math.inf),
            (math.inf, math.inf, [math.inf], math.inf),
            (1000.0, 5.0, [5.0] * 999, 1.0),
        ],
    )
    def test_extremes(self, amount: float, wanted: float, others: Sequence[float], part: float) -> None:
        """One, many, nothing and everything."""
        assert fair_part(amount, wanted, others) == pytest.approx(part)


def parts_of(amount: float, wishes: list[float]) -> list[float]:
    """Return the parts of all."""
    return [fair_part(amount, wish, wishes[:place] + wishes[place + 1 :]) for place, wish in enumerate(wishes)]
