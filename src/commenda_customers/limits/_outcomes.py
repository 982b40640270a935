"""The values that the controller works with: what came of a request, and what happened since the last lesson."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from .base import Feedback, Permit

QUOTA = 0.02
"""The most refusals for each request between two long waits that are those of a quota."""


class Kind(StrEnum):
    """
    What came of a request.

    Success: any response that is none of the following. Refusal: the server says that it is a limit. Rejection: a 503
    without a wait, or a connection that was refused or closed; a limit if other requests get through, and otherwise an
    outage. Failure: any other error that may pass.
    """

    SUCCESS = "success"
    REFUSAL = "refusal"
    REJECTION = "rejection"
    FAILURE = "failure"


class Outcome(NamedTuple):
    """
    What came of a request, as a value.

    Attributes:
        kind: The kind.
        sent: When the request began, in seconds.
        ended: When its outcome was known.
        in_flight: Requests in flight when it began, itself included.
        wait: Seconds that the server asked to wait; `None` if it did not say.
        failing_since: When the same request failed for the first time; infinity if it had not.
        is_answered: Whether a response came.
        told: When another process told us; minus infinity for our own.
    """

    kind: Kind
    sent: float
    ended: float
    in_flight: int
    wait: float | None = None
    failing_since: float = math.inf
    is_answered: bool = True
    told: float = -math.inf

    @property
    def known_at(self) -> float:
        """When we heard of it."""
        return max(self.ended, self.told)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.ended - self.sent


def outcome_of(permit: Permit, feedback: Feedback, now: float, ahead: float = 0.0) -> Outcome | None:
    """
    Return what came of a request that ended *now*; `None` if it has no outcome, because it was cancelled.

    The event loop's clock, from which all three have their times, is *ahead* seconds behind that of the outcome.
    """
    if feedback.is_throttled:
        kind = Kind.REFUSAL
    elif feedback.is_rejected:
        kind = Kind.REJECTION
    elif feedback.is_failed:
        kind = Kind.FAILURE
    elif feedback.is_answered:
        kind = Kind.SUCCESS
    else:
        return None

    details = feedback.wait, feedback.failing_since + ahead, feedback.is_answered
    return Outcome(kind, permit.sent + ahead, now + ahead, permit.in_flight, *details)


@dataclass(slots=True)
class Period:
    """What happened since the last lesson: in all, and since the rate began to grow."""

    began: float = math.inf
    successes: int = 0
    refusals: int = 0
    late_refusals: int = 0  # of requests that were sent before the lesson
    napped: float = 0.0
    grew_at: float = math.inf
    successes_growing: int = 0
    refusals_growing: int = 0

    def skip(self, seconds: float) -> None:
        """Do not count time in which nothing was wanted."""
        self.began += seconds
        self.grew_at += seconds

    def forget_half(self, now: float) -> None:
        """Let the past weigh less."""
        self.successes //= 2
        self.refusals //= 2
        self.began = (self.began + now) / 2

    @property
    def total(self) -> int:
        """Requests."""
        return self.successes + self.refusals

    @property
    def is_quota(self) -> bool:
        """Whether nearly all requests got through."""
        return self.refusals + self.late_refusals <= QUOTA * self.total


class Trial(NamedTuple):
    """A cut that is to show whether refusals are by chance: the rate and its hold before, and the part that was refused."""

    rate: float
    hold: float
    refused: float


class Learned(NamedTuple):
    """What a lesson may change."""

    rate: float
    hold: float
    chance: float
    trial: Trial | None
    has_grown: bool = False
