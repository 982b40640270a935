"""A server that sends exactly the bytes that a test gives it, for faults that no HTTP server would produce."""

import errno
import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Self

TOKEN = "test-token-0123456789"
Behaviour = Callable[["Connection"], None]


def listing(*ids: str, corporation_id: str = "corp_1", cursor: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a bare listing with customers of these ids."""
    customers = [{"id": name, "name": name, "corporation_id": corporation_id} for name in ids]
    return {"customers": customers, "total_customers": len(ids), "cursor": cursor, **more}


def ok(content: Any, *, body: bytes | None = None, headers: Sequence[str] = ()) -> bytes:
    """Return the bytes of a 200 response."""
    payload = json.dumps(content).encode() if body is None else body
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {len(payload)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


class Connection:
    """One connection; the behaviour of the test talks through it."""

    def __init__(self, accepted: socket.socket, stopped: threading.Event) -> None:
        self._socket = accepted
        self._stopped = stopped
        self._unread = b""

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        self._socket = context.wrap_socket(self._socket, server_side=True)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def unread(self, head: bytes) -> None:
        """Let the next call of `read_request` return this request again."""
        self._unread = head

    def read_request(self) -> bytes:
        """Return the head of the next request; empty at the end of the connection."""
        head, self._unread = self._unread, b""
        while not head.endswith(b"\r\n\r\n"):
            received = self.receive()
            if not received:
                return b""
            head += received
        return head

    def receive(self) -> bytes:
        """Return the next bytes; empty at the end of the connection."""
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""

    def send(self, data: bytes) -> None:
        """Send bytes; a client that has gone away is no error."""
        try:
            self._socket.sendall(data)
        except OSError:
            self._stopped.wait(0)

    def send_at_once(self, *parts: bytes) -> None:
        """Send bytes so that they arrive together. Over TLS, each part is a record."""
        cork = getattr(socket, "TCP_CORK", None) or socket.TCP_NOPUSH  # type: ignore[attr-defined,unused-ignore]
        self._socket.setsockopt(socket.IPPROTO_TCP, cork, 1)
        for part in parts:
            self.send(part)
        self._socket.setsockopt(socket.IPPROTO_TCP, cork, 0)

    def send_past_tls(self, data: bytes) -> None:
        """Send bytes on the connection below TLS."""
        with socket.socket(fileno=os.dup(self._socket.fileno())) as below:
            below.sendall(data)

    def reset(self) -> None:
        """Close with a reset instead of an end."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def end_writing(self) -> None:
        """Close one half of the connection: nothing more is sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def wait_for_end(self) -> None:
        """Wait until the test is over."""
        self._stopped.wait(30)

    def drip(self, data: bytes, *, every: float) -> None:
        """Send a byte at a time."""
        for index in range(len(data)):
            if self._stopped.wait(every):
                return
            self.send(data[index : index + 1])


class RawServer:
    """
    Serves one behaviour for each connection, in order; the last one also for all later connections.

    Attributes:
        requests: The heads of all requests that were read.
        connections: How many connections came.

    Args:
        listens: Whether it accepts connections from the beginning; otherwise from `listen` on.
    """

    def __init__(self, *, listens: bool = True) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._behaviours: list[Behaviour] = []
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listens = listens
        self._stopped = threading.Event()
        self._sockets: list[socket.socket] = []
        self._tls: ssl.SSLContext | None = None
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """What to pass as `base_url`."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def use_tls(self, context: ssl.SSLContext | None) -> None:
        """Speak TLS from the next connection on, or no longer."""
        self._tls = context

    def behave(self, *behaviours: Behaviour) -> None:
        """Say what happens on the first connection, the second, and so on."""
        self._behaviours = list(behaviours)

    def answers(self, *responses: bytes) -> Behaviour:
        """Return the behaviour of a server that gives these responses, one for each request."""

        def behaviour(connection: Connection) -> None:
            for response in responses:
                head = connection.read_request()
                if not head:
                    return
                self.requests.append(head)
                connection.send(response)

        return behaviour

    def __enter__(self) -> Self:
        if self._listens:
            self.listen()
        return self

    def listen(self) -> None:
        """Accept connections from now on. Before that, they are refused."""
        self._listening.listen()
        self._threads.append(threading.Thread(target=self._accept, daemon=True))
        self._threads[-1].start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        with suppress(OSError):  # it may never have listened
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for accepted in self._sockets:
            try:
                accepted.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                accepted, _ = self._listening.accept()
            except OSError as exc:
                if exc.errno != errno.EMFILE:
                    return
                self._stopped.wait(0.01)  # until there are file descriptors again
                continue
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            behaviour = self._behaviours[min(self.connections, len(self._behaviours) - 1)]
            self.connections += 1
            self._sockets.append(accepted)
            thread = threading.Thread(target=self._serve, args=(behaviour, accepted), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, behaviour: Behaviour, accepted: socket.socket) -> None:
        connection = Connection(accepted, self._stopped)
        with suppress(ssl.SSLError, OSError), closing(connection):
            if self._tls is not None:
                connection.start_tls(self._tls)
            behaviour(connection)
