"""The emulated rate limit."""

import math
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal

RetryAfterForm = Literal["seconds", "fraction", "milliseconds", "date"]


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """
    A token bucket: the limit of the emulated API, over all corporations.

    Attributes:
        rate: Requests per second in the long run.
        burst: Requests that may come at the same time.
        retry_after: The form of the wait in the 429: whole seconds, seconds with a fraction, `Retry-After-Ms`,
            or a date. `None`: it does not say.
    """

    rate: float
    burst: int = 1
    retry_after: RetryAfterForm | None = "seconds"

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ValueError(f"rate: must be above 0, got {self.rate}")
        if self.burst < 1:
            raise ValueError(f"burst: must be 1 or more, got {self.burst}")

    def headers(self, wait: float, *, now: float) -> dict[str, str]:
        """Return the headers that ask for a wait. *now* is in seconds since the epoch."""
        match self.retry_after:
            case "seconds":
                return {"Retry-After": str(math.ceil(wait))}
            case "fraction":
                return {"Retry-After": f"{wait:.3f}"}
            case "milliseconds":
                return {"Retry-After-Ms": str(math.ceil(1000 * wait))}
            case "date":
                return {"Retry-After": formatdate(math.ceil(now + wait), usegmt=True)}
            case _:
                return {}


class TokenBucket:
    """
    Counts requests against a `RateLimit`. It is full at first.

    Attributes:
        limit: The limit.
    """

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._tokens = float(limit.burst)
        self._counted_at: float | None = None

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one. *now* is the time of any monotonic clock."""
        elapsed = 0.0 if self._counted_at is None else now - self._counted_at
        self._tokens = min(self.limit.burst, self._tokens + elapsed * self.limit.rate)
        self._counted_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self.limit.rate

        self._tokens -= 1
        return 0.0
