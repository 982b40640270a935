"""An async client of Commenda's `GET /customers`. It is an independent project, not the vendor's."""

from ._paging import CustomerList
from ._version import __version__
from .auth import TokenProvider
from .client import AsyncCustomersAPI
from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CursorLoopError,
    CustomersError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from .events import Event, Hook, RequestSent, ResponseReceived, RetryScheduled, Throttled
from .limits import AdaptiveLimiter, Feedback, FixedRate, LimiterSnapshot, Permit, RateLimiter
from .models import Address, Customer, CustomerPage, ExemptionMetadata
from .query import CustomerFilters
from .retry import RetryPolicy

__all__ = [  # by the file they live in
    # client.py, _paging.py, query.py
    "AsyncCustomersAPI",
    "CustomerFilters",
    "CustomerList",
    # models.py
    "Address",
    "Customer",
    "CustomerPage",
    "ExemptionMetadata",
    # auth.py, retry.py
    "RetryPolicy",
    "TokenProvider",
    # limits/
    "AdaptiveLimiter",
    "Feedback",
    "FixedRate",
    "LimiterSnapshot",
    "Permit",
    "RateLimiter",
    # events.py
    "Event",
    "Hook",
    "RequestSent",
    "ResponseReceived",
    "RetryScheduled",
    "Throttled",
    # errors.py
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "CursorLoopError",
    "CustomersError",
    "InvalidResponseError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    # _version.py
    "__version__",
]
