"""
Bytes and headers in, a page or an error out.

Pure functions: no clock, no network. All that the API's documentation leaves open or says twice is settled here: both
envelopes, the three ways to end a list, and the forms of `Retry-After`.
"""

import codecs
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from .models import Customer, CustomerPage

TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that say nothing against trying again. Every request is a GET, so trying again is always safe."""

_ERROR_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-correlation-id")
_EXCERPT_LENGTH = 200
_LONGEST_LOOKED_INTO = 100_000
_LONGEST_NAME = 40
_MOST_NAMES = 5
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?", re.ASCII)

Redact = Callable[[bytes], bytes]


class _Listing(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    # Fails at the first bad row: a small body can hold a million of them, each with errors to collect.
    customers: Annotated[tuple[Customer, ...], Field(fail_fast=True)] | None = None
    total_customers: int | None = None
    cursor: str | None = None


class _Envelope(_Listing):
    """Both documented envelopes in one pass over the body: the bare listing, and the one wrapped in `data`."""

    data: _Listing | None = None


def decode_page(
    status: int, headers: Mapping[str, str], body: bytes, *, corporation_id: str, redact: Redact
) -> CustomerPage:
    """
    Read the body of a 2xx answer. *redact* takes out of it what no error may show.

    Raises:
        InvalidResponseError: The body is no JSON (`transient`: bodies get mangled on their way), or it is JSON in neither
            of the documented envelopes.
    """
    try:
        envelope = _Envelope.model_validate_json(body.removeprefix(codecs.BOM_UTF8))
    except ValidationError as exc:
        raise _unreadable(status, headers, body, exc, redact=redact) from exc

    listing = envelope if envelope.data is None else envelope.data
    if "customers" not in listing.model_fields_set:
        raise InvalidResponseError(
            f"the answer has neither documented envelope: {_shape_of(body)}", **_context(status, headers)
        )

    # What one envelope lacks may stand beside it, as in the other one: a cursor that is missed would end the list too early.
    total = envelope.total_customers if listing.total_customers is None else listing.total_customers
    return CustomerPage(corporation_id, listing.customers or (), total, listing.cursor or envelope.cursor or None)


def foreign_corporation(page: CustomerPage) -> str | None:
    """Return the corporation of the first customer that does not belong on *page*, or `None`."""
    for customer in page.customers:
        if customer.corporation_id != page.corporation_id:
            return _line(customer.corporation_id)

    return None


def status_error(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> APIStatusError:
    """
    Return the error for an answer whose status is not 2xx.

    Args:
        status: The status.
        headers: The headers, by lower-case name.
        body: As much of the body as could be read.
        now: Seconds since the epoch, for a `Retry-After` that is a date.
    """
    error = ServerError if status >= 500 else _ERROR_BY_STATUS.get(status, APIStatusError)
    excerpt = _excerpt(body)
    try:
        said = f"the server answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        said = f"the server answered {status}"
    if 300 <= status < 400:
        said += f" to {_line(headers.get('location', 'nowhere'))!r}; redirects are not followed, check base_url"
    if excerpt:
        said += f": {excerpt}"

    return error(
        said,
        **_context(status, headers),
        retry_after=parse_retry_after(headers, now=now),
        body_excerpt=excerpt or None,
        transient=status in TRANSIENT_STATUSES,
    )


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """
    Return the seconds that the server asks to wait, or `None` if it asks for nothing that makes sense.

    Reads `retry-after-ms`, then `Retry-After` as seconds, with or without a fraction, or as a date (RFC 9110, sections
    10.2.3 and 5.6.7). A date is measured against the answer's own `Date` where it has one, so that a clock that is wrong
    on either side does no harm. Zero, negative numbers and the past count as no wait.
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds:
        return milliseconds / 1000

    value = headers.get("retry-after", "")
    # A header that came twice, say from the server and from a proxy, is one list; the longest wait satisfies both.
    waits = [seconds for seconds in map(_seconds, value.split(",")) if seconds is not None]
    seconds = max(waits) if waits else _seconds_until(value, server_time(headers, now=now))
    return seconds if seconds and seconds > 0 else None


def server_time(headers: Mapping[str, str], *, now: float) -> float:
    """Return the seconds since the epoch at which the server answered, by its own clock; *now* if it did not say."""
    return _epoch(headers.get("date", "")) or now


def _seconds(value: str) -> float | None:
    value = value.strip()
    return float(value) if _SECONDS.fullmatch(value) else None


def _seconds_until(date: str, now: float) -> float | None:
    moment = _epoch(date)
    return None if moment is None else moment - now


def _epoch(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _unreadable(
    status: int, headers: Mapping[str, str], body: bytes, exc: ValidationError, *, redact: Redact
) -> InvalidResponseError:
    problems = exc.errors(include_url=False, include_context=False, include_input=False)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return InvalidResponseError(
            f"the answer is no JSON: {len(body)} bytes of {_line(headers.get('content-type', 'no content type'))!r}",
            **_context(status, headers),
            # What begins like JSON may be a list of customers that was cut.
            body_excerpt=None if body.lstrip()[:1] in (b"{", b"[") else _excerpt(redact(body)) or None,
            transient=True,
        )

    first = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}" for problem in problems[:3])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return InvalidResponseError(
        f"the answer is not a list of customers: {_shape_of(body)}; {first}{more}", **_context(status, headers)
    )


def _shape_of(body: bytes) -> str:
    """Describe a JSON body without its values."""
    if len(body) > _LONGEST_LOOKED_INTO:
        return f"{len(body):,} bytes of JSON"

    value: object = json.loads(body)
    if not isinstance(value, dict):
        return f"a JSON {type(value).__name__}"

    # Only what looks like the name of a field: an object may as well be keyed by customers.
    keys = cast("dict[str, object]", value)
    names = sorted(key for key in keys if key.isidentifier() and len(key) <= _LONGEST_NAME)[:_MOST_NAMES]
    return f"an object with {len(keys)} keys{', among them ' if names else ''}{', '.join(map(repr, names))}"


def _context(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    request_id = next((_line(headers[name]) for name in _REQUEST_ID_HEADERS if name in headers), None)
    return {"status_code": status, "request_id": request_id}


def _excerpt(body: bytes) -> str:
    """Return the beginning of *body* as one printable line."""
    return _line(body[: 4 * _EXCERPT_LENGTH].decode("utf-8", errors="replace"))


def _line(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _EXCERPT_LENGTH else line[:_EXCERPT_LENGTH] + "…"
