"""Follows the connection of a request, through the trace events of the HTTP library."""

from collections.abc import Mapping
from typing import Any

import anyio

_CONNECTED = ("connect_tcp.complete", "connect_unix_socket.complete")
"""Suffixes of the events for a new connection. The prefix is the kind of connection; proxies have their own."""


class ConnectionTrace:
    """
    Follows the connection of one request. It is passed to the library as the `trace` extension.

    It knows whether the request was sent on a connection that was kept from an earlier request: a server may close such a
    connection at the moment at which it is used again.

    It also closes a connection whose TLS handshake failed or was cancelled, because httpcore does not (encode/httpcore pull
    request 443).

    Attributes:
        peer: Host and port of the new connection, which are those of the proxy if there is one. `None`: no new connection.
    """

    def __init__(self) -> None:
        self.peer: str | None = None
        self._stream: Any = None
        self._was_sent = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Receive an event of the library."""
        match event:
            case _ if event.endswith("connect_tcp.started"):
                self.peer = f"{info['host']}:{info['port']}"
            case _ if event.endswith(_CONNECTED):
                self._stream = info["return_value"]
            case _ if event.endswith("start_tls.failed"):
                with anyio.CancelScope(shield=True):
                    await self._stream.aclose()
            case "http11.send_request_headers.started":
                self._was_sent = True
            case _:
                pass

    @property
    def was_kept(self) -> bool:
        """Whether the request was sent, on a connection kept from an earlier request."""
        return self._was_sent and self._stream is None
