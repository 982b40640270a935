"""What the HTTP library tells of a request while it is in flight."""

from collections.abc import Mapping
from typing import Any

import anyio

_CONNECTED = ("connect_tcp.complete", "connect_unix_socket.complete")
"""Endings of the events that tell of a new connection; they begin with its kind, of which there are several with proxies."""


class ConnectionTrace:
    """
    Follows the connection of one request; is passed to the library as its `trace` extension.

    It tells whether the request went out through a connection that was kept from an earlier one: a server may close such
    a connection at the very moment at which it is used again, and then the request fails although nothing is wrong.

    And it closes a connection whose TLS handshake was cancelled, which the library forgets to do.
    """

    def __init__(self) -> None:
        self._stream: Any = None
        self._was_sent = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of an event of the library."""
        match event:
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
        """Whether the request went out, and through a connection that was there before."""
        return self._was_sent and self._stream is None
