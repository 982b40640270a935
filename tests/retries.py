"""Failures, and calls that are retried."""

from collections.abc import Awaitable, Callable
from typing import Any

from commenda_customers import APIConnectionError, RateLimitError, RetryPolicy
from commenda_customers._attempt import Attempt
from commenda_customers.retry import call_with_retries

FAULT = APIConnectionError("the connection failed", transient=True)


def throttled(retry_after: float) -> RateLimitError:
    """Return a 429 that asks for a wait."""
    return RateLimitError("slow down", retry_after=retry_after, transient=True)


async def retried(call: Callable[[Attempt], Awaitable[Any]], policy: RetryPolicy, **options: Any) -> Any:
    """Make attempts without listeners, but for those in *options*."""
    usual: dict[str, Any] = {"on_retry": lambda *_: None, "on_deadline": lambda *_: None}
    return await call_with_retries(call, policy, **usual | options)
