"""
The rate limit of the server, kept on this side: who may begin a request, and when.

`AdaptiveLimiter` learns the limit, `FixedRate` is told it. With both, requests begin first come, first served, and a 429 to
one of them pauses all. Anything else that has the methods of `RateLimiter` works as well.
"""

from .adaptive import AdaptiveLimiter
from .base import Feedback, LimiterSnapshot, Permit, RateLimiter
from .fixed_rate import FixedRate

__all__ = ["AdaptiveLimiter", "Feedback", "FixedRate", "LimiterSnapshot", "Permit", "RateLimiter"]
