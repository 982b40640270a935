"""uvicorn in a thread: a real server on a real loopback socket, for tests on any event loop."""

import socket
import threading
from typing import Any

import uvicorn

from ._asgi import ABORT_EXTENSION, Receive, Scope, Send

_HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A client that waits for a response must not keep the server from stopping.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


class LoopbackServer:
    """
    Serves an ASGI application on loopback, in a thread of its own.

    A thread, because uvicorn runs on asyncio while tests run on trio as well; and because a client that blocks its event
    loop must not stop the server that it talks to.

    Attributes:
        failure: The first exception of the application or of the server itself, if any.
    """

    def __init__(self, app: Any, *, port: int = 0) -> None:
        self.failure: Exception | None = None
        self._app = app
        self._socket = socket.create_server((_HOST, port), backlog=1024)
        # asyncio does this for sockets that it opens itself. Without it, the body of a response may wait 40 ms until the
        # client acknowledges the headers.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            self._with_abort,
            interface="asgi3",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="emulator", daemon=True)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{_HOST}:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        """Begin to serve. A client that connects before the thread has started waits in the backlog of the socket."""
        self._thread.start()

    def stop(self) -> None:
        """Close all connections and wait for the end of the thread."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()  # uvicorn leaves it open if it is told to stop before it has started

    def _run(self) -> None:
        try:
            self._server.run([self._socket])
        except Exception as exc:  # noqa: BLE001 - a thread has no caller; who stops it looks here
            self.failure = exc
            self._socket.close()  # otherwise clients wait in its backlog

    async def _with_abort(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def abort() -> None:
            for connection in self._server.server_state.connections:
                if connection.transport.get_extra_info("peername") == tuple(scope["client"]):
                    connection.transport.abort()

        scope["extensions"] = {**scope.get("extensions", {}), ABORT_EXTENSION: abort}
        try:
            await self._app(scope, receive, send)
        except Exception as exc:
            self.failure = self.failure or exc
            raise  # uvicorn responds with 500
