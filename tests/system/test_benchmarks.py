"""The benchmarks that need other programs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import until

pytestmark = pytest.mark.one_python

PROXIES = Path(__file__).parent.parent.parent / "benchmarks" / "proxies.py"

FAKE_PROXY = """#!/bin/sh
exec 9>"$STARTED"
sleep 1000 &
echo started >&9
wait
"""
"""A proxy that never serves, and its worker. Both have the pipe open until they end."""


@pytest.mark.parametrize(("only", "missing"), [("", "haproxy nginx"), ("nginx", "nginx"), ("HAProxy", "haproxy")])
def test_missing_proxies_are_named(only: str, missing: str, tmp_path: Path) -> None:
    """Without the proxies that it needs, the benchmark of proxies runs nothing, and says how to install them."""
    done = subprocess.run(
        [sys.executable, PROXIES, "--only", only, "--also", tmp_path],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"apt-get install {missing}\n")


def test_a_name_that_is_no_row_is_an_error() -> None:
    """A misspelled `--only` is an error, not a measurement of nothing that succeeds."""
    done = subprocess.run(
        [sys.executable, PROXIES, "--only", "Apache"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "'Apache'" in done.stderr


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("part", "number"), [("faults", signal.SIGINT), ("limits", signal.SIGTERM)])
async def test_nothing_remains_of_proxies_that_are_stopped(part: str, number: signal.Signals, tmp_path: Path) -> None:
    """If the benchmark is stopped, all its processes end, also those that a proxy has started, and its files are removed."""
    files, started, proxy = tmp_path / "files", tmp_path / "started", tmp_path / "haproxy"
    files.mkdir()
    os.mkfifo(started)
    proxy.write_text(FAKE_PROXY, encoding="utf-8")
    proxy.chmod(0o755)
    pipe = os.open(started, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with subprocess.Popen(
            [sys.executable, PROXIES, "--part", part, "--only", "HAProxy"],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STARTED": str(started), "TMPDIR": str(files)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as benchmark:
            await until(lambda: _has(pipe, b"started\n"))
            benchmark.send_signal(number)
            assert benchmark.wait(timeout=120) == 130
        await until(lambda: _has(pipe, b""))
    finally:
        os.close(pipe)
    assert list(files.iterdir()) == []


def _has(pipe: int, wanted: bytes) -> bool:
    """Return whether a pipe has a line, or its end (an empty text): that every process that had it open has ended."""
    try:
        return os.read(pipe, 8) == wanted
    except BlockingIOError:
        return False
