"""
All errors that the SDK raises at run time.

The tree:

    CustomersError
    ├── APIConnectionError
    │   └── APITimeoutError
    ├── APIStatusError
    │   ├── AuthenticationError
    │   ├── BadRequestError
    │   │   └── CursorRejectedError
    │   ├── NotFoundError
    │   ├── PermissionDeniedError
    │   ├── RateLimitError
    │   └── ServerError
    ├── InvalidResponseError
    │   ├── CursorLoopError
    │   └── ListChangedError
    └── TokenError

There are four kinds: no complete response came (`APIConnectionError`), the server responded with an error
(`APIStatusError`), the response is not a valid page (`InvalidResponseError`), or there is no token to send (`TokenError`).
Usage errors are outside this tree. A wrong argument raises `ValueError` or `TypeError`. Use after close raises
`RuntimeError`.

All errors hold plain data, survive `pickle`, and never hold the token.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from .checkpoint import Checkpoint

__all__ = [
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
]

_LONGEST_SHOWN = 500


def _rebuild(cls: type["CustomersError"], args: tuple[Any, ...], state: dict[str, Any]) -> "CustomersError":
    """Unpickle an error without calling its constructor, so that no field and no note is lost."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _shortened(cursor: str) -> str:
    return cursor if len(cursor) <= _LONGEST_SHOWN else f"{cursor[:_LONGEST_SHOWN]}…"


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield *exc* and its causes, down to the first one; of a group, the first member."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        yield exc
        seen.add(id(exc))
        # Other exceptions may have an attribute `exceptions` too.
        first = cast("BaseException", exc.exceptions[0]) if isinstance(exc, BaseExceptionGroup) else None
        exc = first or exc.__cause__ or exc.__context__


def text_of(exc: BaseException) -> str:
    """Return the text of *exc*; empty if its `__str__` raises an exception, as a class of another library may do."""
    with suppress(Exception):
        return str(exc)

    return ""


