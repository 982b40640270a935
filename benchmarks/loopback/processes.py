"""Servers in process groups of their own, which end with the block that they are for."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc

HOST = "127.0.0.1"

START, STOP = 20.0, 3.0
"""Seconds for a process to start and to stop."""

_PORTS = random.sample(range(15000, 32000), 10000)
"""Below those that Linux gives to clients: a port must be free again when a server that was killed takes it once more."""

_running: set["Server"] = set()


class Server:
    """
    A server and the processes that it starts: one process group. It can be killed and started again on its port.

    Attributes:
        port: It listens on this port when it serves.
    """

    def __init__(self, command: Sequence[str], port: int, folder: str) -> None:
        self.port = port
        self._command = command
        self._log = Path(folder, f"{port}.log")
        self._process: anyio.abc.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        # Shielded: a start that is cancelled would leave behind what the process has started by then.
        with self._log.open("ab") as output, anyio.CancelScope(shield=True):
            self._process = await anyio.open_process(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            _running.add(self)
        with anyio.move_on_after(START):
            while self._process.returncode is None and not is_open(self.port):  # noqa: ASYNC110 - nothing tells it
                await anyio.sleep(0.05)
        if self._process.returncode is not None or not is_open(self.port):
            said = await anyio.Path(self._log).read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{self._command[0]} does not serve:\n{said}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and all its processes with a signal. Those that a few seconds later are still there are killed."""
        process = self._process
        if process is None:
            return

        with anyio.CancelScope(shield=True):
            self._signal_group(number)
            with anyio.move_on_after(STOP):
                await process.wait()
            self.kill()
            await process.aclose()
        self._process = None

    def kill(self) -> None:
        """Kill all its processes."""
        self._signal_group(signal.SIGKILL)
        _running.discard(self)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process that was started."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill_worker(self) -> None:
        """Kill one of the processes that it has started. This needs Linux."""
        assert self._process is not None
        pid = self._process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        os.kill(int(random.choice(workers)), signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):  # all have ended
                os.killpg(self._process.pid, number)


def kill_all() -> None:
    """Kill all servers that still run: the last resort of a program that was interrupted while it stopped them."""
    for server in list(_running):
        server.kill()


@asynccontextmanager
async def serving(command: Sequence[str], port: int, folder: str) -> AsyncIterator[Server]:
    """Run a server until the end of the block, whatever ends it."""
    server = Server(command, port, folder)
    try:
        await server.start()
        yield server
    finally:
        await server.end()


def find_programs(names: Collection[str], also: str) -> bool:
    """Extend PATH by a folder, as Debian's users do not have `/usr/sbin` in it; say which programs are still missing."""
    os.environ["PATH"] = os.pathsep.join(filter(None, (os.environ.get("PATH"), also)))
    missing = sorted(name for name in names if shutil.which(name) is None)
    if missing:
        what = " ".join(missing)
        print(f"not installed: {what}. On Debian and Ubuntu: apt-get install {what}", file=sys.stderr)
    return not missing


def free_ports(number: int) -> list[int]:
    """Return ports that nothing listens on, and that were not returned before."""
    found: list[int] = []
    while len(found) < number:
        port = _PORTS.pop()
        with suppress(OSError), socket.create_server((HOST, port)):
            found.append(port)
    return found


def is_open(port: int) -> bool:
    """Return whether a process listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
