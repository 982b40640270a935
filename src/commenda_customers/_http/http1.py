"""What httpcore leaves to do on HTTP/1.1 connections: to notice that a server sends more than it was asked for."""

import inspect
from dataclasses import dataclass
from typing import Any, Self

from .http2 import callers


@dataclass(frozen=True, slots=True)
class H1Connection:
    """
    The connection of one request.

    HTTP/1.1 does not number its responses. If a server sends one too many, for example each response twice, the next request
    on the connection gets the wrong one, and customers are lost or come twice. httpcore looks at the socket before it uses a
    connection again. But it does not look at what it has already read, and keeps that for the next response.

    No public interface leads to it: see `H2Stream`. If the connection is not found, nothing is noticed.

    Attributes:
        connection: The `AsyncHTTP11Connection` of httpcore or httpcore2.
    """

    connection: Any

    @classmethod
    def of_caller(cls) -> Self | None:
        """Find the connection that calls the trace extension."""
        for frame in callers(inspect.currentframe()):
            connection = frame.f_locals.get("self")
            if hasattr(connection, "_h11_state"):
                return cls(connection)

        return None

    @property
    def has_more(self) -> bool:
        """Whether bytes have come after a complete response."""
        return bool(self.connection._h11_state.trailing_data[0])  # noqa: SLF001 - see the class
