"""
Rate limiters: they decide which request may begin, and when.

`AdaptiveLimiter` learns the server's limit; `FixedRate` keeps a limit that you know. With both, requests begin first come,
first served, and refusals that come in clusters pause all. Any object with the methods of `RateLimiter` works as well.
"""

from .adaptive import AdaptiveLimiter
from .base import Feedback, LimiterSnapshot, Permit, RateLimiter
from .fixed_rate import FixedRate

__all__ = ["AdaptiveLimiter", "Feedback", "FixedRate", "LimiterSnapshot", "Permit", "RateLimiter"]
