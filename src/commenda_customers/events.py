"""
What happens to a request, as frozen records.

Pass callables as `AsyncCustomersAPI(hooks=[...])`; each is called with every event, in order, on the event loop. A hook
should return quickly. An exception that it raises is not caught: it reaches the caller of the SDK.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .errors import CustomersError

__all__ = ["Event", "Hook", "RequestSent", "ResponseReceived", "RetryScheduled", "Throttled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    Something that happened to the request for one page.

    Attributes:
        corporation_id: The corporation whose list is read.
        cursor: The cursor that was asked for; `None` is the first page.
        attempt: Which attempt of this page it was; the first is 1.
    """

    corporation_id: str
    cursor: str | None
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent(Event):
    """A request is about to go out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseReceived(Event):
    """
    An answer came, whatever its status.

    Attributes:
        status_code: The HTTP status.
        size: Bytes of the body, after decompression; of an error as much as could be read.
        elapsed: Seconds from the event `RequestSent` to the last byte; opening a connection is part of it.
    """

    status_code: int
    size: int
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """
    An attempt failed, and another follows.

    Attributes:
        error: Why the attempt failed.
        wait: Seconds until the next attempt.
    """

    error: CustomersError
    wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled(Event):
    """
    The server answered 429, or 503 and when to come back, and the limiter has learned from it.

    Attributes:
        pause: Seconds for which no request begins.
        rate: Requests per second that may begin after it; `None` if the limiter knows no rate.
    """

    pause: float
    rate: float | None


Hook = Callable[[Event], None]
"""A callable that receives every event."""
