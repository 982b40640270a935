"""Real processes: a Redis server, and a worker. Both can be frozen and killed."""

import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import redis
from worker import Notes, Task, work

from forks import FORKS

FORKS.set_forkserver_preload(
    ["anyio._backends._asyncio", "anyio._backends._trio", "commenda_customers.limits.redis", "httpx"]
)

HOST = "127.0.0.1"
PATIENCE = 120.0
"""Seconds after which something that never happens fails a test."""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)


class Suspect:
    """A process that may be frozen and killed."""

    process: subprocess.Popen[bytes] | BaseProcess

    def freeze(self) -> float:
        """Stop it from running, and return the time."""
        return self._send(signal.SIGSTOP)

    def thaw(self) -> float:
        """Let it run again, and return the time."""
        return self._send(signal.SIGCONT)

    def kill(self) -> float:
        """Kill it, and return the time."""
        killed = self._send(signal.SIGKILL)
        self.process.wait() if isinstance(self.process, subprocess.Popen) else self.process.join()
        return killed

    def _send(self, number: signal.Signals) -> float:
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        return time.monotonic()


class RedisServer(Suspect):
    """
    A Redis server on loopback that keeps nothing on disk.

    Attributes:
        port: Its port, also when it is started again. Nothing listens on it before `start`.
        url: Its address for a limiter.
        process: Its process.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, program: str, folder: Path) -> None:
        self.port = _free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self._log = folder / "redis.log"
        options = {"port": self.port, "bind": HOST, "save": "", "appendonly": "no", "dir": folder}
        self._command = [program, *(str(part) for name, value in options.items() for part in (f"--{name}", value))]

    def start(self) -> float:
        """Start it, empty; wait until it answers, and return the time."""
        with self._log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "Redis answers")
        return time.monotonic()

    def stop(self) -> None:
        """End it, if it has been started."""
        if hasattr(self, "process"):
            self.kill()

    def connect(self, **options: Any) -> redis.Redis:
        """Return a client for a test to look into it."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=10, **options)

    @contextmanager
    def monitor(self) -> Iterator[bytearray]:
        """Record all that is sent to it in the block. The recording is complete when the block has ended."""
        recorded = bytearray()

        def record() -> None:
            with suppress(ConnectionResetError):  # Redis has more to say when the block has ended
                while received := connection.recv(65536):
                    recorded.extend(received)

        with socket.create_connection((HOST, self.port)) as connection:
            connection.sendall(b"MONITOR\r\n")
            reader = threading.Thread(target=record)
            reader.start()
            try:
                yield recorded
            finally:
                connection.shutdown(socket.SHUT_RDWR)
                reader.join()

    def commands(self) -> Counter[str]:
        """Return how often each command was called, without those of the tests and of new connections."""
        ours = {"client", "command", "config", "hello", "info", "ping", "select", "monitor", "scan", "ttl"}
        with self.connect() as client:
            stats = client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): int(values["calls"]) for name, values in stats.items()}
        return Counter({name: number for name, number in calls.items() if name.partition("|")[0] not in ours})

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self._command[0]} does not serve:\n{self._log.read_text(encoding='utf-8')}")
        with suppress(redis.ConnectionError), self.connect() as client:
            return bool(client.ping())
        return False


class Worker(Suspect):
    """
    A process that reads some corporations; see `worker.py`.

    Attributes:
        task: What it reads, and how.
        process: Its process.
    """

    process: BaseProcess

    def __init__(self, task: Task) -> None:
        self.task = task
        self._is_ready = False
        self._connection, theirs = FORKS.Pipe()
        self.process = FORKS.Process(target=work, args=[task, theirs])
        self.process.start()
        theirs.close()

    @property
    def errors(self) -> str:
        """All that it has written on stderr, which includes its log."""
        path = Path(self.task.errors)
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def warnings(self) -> list[str]:
        """Warnings of its log, except those about retries of requests."""
        return [line for line in self.errors.splitlines() if " WARNING " in line and ": retrying in " not in line]

    def is_ready(self) -> bool:
        """Return whether it waits for its start."""
        if not self._is_ready and self._connection.poll():
            with suppress(EOFError):
                self._is_ready = self._connection.recv() == "ready"
        assert self._is_ready or self.process.exitcode is None, f"ended with {self.process.exitcode}:\n{self.errors}"
        return self._is_ready

    def go(self) -> None:
        """Let it begin."""
        self._connection.send("go")

    def notes(self) -> Notes:
        """Return what it saw, after it has ended well."""
        assert self.process.exitcode == 0, f"ended with {self.process.exitcode}:\n{self.errors}"
        assert "Traceback" not in self.errors, self.errors
        notes: Notes = self._connection.recv()
        return notes

    def rows(self) -> dict[str, list[str]]:
        """Return the ids of the customers that it has read, by corporation. A line that a kill has cut is none."""
        found: dict[str, list[str]] = {}
        for line in Path(self.task.output).read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                name, _, customer = line.strip().partition(" ")
                found.setdefault(name, []).append(customer)
        return found

    def end(self) -> None:
        """Kill it if it runs, and close its pipe."""
        self.kill()
        self._connection.close()


def find_redis() -> str | None:
    """Return the program of Redis or of Valkey, if one is installed."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def _free_port() -> int:
    """Return a port below those that Linux gives to clients: it must still be free when a killed server takes it again."""
    while True:
        port = random.randrange(15_000, 32_000)
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
