"""
From bytes to a page.

The documentation shows two envelopes, and three ways to end a list; all are read.
"""

import codecs
from collections.abc import Callable, Generator, Mapping
from http import HTTPStatus
from typing import cast

from pydantic import ValidationError

from ..errors import InvalidResponseError
from ..models import CustomerPage, InvalidCustomer
from .envelope import Envelope
from .errors import excerpt, one_line, response_fields, with_phrase
from .pieces import PIECE, validate_in_pieces
from .rows import MOST_INVALID, MOST_NAMED, describe, message_of, parse_json, take_rows, validate_rows

_LONGEST_LOOKED_INTO = 100_000
_LONGEST_NAME = 40
_MOST_NAMES = 5

_WITHOUT_CONTENT = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT})

Redact = Callable[[bytes], bytes]


def decode_page(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    corporation_id: str,
    redact: Redact,
    collect_invalid: bool = False,
) -> CustomerPage:
    """
    Return the page in the body of a 2xx response.

    Args:
        status: The status.
        headers: The headers, by lower-case name.
        body: The body.
        corporation_id: The corporation that was asked for.
        redact: Removes from the body what no error may show.
        collect_invalid: Return rows that do not validate as `invalid_customers`, instead of refusing the page.

    Raises:
        InvalidResponseError: The body is not JSON (`transient`: it may have been truncated), or it is empty, or it is JSON
            in neither of the documented envelopes, or a customer is not valid.
    """
    if status in _WITHOUT_CONTENT or (not body and _is_delimited(headers)):
        raise InvalidResponseError(
            f"the server answered {with_phrase(status)} without a body: a page was expected",
            **response_fields(status, headers),
        )

    text = body.removeprefix(codecs.BOM_UTF8)
    most = MOST_INVALID if collect_invalid else MOST_NAMED
    envelope, invalid = _validate(status, headers, text, most=most, redact=redact)
    _check_rows(status, headers, invalid, collect_invalid=collect_invalid)
    if "customers" not in envelope.listing.model_fields_set:
        shape = _describe_shape(text, parse_json(text) if len(text) <= _LONGEST_LOOKED_INTO else None)
        raise InvalidResponseError(
            f"the response has neither documented envelope: {shape}", **response_fields(status, headers)
        )

    return _page_of(envelope, invalid, corporation_id)


def decode_in_steps(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    corporation_id: str,
    redact: Redact,
    collect_invalid: bool = False,
    piece: int = PIECE,
) -> Generator[None, None, CustomerPage]:
    """
    Return the page as `decode_page` does, or raise the same error. Yields between the steps of a large page.

    A step takes about a millisecond. A large page takes one longer step if it is not JSON, or if its customers are not in a
    documented place, or a row is longer than about 190 KB.

    Args:
        status: The status.
        headers: The headers, by lower-case name.
        body: The body.
        corporation_id: The corporation that was asked for.
        redact: Removes from the body what no error may show.
        collect_invalid: Return rows that do not validate as `invalid_customers`, instead of refusing the page.
        piece: Bytes that are read in one step. A body of up to twice this size is read in one step, which costs least.

    Raises:
        InvalidResponseError: As for `decode_page`.
    """
    if len(body) > 2 * piece and status not in _WITHOUT_CONTENT:
        text = body.removeprefix(codecs.BOM_UTF8)
        most = MOST_INVALID if collect_invalid else MOST_NAMED
        found = yield from validate_in_pieces(text, most=most, piece=piece)
        if found is not None:
            envelope, invalid = found
            _check_rows(status, headers, invalid, collect_invalid=collect_invalid)
            return _page_of(envelope, invalid, corporation_id)

    return decode_page(status, headers, body, corporation_id=corporation_id, redact=redact, collect_invalid=collect_invalid)


def _check_rows(
    status: int, headers: Mapping[str, str], invalid: tuple[InvalidCustomer, ...], *, collect_invalid: bool
) -> None:
    if len(invalid) > (MOST_INVALID if collect_invalid else 0):
        raise InvalidResponseError(
            f"customers of the page are not valid: {describe(invalid)}", **response_fields(status, headers)
        )


