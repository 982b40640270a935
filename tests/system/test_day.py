"""The day of `benchmarks/day.py`, a third of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.one_python

DAY = Path(__file__).parent.parent.parent / "benchmarks" / "day.py"


@pytest.fixture(scope="module")
def day() -> Any:
    """Return the numbers of eight hours, in which the server is down in each of five ways."""
    command = [sys.executable, DAY, "--hours", "8", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_nothing_is_lost(day: Any) -> None:
    """Windows, restarts, new tokens and old cursors cost no customer, and repeat none."""
    assert day["is_exact"], day["wrong"]
    assert day["rounds"] >= 2
    assert day["restarts"] >= 2
    assert day["tokens"] >= 8 * 60 / 40
    assert day["refused_cursors"] >= 1
    assert day["statuses"]["401"] >= 1


def test_the_limit_is_used(day: Any) -> None:
    """The program is about as fast as the limits let it be, although they change every hour. Most requests are served."""
    assert 0.85 < day["used"] < 1.1
    assert day["refused"] < 0.25


def test_a_window_costs_little(day: Any) -> None:
    """After a window, the next page comes within a minute. In the window, the client sends few requests."""
    assert len({window["kind"] for window in day["windows"]}) == 5
    for window in day["windows"]:
        minutes = (window["ends"] - window["begins"]) / 60
        assert window["lost"] < 60, window
        assert window["requests"] <= 5 + 20 * minutes, window
        assert window["kind"] != "503 that says when" or window["requests"] <= 5, window
