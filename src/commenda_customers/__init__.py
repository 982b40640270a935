"""Async Python client for Commenda's `GET /customers`. Independent, not the vendor's."""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from ._customer_list import CustomerList
    from ._customer_stream import CustomerStream
    from ._iteration import ResumableIterator
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
else:  # a type checker that saw this would accept any name

    def __getattr__(name: str) -> object:
        if name in _NAMES_BY_MODULE:  # as if this package had imported all of its names
            return import_module(f".{name}", __name__)
        for module, names in _NAMES_BY_MODULE.items():
            if name in names.split():
                value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
                return value

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


# A name is imported when it is first used, as in pydantic. So a program that imports the emulator, or only this package,
# does not wait for the import of the client: 85 ms, half of it for pydantic's own classes. A program that imports the client
# at the top of a module waits there, and not in its event loop.
_NAMES_BY_MODULE = {
    "_customer_list": "CustomerList",
    "_customer_stream": "CustomerStream",
    "_iteration": "ResumableIterator",
    "auth": "Token TokenProvider",
    "checkpoint": "Checkpoint Position",
    "client": "AsyncCustomersAPI",
    "errors": (
        "APIConnectionError APIStatusError APITimeoutError AuthenticationError BadRequestError "
        "CursorLoopError CursorRejectedError CustomersError InvalidResponseError ListChangedError "
        "NotFoundError PermissionDeniedError RateLimitError ServerError TokenError"
    ),
    "events": (
        "Event Hook InvalidCustomerReceived PageFailed PageFetched RequestFailed RequestSent ResponseReceived "
        "RetryScheduled Throttled"
    ),
    "limits": "AdaptiveLimiter Feedback FixedRate LimiterSnapshot Permit RateLimiter",
    "models": "Address Customer CustomerPage ExemptionMetadata InvalidCustomer",
    "progress": "CorporationProgress CorporationState StreamProgress",
    "query": "CustomerFilters",
    "retry": "RetryPolicy",
}

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
