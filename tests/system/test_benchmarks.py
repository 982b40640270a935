"""The benchmarks that need other programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROXIES = Path(__file__).parent.parent.parent / "benchmarks" / "proxies.py"


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
