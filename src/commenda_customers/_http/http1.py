"""What httpcore leaves to do on HTTP/1.1 connections: to notice that a server sends more than it was asked for."""

import socket
import ssl
from contextlib import suppress
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
    def is_behind(self) -> bool:
        """Whether more has come than a complete response. It may look into TLS, so ask only if the response is closed."""
        has_more = self.connection._h11_state.trailing_data[0]  # noqa: SLF001 - see the class
        return bool(has_more) or _has_more_in_tls(self._stream.get_extra_info("ssl_object"))

    def end_if_behind(self) -> None:
        """
        Let no other request use the connection, if more has come than a complete response.

        Call it when the response is closed: earlier, more may still come, and later, another request may use the connection.
        """
        if self.is_behind:
            end_connection(self._stream)

    @property
    def _stream(self) -> Any:
        return self.connection._network_stream  # noqa: SLF001 - see the class


def end_connection(stream: Any) -> None:
    """
    Let no other request use a connection.

    It is shut down, not closed: the pool then sees that it has ended and closes it. A closed socket makes the pool's check
    fail on trio. Through a duplicate, because the socket of uvloop cannot be shut down.

    Args:
        stream: The network stream of the connection.
    """
    connection = stream and stream.get_extra_info("socket")
    if connection is None:
        return

    with suppress(OSError), socket.fromfd(connection.fileno(), connection.family, connection.type) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _has_more_in_tls(tls: object) -> bool:
    """Return whether TLS has decrypted, or can decrypt, more than was read. What this reads is lost to the connection."""
    if not isinstance(tls, ssl.SSLObject):
        return False

    try:
        tls.read(1)
    except ssl.SSLError as exc:  # any other is about bytes that are not TLS
        return not isinstance(exc, ssl.SSLWantReadError)
    return True
