"""What httpcore does not do on HTTP/1.1 connections: notice that a server sends more than one response to a request."""

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

from .internals import H1_NAMES, calling_connection, inner_connection

_tls_of: WeakKeyDictionary[Any, object] = WeakKeyDictionary()
"""The TLS of each connection; `None` for plain HTTP."""


@dataclass(frozen=True, slots=True)
class H1Connection:
    """
    The connection of one request.

    HTTP/1.1 does not number its responses. If a server sends one too many, for example each response twice, the next request
    on the connection gets the wrong one, and customers are lost or come twice. httpcore checks the socket before it reuses a
    connection. But it does not check the bytes that it has already read: it parses them as the next response.

    Attributes:
        connection: The `AsyncHTTP11Connection` of httpcore or httpcore2.
    """

    connection: Any

    @classmethod
    def of_caller(cls) -> Self | None:
        """Return the connection that calls the trace extension; `None` if it cannot be found, see `internals.py`."""
        connection = calling_connection(H1_NAMES)
        return None if connection is None else cls(connection)

    @classmethod
    def inside(cls, opener: Any) -> Self | None:
        """Return the connection that an `AsyncHTTPConnection` has opened, or *opener* if it is that connection itself."""
        connection = inner_connection(opener, H1_NAMES)
        return None if connection is None else cls(connection)

    @property
    def has_extra_data(self) -> bool:
        """Whether more bytes than one complete response arrived. It may read from TLS, so use it only after the response."""
        has_more = self.connection._h11_state.trailing_data[0]  # noqa: SLF001 - see the class
        return bool(has_more) or _has_more_in_tls(self._tls)

    def shut_down_if_extra_data(self) -> None:
        """
        Prevent new requests on the connection, if more bytes than one complete response arrived.

        Call it when the response is closed. Earlier, more bytes may follow. Later, another request may use the connection.
        """
        if self.has_extra_data:
            end_connection(self._stream)

    @property
    def _tls(self) -> object:
        # Asked once for each connection: to ask at each response takes 1 % of the time of a page.
        if self.connection not in _tls_of:
            _tls_of[self.connection] = self._stream.get_extra_info("ssl_object")
        return _tls_of[self.connection]

    @property
    def _stream(self) -> Any:
        return self.connection._network_stream  # noqa: SLF001 - see the class


def end_connection(stream: Any) -> None:
    """
    Prevent new requests on a connection.

    This shuts the socket down and does not close it: the pool sees that it has ended, and closes it. With a closed socket,
    the check of the pool fails on trio. It uses a duplicate, because the sockets of uvloop cannot be shut down.

    Args:
        stream: The network stream of the connection.
    """
    connection = stream and stream.get_extra_info("socket")
    if connection is None:
        return

    with suppress(OSError), socket.fromfd(connection.fileno(), connection.family, connection.type) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _has_more_in_tls(tls: object) -> bool:
    """Return whether TLS holds more data than was read. The connection loses the byte that this function reads."""
    if not isinstance(tls, ssl.SSLObject):
        return False

    try:
        tls.read(1)
    except ssl.SSLError as exc:  # any other error means bytes that are not TLS
        return not isinstance(exc, ssl.SSLWantReadError)
    return True
