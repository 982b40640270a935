"""Servers in processes of their own, which end with the block that they are for."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

HOST = "127.0.0.1"

START, STOP = 10.0, 3.0
"""Seconds for a process to start and to stop."""


def find_programs(names: Collection[str], also: str) -> bool:
    """Extend PATH by a folder, as Debian's users do not have `/usr/sbin` in it; say which programs are still missing."""
    os.environ["PATH"] = os.pathsep.join(filter(None, (os.environ.get("PATH"), also)))
    missing = sorted(name for name in names if shutil.which(name) is None)
    if missing:
        what = " ".join(missing)
        print(f"not installed: {what}. On Debian and Ubuntu: apt-get install {what}", file=sys.stderr)
    return not missing


def free_ports(number: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@asynccontextmanager
async def serving(command: Sequence[str], port: int, folder: str) -> AsyncIterator[None]:
    """Run a server until the end of the block, whatever ends it."""
    log = Path(folder, f"{port}.log")
    with log.open("wb") as output:  # noqa: ASYNC230 - it is only opened
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        with anyio.move_on_after(START):
            while process.returncode is None and not is_open(port):  # noqa: ASYNC110 - nothing tells it
                await anyio.sleep(0.05)
        if process.returncode is not None or not is_open(port):
            said = await anyio.Path(log).read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{command[0]} does not serve:\n{said}")
        yield
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):  # it has ended
                process.terminate()
            with anyio.move_on_after(STOP):
                await process.wait()
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


def is_open(port: int) -> bool:
    """Return whether a process listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
