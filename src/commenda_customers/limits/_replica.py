"""
What several processes learn together: the same in each of them, because each applies the same entries in the same order.

Pure: the entries come from a log (`_log.py`), and all times are those of its clock. An entry has what one process saw since
its last one. So the `Controller` of each replica learns from the requests of all.

1. *A member* is a process that has appended an entry within the last seconds. Each counts from its first entry on.
2. *The rate is divided* by what the members want. Small demands are met first. The rest is shared equally (max-min).
3. *A decision reaches the others later.* Refusals of what they sent before they heard of it say nothing new.
4. *After a silence* of all, nothing that was known before holds, unless all stood still. Processes that have lost the log
   know a rate of their own. They bring it with them when they return, and the rates add up.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, NamedTuple, cast

from pydantic import Field, TypeAdapter, ValidationError

from ._controller import LEAST_RATE, Controller
from ._log import Entry, Snapshot
from ._outcomes import Kind, Outcome

LIFETIME = 3.0
"""Seconds without an entry after which a member is gone. Members append one each second at least."""

SILENCE = 4.0
"""Seconds without any entry after which everything is learned again."""

START = "0-0"
"""The position before the first entry."""

_MOST, _LATEST = 1e9, 1e12
_MOST_MEMBERS = 1000
_OLDEST = 3600.0
"""Seconds. The outcome of a request that began longer ago is ignored."""

_Amount = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=_MOST)]
_Time = Annotated[float, Field(ge=-_LATEST, le=_LATEST, allow_inf_nan=False)]


class Report(NamedTuple):
    """
    The outcome of a request, as one process tells the others.

    Attributes:
        kind: The kind; `None` for a quota that is used up.
        sent: When the request began.
        ended: When its outcome was known.
        in_flight: Requests of all processes in flight at that time.
        is_late: Whether it began before its process had heard of the last decision.
        wait: Seconds that the server asked to wait.
        failing_since: When the same request failed for the first time; `None` if it had not.
        is_answered: Whether a response came.
    """

    kind: Kind | None
    sent: _Time
    ended: _Time
    in_flight: Annotated[int, Field(ge=1, le=_MOST)]
    is_late: bool = False
    wait: _Amount | None = None
    failing_since: _Time | None = None
    is_answered: bool = True

    @classmethod
    def of(cls, outcome: Outcome, *, is_late: bool, is_hint: bool = False) -> "Report":
        """Return the report of an outcome, or with *is_hint* of a quota that is used up."""
        kind = None if is_hint else outcome.kind
        since = None if math.isinf(outcome.failing_since) else outcome.failing_since
        wait = None if outcome.wait is None else min(outcome.wait, _MOST)
        details = wait, since, outcome.is_answered
        return cls(kind, outcome.sent, outcome.ended, outcome.in_flight, is_late, *details)

    def outcome(self) -> Outcome:
        """Return the outcome."""
        since = math.inf if self.failing_since is None else self.failing_since
        details = self.wait, since, self.is_answered
        return Outcome(self.kind or Kind.REFUSAL, self.sent, self.ended, self.in_flight, *details)


@dataclass(frozen=True, slots=True)
class Message:
    """
    What is in an entry.

    Attributes:
        member: The process, by a random name.
        at: When it wrote the message.
        heard: When the rate or a pause was decided last, as far as it knows.
        wanted: Requests per second that it would send if it could.
        in_flight: Its requests in flight that began after the last lesson, as far as it knows.
        waiting: Its requests that wait.
        reports: What it saw since its last message.
        brings: Its share of the rate, without growth, if it joins; `None` if it knows no limit.
        alone_since: When it lost the log, if it joins again.
        pause: Seconds for which the server wants no requests at all, as far as it knows, if it joins.
        anew: Whether it joins because what all knew is lost.
        leaves: Whether it is its last message.
    """

    member: Annotated[str, Field(min_length=1, max_length=64)]
    at: _Time
    heard: float = -math.inf
    wanted: _Amount = 0.0
    in_flight: _Count = 0
    waiting: _Count = 0
    reports: tuple[Report, ...] = ()
    brings: _Amount | None = None
    alone_since: float = -math.inf
    pause: _Amount = 0.0
    anew: bool = False
    leaves: bool = False

    def text(self) -> str:
        """Return the text of an entry."""
        # Not with `asdict`, which copies each report: that took most of the time.
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, separators=(",", ":"))


@dataclass(slots=True)
class Member:
    """A process: when it was heard of last, what it would send each second, what is in flight, and what waits."""

    heard: _Time
    wanted: _Amount
    in_flight: _Count
    waiting: _Count


def _new_controller() -> Controller:
    return Controller(is_shared=True)


@dataclass(slots=True)
class Replica:
    """
    What all entries up to a position amount to.

    Attributes:
        controller: What was learned.
        members: Those that take part.
        position: The last entry.
        time: When it was appended.
    """

    controller: Controller = field(default_factory=_new_controller)
    members: dict[str, Member] = field(default_factory=dict[str, Member])
    position: str = START
    time: float = -math.inf

    @classmethod
    def restored(cls, snapshot: Snapshot | None) -> "Replica":
        """Return the replica of a snapshot; an empty one, if there is none that can be used."""
        if snapshot is None:
            return cls()

        try:
            replica = _REPLICA.validate_json(snapshot.text)
        except ValidationError:
            return cls()
        return replica if replica.position == snapshot.position and _is_sound(replica) else cls()

    def snapshot(self) -> Snapshot:
        """Return a snapshot for processes that join later."""
        return Snapshot(self.position, json.dumps(asdict(self), separators=(",", ":")))

    def news(self, entries: Sequence[Entry]) -> Sequence[Entry] | None:
        """Return the entries after its position, out of those from its position on; `None` if the log has lost some."""
        if self.position == START:
            return entries
        return entries[1:] if entries and entries[0].id == self.position else None

    def apply(self, entries: Iterable[Entry]) -> None:
        """Apply entries in their order. Skip those that are not messages: another program wrote them."""
        for entry in entries:
            try:
                message = _MESSAGE.validate_json(entry.text)
            except ValidationError:
                continue
            finally:
                self.position = entry.id
            if message.at > entry.time - SILENCE:  # else it was written before an outage of the log, and arrived late
                self._apply(message, entry.time)

    def _apply(self, message: Message, now: float) -> None:
        self._let_time_pass(message, now)
        if message.brings and self._lacks_share_of(message):
            self.controller.resume_at(message.brings + (self.controller.rate if self.controller.is_limited else 0.0), now)
        if message.pause:
            self.controller.paused_until = max(self.controller.paused_until, now + message.pause)
        lesson_before = self.controller.lesson_at
        for report in message.reports:
            self._learn(report, message.heard)
        if self.controller.lesson_at > lesson_before:
            for member in self.members.values():
                member.in_flight = 0  # they began before the lesson
        if message.leaves:
            self.members.pop(message.member, None)
            return

        if len(self.members) == _MOST_MEMBERS and message.member not in self.members:
            return
        in_flight = message.in_flight if message.heard >= self.controller.lesson_at else 0
        self.members[message.member] = Member(now, message.wanted, in_flight, message.waiting)

    def _lacks_share_of(self, message: Message) -> bool:
        """Return whether the rate does not include the share that a member brings: it was decided without that member."""
        if message.anew or message.member in self.members:
            return message.anew
        return not self.controller.is_limited or self.controller.decided_at > message.alone_since

    def _let_time_pass(self, message: Message, now: float) -> None:
        """Forget what no longer holds."""
        silent, self.time = now - self.time, now
        is_known = message.member in self.members and not (message.brings or message.anew)
        if silent > SILENCE and not is_known:
            self.controller, self.members = _new_controller(), {}
        elif silent > LIFETIME / 2:
            # The log was away, or all stood still: if its author had been alone in between, it would bring a rate.
            for member in self.members.values():
                member.heard += silent
        for name in [name for name, member in self.members.items() if now - member.heard > LIFETIME]:
            del self.members[name]

    def _learn(self, report: Report, heard: float) -> None:
        controller, outcome = self.controller, report.outcome()
        if len(self.members) > 1:
            outcome = outcome._replace(told=self.time)
        if not self.time - _OLDEST < outcome.sent <= outcome.ended < self.time + SILENCE:
            return  # the clock of its author is wrong
        if outcome.kind is not Kind.SUCCESS and (report.is_late or heard < controller.changed_at):
            # It was sent at the old rate or before the pause, so it says as little as if it was sent before the lesson.
            if math.isinf(controller.lesson_at):
                return
            outcome = outcome._replace(sent=min(outcome.sent, math.nextafter(controller.lesson_at, -math.inf)))
        if report.kind is None:
            controller.exhaust(outcome)
        else:
            controller.observe(outcome)

    def others(self, name: str, now: float) -> list[Member]:
        """Return the members except *name* and those that are gone."""
        return [member for other, member in self.members.items() if other != name and now - member.heard <= LIFETIME]

    def leads(self, name: str) -> bool:
        """Return whether *name* is the member that saves the snapshots."""
        return name == min(self.members, default=name)


def _is_sound(replica: Replica) -> bool:
    """Return whether the numbers of a replica make sense. Any program can write a snapshot."""
    controller = replica.controller
    learned = [state for state in (controller, controller.before, controller.trial) if state is not None]
    if controller.before is not None and controller.before.trial is not None:
        learned.append(controller.before.trial)
    amounts = controller.round_trip, controller.age, controller.chance, controller.strikes, controller.window - 1
    return (
        min(controller.fallback, *(state.rate for state in learned)) >= LEAST_RATE
        and all(0 <= amount <= _LATEST for amount in amounts)
        and min(controller.hold, controller.uncut) >= 0
        and all(abs(number) <= _LATEST or abs(number) == math.inf for number in _numbers(asdict(replica)))
    )


def _numbers(value: object) -> Iterator[float]:
    """Yield the numbers in the fields of a dataclass."""
    if isinstance(value, dict | tuple):
        items = cast("dict[str, object]", value).values() if isinstance(value, dict) else cast("tuple[object, ...]", value)
        for item in items:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


_MESSAGE, _REPLICA = TypeAdapter(Message), TypeAdapter(Replica)


def fair_part(amount: float, wanted: float, others: Iterable[float]) -> float:
    """
    Return the share of an *amount* for a process that has *wanted* so much, while *others* want their own amounts.

    Small demands are met first. The others share what remains equally (max-min fairness). If all demands are met, what
    is left is divided equally.
    """
    wishes = sorted([wanted, *others])
    left = amount
    for number, wish in enumerate(wishes):
        equal = left / (len(wishes) - number)
        if wish >= equal:
            return min(wanted, equal)
        left -= wish
    return wanted + left / len(wishes)
