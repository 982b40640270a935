"""What httpcore leaves to do on HTTP/1.1 connections: to notice that a server sends more than it was asked for."""

from dataclasses import dataclass
from typing import Any, Self

from .internals import H1_NAMES, calling_connection


@dataclass(frozen=True, slots=True)
class H1Connection:
    """
    The connection of one request.

    HTTP/1.1 does not number its responses. If a server sends one too many, for example each response twice, the next request
    on the connection gets the wrong one, and customers are lost or come twice. httpcore looks at the socket before it uses a
    connection again. But it does not look at what it has already read, and keeps that for the next response.

    Attributes:
        connection: The `AsyncHTTP11Connection` of httpcore or httpcore2.
    """

    connection: Any

    @classmethod
    def of_caller(cls) -> Self | None:
        """Find the connection that calls the trace extension. `None`: it cannot be found; see `internals.py`."""
        connection = calling_connection(H1_NAMES)
        return None if connection is None else cls(connection)

    @property
    def has_more(self) -> bool:
        """Whether bytes have come after a complete response."""
        return bool(self.connection._h11_state.trailing_data[0])  # noqa: SLF001 - see the class
