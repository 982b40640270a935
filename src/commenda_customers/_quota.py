"""
What the server says of its quota: pure functions over headers.

Three conventions: `RateLimit` as a structured field of several policies (draft-ietf-httpapi-ratelimit-headers), its older
form with `RateLimit-Remaining` and `RateLimit-Reset`, and `X-RateLimit-*`, whose reset is seconds here and an epoch there.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_LONGEST_RESET = 120.0
"""Seconds. What is longer is taken for nonsense: a header never stops us for long."""

_EPOCH = 1e9
"""A reset from here on is a moment and not a number of seconds."""

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)
_PARAMETER = re.compile(r"\b(remaining|reset|r|t)=([0-9]{1,15})\b", re.ASCII)
_NAMES = {"remaining": "r", "reset": "t"}


class Quota(NamedTuple):
    """
    What is left of a quota.

    Attributes:
        remaining: How many more requests the server takes; `None` if it did not say.
        reset: Seconds until it takes more again; `None` if it did not say, or nothing that makes sense.
    """

    remaining: int | None = None
    reset: float | None = None


def parse_quota(headers: Mapping[str, str], *, now: float) -> Quota:
    """Return what the headers, by lower-case name, say of the quota. *now* is in seconds since the epoch."""
    field = headers.get("ratelimit")
    if field is not None:
        return _tightest(field)

    for prefix in ("ratelimit-", "x-ratelimit-", "x-rate-limit-"):
        if f"{prefix}remaining" in headers:
            remaining, reset = (_number(headers.get(f"{prefix}{name}", "")) for name in ("remaining", "reset"))
            if reset is not None and reset >= _EPOCH:
                reset -= now
            return Quota(None if remaining is None else int(remaining), _sensible(reset))

    return Quota()


def _tightest(field: str) -> Quota:
    """Of several policies return the one that allows least; of those that allow nothing, the one that lasts longest."""
    policies: list[Quota] = []
    # The older form has its parameters in a list of their own, the newer one has a policy in each item.
    for item in field.split(",") if ";" in field else [field]:
        found = {_NAMES.get(name, name): value for name, value in _PARAMETER.findall(item.lower())}
        if "r" in found:
            policies.append(Quota(int(found["r"]), _sensible(_number(found.get("t", "")))))

    return min(policies, key=lambda quota: (quota.remaining, -(quota.reset or 0.0)), default=Quota())


def _number(value: str) -> float | None:
    value = value.strip()
    return float(value) if _NUMBER.fullmatch(value) else None


def _sensible(reset: float | None) -> float | None:
    return reset if reset is not None and 0 < reset <= _LONGEST_RESET else None
