"""Async Python client for Commenda's `GET /customers`. Independent, not the vendor's."""

from ._customer_list import CustomerList
from ._customer_stream import CustomerStream
from ._iteration import ResumableIterator
from ._version import __version__
from .auth import Token, TokenProvider
from .checkpoint import Checkpoint, Position
from .client import AsyncCustomersAPI
from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CursorLoopError,
    CursorRejectedError,
    CustomersError,
    InvalidResponseError,
    ListChangedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TokenError,
)
from .events import (
    Event,
    Hook,
    InvalidCustomerReceived,
    PageFailed,
    PageFetched,
    RequestFailed,
    RequestSent,
    ResponseReceived,
    RetryScheduled,
    Throttled,
)
from .limits import AdaptiveLimiter, Feedback, FixedRate, LimiterSnapshot, Permit, RateLimiter
from .models import Address, Customer, CustomerPage, ExemptionMetadata, InvalidCustomer
from .progress import CorporationProgress, CorporationState, StreamProgress
from .query import CustomerFilters
from .retry import RetryPolicy

__all__ = [  # by the file they live in
    # client.py, query.py, _customer_list.py, _customer_stream.py, _iteration.py
    "AsyncCustomersAPI",
    "CustomerFilters",
    "CustomerList",
    "CustomerStream",
    "ResumableIterator",
    # checkpoint.py, progress.py
    "Checkpoint",
    "CorporationProgress",
    "CorporationState",
    "Position",
    "StreamProgress",
    # models.py
    "Address",
    "Customer",
    "CustomerPage",
    "ExemptionMetadata",
    "InvalidCustomer",
    # auth.py, retry.py
    "RetryPolicy",
    "Token",
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
    "InvalidCustomerReceived",
    "PageFailed",
    "PageFetched",
    "RequestFailed",
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
    "CursorRejectedError",
    "CustomersError",
    "InvalidResponseError",
    "ListChangedError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    "TokenError",
    # _version.py
    "__version__",
]