class CustomersError(Exception):
    """
    Base class of all errors that the SDK raises at run time.

    Attributes:
        message: What happened, without the context that `str(error)` adds.
        corporation_id: The corporation.
        cursor: The cursor of the page that failed; `None` is the first page. Another list can begin there (`cursor=`),
            unless the server refused it (`CursorRejectedError`) or it is part of a loop (`CursorLoopError`).
        attempts: How many attempts the SDK made. An attempt in which the token provider failed counts too.
        status_code: The HTTP status of the response, if one came.
        request_id: The server's name for the request, if it gave one.
        retry_after: Seconds that the server asked to wait, if it did.
        body_excerpt: The beginning of the response's body. `None` if it is the body of a 2xx that may hold customers.
        transient: Whether the same request may succeed later. The SDK retries only transient errors.
        checkpoint: What the list or stream had yielded when it raised this error. Pass it as `resume=`.
    """

    checkpoint: Checkpoint | None = None

    def __init__(
        self,
        message: str,
        *,
        corporation_id: str | None = None,
        cursor: str | None = None,
        attempts: int = 0,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        body_excerpt: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.corporation_id = corporation_id
        self.cursor = cursor
        self.attempts = attempts
        self.status_code = status_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.body_excerpt = body_excerpt
        self.transient = transient

    def __str__(self) -> str:
        """Return the message, followed by where it happened."""
        where: list[str] = []
        if self.corporation_id is not None:
            where.append(f"corporation {self.corporation_id!r}")
            where.append("first page" if self.cursor is None else self._cursor_text(self.cursor))
        if self.attempts:
            where.append("after 1 attempt" if self.attempts == 1 else f"after {self.attempts} attempts")
        if self.request_id is not None:
            where.append(f"request id {self.request_id!r}")

        return f"{self.message} [{', '.join(where)}]" if where else self.message

    def _cursor_text(self, cursor: str) -> str:
        return f"cursor {_shortened(cursor)!r}"

    def __reduce__(self) -> tuple[Callable[..., "CustomersError"], tuple[Any, ...]]:
        """Pickle by type, arguments and fields."""
        return _rebuild, (type(self), self.args, self.__dict__)


class APIConnectionError(CustomersError):
    """
    No complete response came: the connection failed or was lost, its certificate is not trusted, or a proxy refused.

    Attributes:
        is_stale_connection: Whether the server closed the connection, as it may do at any moment. Either it closed a reused
            connection before a response came, or it announced the end without an error (HTTP/2 GOAWAY). The client sends
            the request again immediately.
        is_unprocessed: Whether the server said that it has not processed the request (RFC 9113, section 8.7), or the request
            waited for a connection that another request could not open. The client sends the request again immediately.
        is_rejection: Whether the server refused the connection, or closed it before any response came. Some servers do that
            instead of sending a 429.
    """

    is_stale_connection: bool = False
    is_unprocessed: bool = False
    is_rejection: bool = False


class APITimeoutError(APIConnectionError):
    """No complete response came in time: the attempt took longer than `timeout`, or the request longer than `deadline`."""


class APIStatusError(CustomersError):
    """The server responded with a status other than 2xx. The subclasses name the common ones."""


class BadRequestError(APIStatusError):
    """400: the server refused a parameter; `body_excerpt` has the server's message."""


class CursorRejectedError(BadRequestError):
    """
    400, 410 or 422 to a request with a cursor: most likely, the server no longer accepts the cursor.

    The server never accepts that cursor again, so the SDK does not retry. The API page does not say how long a cursor is
    valid. A cursor grows older while the program works on the pages that are ready. In a stream, this takes up to
    `concurrency` times the work on one page. To read the list, restart it:
    `error.checkpoint.without(error.corporation_id)`.

    Attributes:
        cursor_age: Seconds from the page that contained the cursor to this response. `None` if this run did not receive the
            cursor: it is from a checkpoint, or from your program.
    """

    cursor_age: float | None = None

    def _cursor_text(self, cursor: str) -> str:
        text = super()._cursor_text(cursor)
        return text if self.cursor_age is None else f"{text} given {self.cursor_age:.1f} s ago"


class AuthenticationError(APIStatusError):
    """
    401: the token is missing, wrong or expired.

    With a token provider, the server has also refused a new token twice: immediately, and again after a wait. The SDK makes
    the second attempt because some servers do not accept a new token immediately.
    """


class PermissionDeniedError(APIStatusError):
    """403: the token is valid, but not for this corporation. A 403 with `Retry-After` is a `RateLimitError`."""


class NotFoundError(APIStatusError):
    """404: the server does not know the corporation, or `base_url` is wrong."""


class RateLimitError(APIStatusError):
    """
    429, or 403 with `Retry-After`: too many requests, and the retry policy allows no further wait.

    `retry_after` is the wait that the server asks for.

    Or: the page would wait for the limiter for longer than `max_wait` or its deadline allows. Then `retry_after` is the
    expected wait. `status_code` is the status of the previous response, if one came.
    """


class ServerError(APIStatusError):
    """
    5xx: the server failed, and still failed when the retry policy gave up.

    Statuses from 600 on, which are not valid, count as a 5xx (RFC 9110, section 15).
    """


class InvalidResponseError(CustomersError):
    """
    The response is not a valid page: empty, not JSON, neither envelope, too large, or of another corporation.

    It is also raised if a customer or the cursor contains the token. To keep the token secret, the SDK would have to change
    the page, so it refuses the page. Replace the token: everybody who can read the customers can read it.
    """


class CursorLoopError(InvalidResponseError):
    """The server's cursors form a loop. `cursor` is the repeated cursor."""


class ListChangedError(InvalidResponseError):
    """A run cannot resume: the page of its checkpoint no longer has any of the customers that the earlier run yielded."""


class TokenError(CustomersError):
    """
    The token provider failed with a temporary error, and still failed when the retry policy gave up. `__cause__` is the
    exception of the provider.

    A provider may raise this error itself. With `transient=True`, the SDK retries.
    """
