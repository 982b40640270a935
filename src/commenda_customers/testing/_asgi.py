"""The emulator's side of ASGI: a reply, and the exchange in which it is delivered or fails on purpose."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Self

import anyio

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ABORT_EXTENSION = "commenda_customers.abort"
"""Key in the scope's extensions of an async callable that breaks the connection, where the server can do that."""


@dataclass(frozen=True, slots=True)
class Reply:
    """
    An HTTP response.

    Attributes:
        status: Its status.
        headers: Its headers, without `Content-Length`.
        body: Its body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    @classmethod
    def json(cls, status: int, content: Any, headers: Mapping[str, str] | None = None) -> Self:
        """Return a reply with *content* as JSON."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        # Half of a character, which no UTF-8 can hold, is written as an escape: `\\ud83d`.
        body = text.encode("utf-8", errors="backslashreplace")
        return cls(status, {"Content-Type": "application/json", **(headers or {})}, body)

    @classmethod
    def error(cls, status: int, message: str, headers: Mapping[str, str] | None = None) -> Self:
        """Return an error reply. The API does not document the form of its errors."""
        return cls.json(status, {"message": message}, headers)


class RefusedError(Exception):
    """The request gets an error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reply = Reply.error(status, message, headers)


class Exchange:
    """One request on its connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._abort: Callable[[], Awaitable[None]] | None = scope.get("extensions", {}).get(ABORT_EXTENSION)
        self._receive = receive
        self._send = send

    async def send(self, reply: Reply) -> None:
        """Send a complete reply."""
        await self.start(reply)
        await self._send({"type": "http.response.body", "body": reply.body})

    async def start(self, reply: Reply) -> None:
        """Send the status and the headers, which announce the complete body."""
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
        headers.append((b"content-length", str(len(reply.body)).encode()))
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def send_part(self, part: bytes) -> None:
        """Send a part of the body; more follows."""
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def finish(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body"})

    async def abort(self) -> None:
        """Break the connection."""
        if self._abort is None:
            raise ConnectionAbortedError("scripted fault: the connection breaks")

        await self._abort()
        await self.wait_until_gone()

    async def pause(self, seconds: float) -> None:
        """Wait, unless the client disconnects first."""
        with anyio.move_on_after(seconds):
            await self.wait_until_gone()

    async def wait_until_gone(self) -> None:
        """Wait until the client has disconnected or has the complete reply."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
