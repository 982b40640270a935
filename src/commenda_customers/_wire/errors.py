"""From a status to an error, and what every error says about its response."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from ..errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CursorRejectedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from ..retry import is_transient_status
from .throttling import Throttling

_ERROR_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}
_PHRASES = {
    509: "Bandwidth Limit Exceeded",
    520: "the edge got no usable response from the server behind it",
    521: "the server behind the edge refuses connections",
    522: "the edge could not connect to the server behind it in time",
    523: "the edge cannot reach the server behind it",
    524: "the server behind the edge did not respond in time",
    525: "the TLS handshake between the edge and the server behind it failed",
    526: "the edge does not trust the certificate of the server behind it",
    527: "the edge lost its connection to the server behind it",
    529: "the server is overloaded",
    530: "the edge cannot find the server behind it",
    598: "a proxy had a read timeout",
    599: "a proxy had a connect timeout",
}
"""The meaning of statuses that edges and proxies have invented."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CURSOR_REFUSALS = frozenset({400, 410, 422})
"""How servers refuse a cursor. A 404 is about the corporation."""
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-correlation-id")
_EXCERPT_LENGTH = 200
_NOT_THROTTLED = Throttling()


def status_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    throttling: Throttling = _NOT_THROTTLED,
    cursor: str | None = None,
) -> APIStatusError:
    """
    Return the error for a response whose status is not 2xx.

    Args:
        status: The status.
        headers: The headers, by lower-case name.
        body: As much of the body as could be read.
        throttling: What the response says about limits.
        cursor: The cursor of the request, if it had one.
    """
    error = ServerError if status >= 500 else _ERROR_BY_STATUS.get(status, APIStatusError)
    if cursor is not None and status in _CURSOR_REFUSALS:
        error = CursorRejectedError
    if throttling.is_throttled and status < 500:
        error = RateLimitError
    body_excerpt = excerpt(body)
    message = f"the server answered {with_phrase(status)}"
    if status in _REDIRECTS:
        message += f" to {one_line(headers.get('location', 'nowhere'))!r}; redirects are not followed, check base_url"
    if status == HTTPStatus.NOT_FOUND:
        message += "; check the corporation's id and base_url"
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        message += "; a proxy asks for a password, not the API"
    if error is CursorRejectedError:
        message += "; most likely it no longer accepts the cursor"
    if body_excerpt:
        message += f": {body_excerpt}"

    return error(
        message,
        status_code=status,
        request_id=request_id(headers),
        retry_after=throttling.retry_after,
        body_excerpt=body_excerpt or None,
        transient=throttling.is_throttled or is_transient_status(status),
    )


def with_phrase(status: int) -> str:
    """Return *status* with its meaning, if that is known."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} ({_PHRASES[status]})" if status in _PHRASES else str(status)


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's name for the request, if it gave one."""
    return next((one_line(headers[name]) for name in _REQUEST_ID_HEADERS if name in headers), None)


def response_fields(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of an error that say which response it is about."""
    return {"status_code": status, "request_id": request_id(headers)}


def excerpt(body: bytes) -> str:
    """Return the beginning of *body* as one printable line."""
    return one_line(body[: 4 * _EXCERPT_LENGTH].decode(errors="replace"))


def one_line(text: str) -> str:
    """Return *text* as one printable line, shortened."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _EXCERPT_LENGTH else line[:_EXCERPT_LENGTH] + "…"
