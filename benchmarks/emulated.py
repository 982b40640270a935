"""The emulated API in a process of its own, so that a benchmark measures the client alone."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

TOKEN = "benchmark-token-as-long-as-real-ones-are"


def emulate(sizes: Mapping[str, int], *, port: int = 0, latency: float = 0.0) -> list[str]:
    """Return the command that serves so many customers of each corporation, after a latency in seconds."""
    command = [sys.executable, "-m", "commenda_customers", "emulate", "--port", str(port), "--token", TOKEN]
    command += ["--latency", str(latency)]
    return command + [f"--corporation={name}={size}" for name, size in sizes.items()]


@contextmanager
def emulator(corporations: int, customers: int, latency: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """Run the emulated API for the length of a block; yield its address and its corporations."""
    sizes = {f"corp_{number}": customers for number in range(corporations)}
    with subprocess.Popen(emulate(sizes, latency=latency), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line.split("=", 1)[1].strip() for line in process.stdout if "BASE_URL=" in line), list(sizes)
        finally:
            process.terminate()
