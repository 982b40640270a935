"""
What happens to a request, as frozen records.

Pass callables as `AsyncCustomersAPI(hooks=[...])`; each is called with every event, in order, on the event loop. A hook
should return quickly. An exception that it raises is not caught: it reaches the caller of the SDK.

The events of one page, in order:

    RequestSent        each time it is sent
    ResponseReceived   if a complete response came, whatever its status
    Throttled          if the server refused the request because of a limit
    RequestFailed      if the attempt failed
    RetryScheduled     if another attempt follows; then again from RequestSent
    PageFetched, or PageFailed

Hooks run in the context of the task that asked for the page: a `ContextVar` that a hook sets for `RequestSent` has that
value in the event that ends the attempt. A request that is cancelled has no further event.

All events are in the log `commenda_customers` too: `RetryScheduled` at WARNING, `PageFetched` and `PageFailed` at INFO, the
others at DEBUG.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .errors import CustomersError

__all__ = [
    "Event",
    "Hook",
    "PageFailed",
    "PageFetched",
    "RequestFailed",
    "RequestSent",
    "ResponseReceived",
    "RetryScheduled",
    "Throttled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    Something that happened to the request for one page.

    Attributes:
        corporation_id: The corporation.
        cursor: The cursor of the page; `None` is the first page.
        attempt: Which attempt of the page it was; the first is 1. In the events that end a page, the last.
    """

    corporation_id: str
    cursor: str | None
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent(Event):
    """A request is about to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseReceived(Event):
    """
    A complete response came, whatever its status.

    Attributes:
        status_code: The HTTP status.
        size: Bytes of the body, after decompression; of an error, as much as could be read.
        elapsed: Seconds from the event `RequestSent` to the last byte. Opening a connection is part of it.
    """

    status_code: int
    size: int
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed(Event):
    """
    An attempt failed, the last one included.

    Attributes:
        error: Why. `error.transient` tells whether it is worth another attempt.
        elapsed: Seconds since the event `RequestSent`.
    """

    error: CustomersError
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
    The server refused a request because of a limit: a 429, or a 503 with a wait.

    Attributes:
        pause: Seconds for which no request begins; 0 if the limiter took it for a refusal that concerns its request alone.
        rate: Requests per second that may begin after the pause; `None` if the limiter knows no rate.
    """

    pause: float
    rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _PageEvent(Event):
    elapsed: float
    waited: float
    request_id: str | None

    @property
    def attempts(self) -> int:
        """How many attempts were sent."""
        return self.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFetched(_PageEvent):
    """
    A page came. Exactly one `PageFetched` or `PageFailed` ends each page.

    Attributes:
        customers: Customers on the page.
        attempts: How many attempts were sent; the same as `attempt`.
        elapsed: Seconds since the page was asked for: attempts, waits and decoding.
        waited: Seconds of these that were spent waiting for the limiter.
        request_id: The server's name for the last request, if it gave one.
    """

    customers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFailed(_PageEvent):
    """
    A page could not be fetched, and its error is raised.

    Attributes:
        error: The error.
        attempts: How many attempts were sent; the same as `attempt`. 0: the page failed before any request,
            at the limiter or in a token provider.
        elapsed: Seconds since the page was asked for.
        waited: Seconds of these that were spent waiting for the limiter.
        request_id: The server's name for the last request, if it gave one.
    """

    error: CustomersError


Hook = Callable[[Event], None]
"""A callable that receives every event."""
