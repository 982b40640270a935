"""Imitations of Redis on a loopback socket: one that works, and one that says what a test wants."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from fakeredis import TcpFakeServer

from raw_server import Behaviour, Connection

SAID_BY_COMMAND = {
    b"XADD": b"$3\r\n1-0\r\n",
    b"GET": b"$-1\r\n",
    b"XRANGE": b"*0\r\n",
    b"XREAD": b"*-1\r\n",
    b"TIME": b"*2\r\n$1\r\n5\r\n$6\r\n500000\r\n",
}
_COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Z]+)\r\n")


@contextmanager
def working_redis() -> Iterator[str]:
    """Serve a Redis in memory, and yield its URL."""
    # It does not notice that a client has gone that waits, and ends only after it.
    with patch("commenda_customers.limits._redis_log._LONGEST_WAIT", 0.2), TcpFakeServer(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Redis:
    """
    A Redis that has no entries, and says what a test wants.

    Attributes:
        commands: All that it has received.

    Args:
        said: What it says to a command, such as `XADD="-OOM command not allowed"`, in place of the usual.
    """

    def __init__(self, **said: str) -> None:
        self.commands = b""
        self._said = {name.encode(): f"{text}\r\n".encode() for name, text in said.items()}

    def __call__(self, connection: Connection) -> None:
        while data := connection.receive():
            self.commands += data
            for name in _COMMAND.findall(data):
                connection.send(self._say(name))

    def _say(self, name: bytes) -> bytes:
        if name == b"MULTI":
            self._queued: list[bytes] | None = []
        queued = getattr(self, "_queued", None)
        if name in self._said:
            if queued is not None:
                self._queued = [*queued, b""]
            return self._said[name]
        if name == b"EXEC" and queued is not None:
            self._queued = None
            if b"" in queued:
                return b"-EXECABORT Transaction discarded because of previous errors.\r\n"
            return b"*%d\r\n" % len(queued) + b"".join(SAID_BY_COMMAND.get(word, b"+OK\r\n") for word in queued)
        if name == b"MULTI" or queued is None:
            return SAID_BY_COMMAND.get(name, b"+OK\r\n")
        queued.append(name)
        return b"+QUEUED\r\n"


def says(*replies: bytes) -> Behaviour:
    """Return the behaviour of a server that says these bytes, one after the other, to whatever it gets."""

    def behaviour(connection: Connection) -> None:
        for reply in replies:
            if not connection.receive():
                return
            connection.send(reply)

    return behaviour
