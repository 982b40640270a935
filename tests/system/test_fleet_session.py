"""The tests of fleets, which need Redis: when they run, and what they say without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python

TESTS = Path(__file__).parent.parent


def run_pytest(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", *arguments]
    env = os.environ | environment
    return subprocess.run(command, cwd=TESTS.parent, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_fleets_run_only_if_they_are_named() -> None:
    """Plain `pytest` does not collect the tests of fleets; `pytest tests/fleet` does."""
    plain = run_pytest("--collect-only", "--ignore", TESTS / "unit", "--ignore", TESTS / "system")
    assert (plain.returncode, plain.stdout.count("::")) == (5, 0), plain.stdout
    named = run_pytest("--collect-only", "tests/fleet")
    assert named.returncode == 0, named.stdout
    assert "tests/fleet/test_deaths.py::" in named.stdout


def test_a_missing_redis_is_named(tmp_path: Path) -> None:
    """Without a Redis server, the tests of fleets end at once, and say how to install one."""
    done = run_pytest("tests/fleet/test_deaths.py", PATH=str(tmp_path))
    assert done.returncode == 2, done.stdout
    assert "apt-get install redis-server" in done.stdout