def _page_of(envelope: Envelope, invalid: tuple[InvalidCustomer, ...], corporation_id: str) -> CustomerPage:
    # A field that is missing in `data` may be next to `data`. Without this cursor, the list would end too early.
    listing = envelope.listing
    total = envelope.total_customers if listing.total_customers is None else listing.total_customers
    cursor = listing.cursor or envelope.cursor or None
    return CustomerPage(corporation_id, listing.customers or (), total, cursor, invalid)


def _is_delimited(headers: Mapping[str, str]) -> bool:
    """Return whether a response says where its body ends. If it does not, an empty body may have been truncated."""
    return "content-length" in headers or "transfer-encoding" in headers


def foreign_corporation(page: CustomerPage) -> str | None:
    """Return the corporation of the first customer that does not belong on *page*, or `None`."""
    for customer in page.customers:
        if customer.corporation_id != page.corporation_id:
            return one_line(customer.corporation_id)
    for row in page.invalid_customers:
        raw: object = row.raw
        if isinstance(raw, dict):
            owner = cast("dict[str, object]", raw).get("corporation_id", page.corporation_id)
            if owner != page.corporation_id:
                # Any other value than a string may hold any data, so it is not shown.
                return one_line(owner) if isinstance(owner, str) else f"of type {type(owner).__name__}"

    return None


def _validate_at_once(text: bytes) -> Envelope | None:
    try:
        return Envelope.model_validate_json(text)
    except ValidationError:
        return None


def _validate(
    status: int, headers: Mapping[str, str], text: bytes, *, most: int, redact: Redact
) -> tuple[Envelope, tuple[InvalidCustomer, ...]]:
    """Return the listing with its valid rows, and the others."""
    envelope = _validate_at_once(text)
    if envelope is not None:
        return envelope, ()

    error: InvalidResponseError
    content: object = None
    try:
        content = parse_json(text)
        rows = take_rows(content)
        envelope = Envelope.model_validate(content)
        customers, invalid = validate_rows(rows or (), most=most)
    except ValidationError as exc:
        error = _not_a_list(status, headers, exc, shape=_describe_shape(text, content))
    except RecursionError:
        error = InvalidResponseError("the response is nested too deeply", **response_fields(status, headers))
    except ValueError:
        error = _not_json(status, headers, text, redact=redact)
    else:
        if rows is not None:
            envelope.listing.customers = customers
        return envelope, invalid

    raise error  # outside of the block: its cause would hold the whole body, customers included


def _not_json(status: int, headers: Mapping[str, str], body: bytes, *, redact: Redact) -> InvalidResponseError:
    return InvalidResponseError(
        f"the response is not JSON: {len(body)} bytes of {one_line(headers.get('content-type', 'no content type'))!r}",
        **response_fields(status, headers),
        # A body that begins like JSON may be a list of customers that was cut.
        body_excerpt=None if body.lstrip()[:1] in (b"{", b"[") else excerpt(redact(body)) or None,
        transient=True,
    )


def _not_a_list(status: int, headers: Mapping[str, str], exc: ValidationError, *, shape: str) -> InvalidResponseError:
    problems = exc.errors(include_url=False, include_context=False, include_input=False)
    first = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {message_of(problem)}" for problem in problems[:3])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return InvalidResponseError(
        f"the response is not a list of customers: {shape}; {first}{more}", **response_fields(status, headers)
    )


def _describe_shape(body: bytes, content: object) -> str:
    """
    Describe a JSON body without its values. *content* is the parsed body; `None` if it is long.

    This does not parse the body again: with fewer frames left on the stack, a deeply nested body might fail.
    """
    if len(body) > _LONGEST_LOOKED_INTO:
        return f"{len(body):,} bytes of JSON"
    if not isinstance(content, dict):
        return f"a JSON {type(content).__name__}"

    # Only keys that look like names of fields: an object may also be keyed by customers.
    keys = cast("dict[str, object]", content)
    names = sorted(key for key in keys if key.isidentifier() and len(key) <= _LONGEST_NAME)[:_MOST_NAMES]
    return f"an object with {len(keys)} keys{', among them ' if names else ''}{', '.join(map(repr, names))}"
