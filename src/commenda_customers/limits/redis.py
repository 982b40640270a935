"""
A limiter that shares one quota with other processes, through Redis 6.0 or newer, or Valkey.

It needs the extra `redis`. No request fails because of Redis.
"""

from ._redis_log import RedisLog
from ._redis_url import RedisURL
from ._shared import SharedLimiter
from .base import DEFAULT_MAX_IN_FLIGHT

__all__ = ["RedisLimiter"]


class RedisLimiter(SharedLimiter):
    """
    Learns the server's limit together with all processes that use the same quota of the same Redis, and shares it with them.

    Enter it with `async with`, around the clients that use it, and leave it in the same task. Entering raises `ValueError`
    if Redis refuses the password, or a command that the limiter needs. While Redis is unavailable, the limiter keeps its
    share, and learns on its own. It logs a warning.

    Redis holds nothing about corporations, customers or tokens. It forgets a quota five minutes after the last process has
    left.
    """

    def __init__(self, url: str, *, quota: str, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        """
        Check the arguments. `async with` connects.

        Args:
            url: Where Redis is: `redis://localhost:6379/0`, `rediss://...` with TLS, or `unix:///run/redis/redis.sock`. A
                user name and a password go before the host: `redis://user:password@host`. With TLS, the options
                `?ssl_ca_certs=`, `ssl_certfile=`, `ssl_keyfile=` and `ssl_cert_reqs=` are those of redis-py.
            quota: The name of the quota, such as `prod`. All processes that share a token must use the same name.
            max_in_flight: The maximum number of requests in flight in this process; 100 by default.

        Raises:
            ValueError: *url* is malformed, *quota* is empty or too long, or *max_in_flight* is not above zero.
            TypeError: An argument has the wrong type.
        """
        address = RedisURL(url)
        del url  # the traceback of an error below would show the password
        super().__init__(RedisLog(address, quota=quota), name=quota, max_in_flight=max_in_flight)
