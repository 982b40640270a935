"""
The server: it does as little as possible for a page, so that a measurement shows the client.

It reads what it needs of a request, and knows nothing else of HTTP. It runs in a process of its own, on a core of its own if
there are two, and with uvloop if that is installed.
"""

import asyncio  # noqa: TID251 - a protocol of asyncio is the fastest server
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .bodies import KINDS, Kind, body, compressed

_TARGET = re.compile(rb"GET /([\w-]+)/\S*?[?&]corporation_id=(corp_\d{4}_\d{5})")
_AFTER = re.compile(rb"[?&](?:cursor=after_|starting_after=cust_)(\d{5})")

HERE = Path(__file__).parent


class Connection(asyncio.Protocol):
    """One connection, which is kept open until the client closes it."""

    served = 0

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._respond(head)

    def _respond(self, head: bytes) -> None:
        target = _TARGET.match(head)
        if target is None:
            usage = {"served": Connection.served, "seconds": time.process_time(), "loop": type(_loop()).__module__}
            self._transport.writelines(response(json.dumps(usage).encode(), Kind()))
            return

        Connection.served += 1
        kind, corporation_id = KINDS[target[1].decode()], target[2].decode()
        after = _AFTER.search(head)
        page = 0 if after is None else int(after[1]) + 1
        content = (compressed if kind.is_compressed else body)(kind, corporation_id, page)
        if kind.delay:
            _loop().call_later(kind.delay, self._transport.writelines, response(content, kind))
        else:
            self._transport.writelines(response(content, kind))


def response(content: bytes, kind: Kind) -> tuple[bytes, bytes]:
    """Return the bytes of a response."""
    encoding = b"content-encoding: gzip\r\n" if kind.is_compressed else b""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n" % (
        encoding,
        len(content),
    ), content


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def serve() -> None:
    """Print the port, and serve until the process that started this one closes stdin."""
    server = await _loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@dataclass
class Usage:
    """What the server has done: pages served, CPU seconds of its process, and its event loop."""

    served: int
    seconds: float
    loop: str


@dataclass
class Server:
    """The server, as seen by the process that started it."""

    port: int

    def url(self, kind: str) -> str:
        """Return the address of an API whose pages are of a kind."""
        return f"http://127.0.0.1:{self.port}/{kind}"

    def usage(self) -> Usage:
        """Ask what it has done."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/usage", timeout=10) as answer:
            return Usage(**json.load(answer))


@contextmanager
def serving() -> Iterator[Server]:
    """Run the server for the length of a block."""
    command = [sys.executable, "-m", "suite.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        try:
            yield Server(int(process.stdout.readline()))
        finally:
            process.terminate()


def environment() -> dict[str, str]:
    """Return the environment of a process that imports the suite."""
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    # Python may write compiled files: installed packages have them, so what is measured must have them, too.
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONDONTWRITEBYTECODE": ""}


def run_on_core(number: int) -> None:
    """Keep this process on one core, if the system can and has as many: 0 for clients, 1 for the server."""
    with suppress(AttributeError):  # macOS and Windows
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[number]})


def main() -> None:
    run_on_core(1)
    run = asyncio.run
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415 - works without

        run = uvloop.run
    with suppress(KeyboardInterrupt):
        run(serve())


if __name__ == "__main__":
    main()
