"""What the API page allows in a request."""

import re
from collections.abc import Mapping, Sequence

from ._asgi import RefusedError
from ._data import EXTENSIONS
from ._filters import CLOSED_VALUES, FILTERS, Filters

_MAX_LIMIT = 100
_DEFAULT_LIMIT = "10"
_DIGITS = re.compile("[0-9]{1,9}")
_PARAMETERS = frozenset({"corporation_id", "cursor", "limit", "extend", *FILTERS})


def unique(pairs: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """Return the parameters by name; refuse a name that is given twice."""
    params = dict(pairs)
    if len(params) != len(pairs):
        raise RefusedError(400, "a parameter is given more than once; several values are separated by commas")

    return params


def check(params: Mapping[str, str]) -> tuple[str, int]:
    """Return `corporation_id` and `limit`; refuse what the API page does not allow."""
    unknown = sorted(set(params) - _PARAMETERS)
    if unknown:
        raise RefusedError(400, f"unknown parameter: {', '.join(unknown)}")
    if not params.get("corporation_id"):
        raise RefusedError(400, "corporation_id is required")

    limit = params.get("limit", _DEFAULT_LIMIT)
    if not _DIGITS.fullmatch(limit) or not 1 <= int(limit) <= _MAX_LIMIT:
        raise RefusedError(400, f"limit must be between 1 and {_MAX_LIMIT}")

    for name, allowed in CLOSED_VALUES.items():
        if name in params and params[name] not in allowed:
            raise RefusedError(400, f"{name} must be one of {', '.join(sorted(allowed))}")
    if "extend" in params and not set(params["extend"].split(",")) <= set(EXTENSIONS):
        raise RefusedError(400, f"extend must be of {', '.join(EXTENSIONS)}")

    return params["corporation_id"], int(limit)


def filters_of(params: Mapping[str, str]) -> Filters:
    """Return the filters among the parameters, in an order that does not depend on the request."""
    return tuple(sorted((name, value) for name, value in params.items() if name in FILTERS))
