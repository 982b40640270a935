"""
All that a response says about rate limits, parsed once.

The error, the limiter and the retry policy read the same value. Sources: `Retry-After` (RFC 9110, section 10.2.3), its
variant `retry-after-ms`, and three conventions for quotas: `RateLimit` as a structured field of several policies
(draft-ietf-httpapi-ratelimit-headers), its older form with `RateLimit-Remaining` and `RateLimit-Reset`, and
`X-RateLimit-*`, whose reset is a number of seconds on some servers and an epoch on others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

_LONGEST_RESET = 120.0
"""Seconds. A longer reset is ignored: some servers send milliseconds, or the end of a day."""

_EPOCH = 1e9
"""A reset from here on is a point in time, not a number of seconds."""

_REFUSALS_WITH_WAIT = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE})

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,9})?", re.ASCII)
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?", re.ASCII)
_DATE = re.compile(r"[A-Za-z]{3,9}, [^,]+")
_PARAMETER = re.compile(r"\b(remaining|reset|r|t)=([0-9]{1,15})\b", re.ASCII)
_SHORT_NAMES = {"remaining": "r", "reset": "t"}
_QUOTA_HEADERS = tuple(
    (f"{prefix}remaining", f"{prefix}reset") for prefix in ("ratelimit-", "x-ratelimit-", "x-rate-limit-")
)


@dataclass(frozen=True, slots=True)
class Throttling:
    """
    What a response says about rate limits.

    Attributes:
        is_throttled: Whether the request was refused because of a limit: a 429, or a 403 or 503 that says how long to wait
            (RFC 9110, sections 10.2.3 and 15.6.4). Some servers refuse with a 403; without a wait, it is final.
        retry_after: Seconds that the server asks to wait: `Retry-After`, or else the reset of a quota that is used up.
        remaining: Requests left in the quota; `None` if the server did not say.
    """

    is_throttled: bool = False
    retry_after: float | None = None
    remaining: int | None = None


def parse_throttling(status: int, headers: Mapping[str, str], *, now: float) -> Throttling:
    """
    Return what a response says about rate limits.

    Args:
        status: The status.
        headers: The headers, by lower-case name.
        now: Seconds since the epoch. Dates are measured against the response's own `Date` if it has one, so that a clock
            that is wrong on either side does no harm.
    """
    if status < 300:
        return Throttling(remaining=_parse_quota(headers, now=now).remaining)

    now = _epoch(headers.get("date", "")) or now
    quota = _parse_quota(headers, now=now)
    wait = parse_retry_after(headers, now=now)
    if wait is None and _is_exhausted(quota, status):
        wait = quota.reset
    is_throttled = status == HTTPStatus.TOO_MANY_REQUESTS or (status in _REFUSALS_WITH_WAIT and wait is not None)
    return Throttling(is_throttled, wait, quota.remaining)


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """
    Return the seconds that `Retry-After` asks to wait, or `None` if it asks for nothing that makes sense.

    Reads `retry-after-ms`, then `Retry-After` as seconds, with or without a fraction, or as a date (RFC 9110, sections
    10.2.3 and 5.6.7). Zero, negative numbers and the past count as no wait.
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds:
        return milliseconds / 1000

    # A header that was sent twice, say by the server and by a proxy, is one list; the longest wait satisfies both.
    value = headers.get("retry-after", "")
    waits = [seconds for seconds in map(_seconds, value.split(",")) if seconds is not None]
    moments = [moment for moment in map(_epoch, _DATE.findall(value) or [value]) if moment is not None]
    return max([0.0, *waits, *(moment - now for moment in moments)]) or None


class _Quota(NamedTuple):
    """What is left of a quota, and the seconds until it is full again; `None` where the server did not say."""

    remaining: int | None = None
    reset: float | None = None


def _is_exhausted(quota: _Quota, status: int) -> bool:
    """Return whether a refusal is about *quota*. If some of it is left, another quota is used up."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return not quota.remaining
    return status == HTTPStatus.SERVICE_UNAVAILABLE and quota.remaining == 0


def _parse_quota(headers: Mapping[str, str], *, now: float) -> _Quota:
    field = headers.get("ratelimit")
    if field is not None:
        return _tightest(field)

    known = _Quota()
    for remaining, reset in _QUOTA_HEADERS:
        if remaining not in headers and reset not in headers:
            continue

        # A header that was sent twice is one list: use the smaller remaining count, and the longer reset.
        left = min(_numbers(headers.get(remaining, "")), default=None)
        resets = (number - now if number >= _EPOCH else number for number in _numbers(headers.get(reset, "")))
        quota = _Quota(None if left is None else int(left), _sensible(max(resets, default=None)))
        if left is not None:
            return quota
        known = known if known.reset else quota

    return known


def _tightest(field: str) -> _Quota:
    """Return the policy with the fewest requests left; if several have none left, the one with the longest reset."""
    policies: list[_Quota] = []
    # The older form has its parameters in one list; the newer one has a policy in each item.
    for item in field.split(",") if ";" in field else [field]:
        found = {_SHORT_NAMES.get(name, name): int(value) for name, value in _PARAMETER.findall(item.lower())}
        if found:
            policies.append(_Quota(found.get("r"), _sensible(found.get("t"))))

    known = [quota for quota in policies if quota.remaining is not None]
    return min(known or policies, key=lambda quota: (quota.remaining or 0, -(quota.reset or 0.0)), default=_Quota())


def _numbers(value: str) -> list[float]:
    parts = (part.strip() for part in value.split(","))
    return [float(part) for part in parts if _NUMBER.fullmatch(part)]


def _sensible(reset: float | None) -> float | None:
    return float(reset) if reset is not None and 0 < reset <= _LONGEST_RESET else None


def _seconds(value: str) -> float | None:
    value = value.strip()
    return float(value) if _SECONDS.fullmatch(value) else None


def _epoch(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
