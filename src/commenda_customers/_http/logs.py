"""
Keeps the token out of the logs of the HTTP library, which contain what a server sends.

httpx logs the reason phrase of every response at `INFO`, and httpcore logs all headers at `DEBUG`, before the SDK gets the
response. Only a filter on their loggers runs earlier. It changes only the records of the SDK's own requests.
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from .._secret import Secret

_PARTS = ("connection", "http11", "http2", "proxy", "socks")
_COMPRESSED = ("hpack.hpack", "hpack.table")
# A logger does not run the filters of its parents.
_LOGGERS = ("httpx", "httpx2", *(f"{core}.{part}" for core in ("httpcore", "httpcore2") for part in _PARTS), *_COMPRESSED)

# Only a context variable tells a filter which request a record belongs to.
_sent: ContextVar[Secret | None] = ContextVar("commenda_customers_token", default=None)


class _TokenFilter(logging.Filter):
    """Removes the token of the current request from a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        secret = _sent.get()
        if secret is None:
            return True
        if record.name in _COMPRESSED:
            return False  # hpack logs compressed headers: a search does not find the token in them, but it can be decoded

        # Raised if the arguments of a record do not fit its text. Then no handler can format the record either.
        with suppress(TypeError, ValueError):
            message = record.getMessage()
            redacted = secret.redact(message)
            if redacted != message:
                record.msg, record.args = redacted, None
        return True


_filter = _TokenFilter()


def filter_logs() -> None:
    """Add the filter to the loggers. More calls change nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)


@contextmanager
def redacted_logs(secret: Secret) -> Generator[None]:
    """Keep *secret* out of the logs of the HTTP library, for the request that is sent in a block."""
    before = _sent.set(secret)
    try:
        yield
    finally:
        _sent.reset(before)
