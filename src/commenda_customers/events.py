"""
What happens to a request, as frozen records.

Pass callables as `AsyncCustomersAPI(hooks=[...])`. The SDK calls each hook with every event, in order, on the event loop. A
hook should return quickly. If a hook raises an exception, it reaches the caller of the SDK.

The events of one page, in order:

    RequestSent        each time it is sent
    ResponseReceived   if a complete response came, whatever its status
    Throttled          if the server refused the request because of a limit
    RequestFailed      if the attempt failed
    RetryScheduled     if another attempt follows; then again from RequestSent
    PageFetched, or PageFailed

If a page has invalid rows, `InvalidCustomerReceived` comes for each of them when the program reaches that page.

Hooks run in the context of the task that requests the page. If a hook sets a `ContextVar` at `RequestSent`, the variable
still has that value in the event that ends the attempt. A cancelled request has no further event.

The log `commenda_customers` has all events too: `RetryScheduled` at WARNING, `PageFetched` and `PageFailed` at INFO, the
others at DEBUG.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .errors import CustomersError
from .models import InvalidCustomer

__all__ = [
    "Event",
    "Hook",
    "InvalidCustomerReceived",
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
    """

    corporation_id: str
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _AttemptEvent(Event):
    """
    Something that happened to an attempt.

    Attributes:
        attempt: The number of the attempt for this page; the first is 1. The events that end a page have the number of the
            last attempt.
    """

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent(_AttemptEvent):
    """A request is about to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseReceived(_AttemptEvent):
    """
    A complete response came, whatever its status.

    Attributes:
        status_code: The HTTP status.
        size: Bytes of the body, after decompression. For an error response, the bytes that the client could read.
        elapsed: Seconds from the event `RequestSent` to the last byte. This includes the time to open a connection.
    """

    status_code: int
    size: int
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed(_AttemptEvent):
    """
    An attempt failed. The last attempt of a page has this event too.

    Attributes:
        error: Why the attempt failed. `error.transient` says whether another attempt may succeed.
        elapsed: Seconds since the event `RequestSent`.
    """

    error: CustomersError
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(_AttemptEvent):
    """
    An attempt failed, and another follows.

    Attributes:
        error: Why the attempt failed.
        wait: Seconds until the next attempt.
    """

    error: CustomersError
    wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled(_AttemptEvent):
    """
    The server refused a request because of a limit: a 429, or a 403 or 503 with a wait.

    Attributes:
        pause: Seconds for which no request begins; 0 if the limiter lets the refusal pass, so that only its own request
            waits.
        rate: Requests per second that may begin after the pause; `None` if the limiter knows no rate.
    """

    pause: float
    rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _PageEvent(_AttemptEvent):
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
        elapsed: Seconds since the program requested the page: attempts, waits and decoding.
        waited: The part of `elapsed` in which the page waited for the limiter.
        request_id: The server's name for the last request, if it gave one.
    """

    customers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFailed(_PageEvent):
    """
    The SDK could not fetch a page, and raises the error.

    Attributes:
        error: The error.
        attempts: How many attempts the SDK made; the same as `attempt`. 0: the page failed before the first attempt, at the
            limiter or at the deadline.
        elapsed: Seconds since the program requested the page.
        waited: The part of `elapsed` in which the page waited for the limiter.
        request_id: The server's name for the last request, if it gave one.
    """

    error: CustomersError


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidCustomerReceived(Event):
    """
    A row of a page is not a valid customer, and `invalid_customers` is `"collect"`.

    The event comes when the program reaches the page, before the first customer of the page. A run that resumes does not
    report the row again.

    Attributes:
        customer: The row, and what is wrong with it.
    """

    customer: InvalidCustomer


Hook = Callable[[Event], None]
"""A callable that receives every event."""
