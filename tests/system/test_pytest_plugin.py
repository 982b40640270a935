"""The fixtures for pytest, in projects of their own: each runs in another process, with warnings as errors."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SYNCHRONOUS = """
import os
import urllib.request

import pytest

from commenda_customers.testing import faults


def status_of(emulator):
    address = f"{emulator.base_url}/customers?corporation_id=corp_123"
    asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {emulator.token}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as response:
        return response.status


def test_by_default(commenda_emulator):
    assert commenda_emulator.corporations == {"corp_123": 1000}
    assert status_of(commenda_emulator) == 200


@pytest.mark.commenda_emulator({"corp_123": [{"id": "1"}]}, token="another", faults=[faults.Status(202, at=[1])])
def test_marked(commenda_emulator):
    assert commenda_emulator.corporations == {"corp_123": 1}
    assert [status_of(commenda_emulator) for _ in range(2)] == [202, 200]
    assert len(commenda_emulator.requests) == 2


def test_environment(commenda_emulator):
    assert os.environ["COMMENDA_BASE_URL"] == commenda_emulator.base_url
    assert os.environ["COMMENDA_API_TOKEN"] == commenda_emulator.token
    assert commenda_emulator.requests == []


def test_afterwards():
    assert "COMMENDA_BASE_URL" not in os.environ
"""

ASYNCHRONOUS = """
import pytest

from commenda_customers.testing import faults


MARK
async def test_all_come(commenda_api, commenda_emulator):
    commenda_emulator.faults.add(faults.Drop(at=[2]))
    found = [customer.id async for customer in commenda_api.list("corp_123")]
    assert found == [customer["id"] for customer in commenda_emulator.customers("corp_123")]
    assert len(commenda_emulator.requests) == 11


MARK
async def test_closing_it_is_allowed(commenda_api):
    async with commenda_api as api:
        assert len(await api.list("corp_123")) == 100


MARK
async def test_waits_are_short(commenda_api, commenda_emulator):
    commenda_emulator.faults.add(faults.TooManyRequests())
    with pytest.raises(Exception) as caught:
        await commenda_api.list("corp_123")
    assert (type(caught.value).__name__, caught.value.attempts) == ("RateLimitError", 8)
    first, *_, last = commenda_emulator.requests
    assert last.at - first.at < 8
"""

UNUSED = """
import sys


def test_nothing_is_imported():
    wanted = {"commenda_customers", "httpx", "uvicorn", "pydantic", "pytest_commenda_customers"}
    assert wanted & set(sys.modules) == {"pytest_commenda_customers"}
"""

FAILING = """
import pytest

from commenda_customers.testing import faults


class Broken(faults.Fault):
    def change(self, reply):
        raise LookupError("this fault has a bug")


@pytest.mark.anyio
@pytest.mark.commenda_emulator(faults=[Broken(at=[1])])
async def test_a_broken_fault(commenda_api):
    await commenda_api.list("corp_123")
"""


def run(folder: Path, test: str, passed: int, code: int = 0, **settings: str) -> str:
    """Run a test in *folder* with these settings of pytest. Without `asyncio_mode`, pytest-asyncio is not there."""
    options = "--strict-markers --strict-config -p no:cacheprovider -p no:respx"  # the plugin of respx imports httpx
    if "asyncio_mode" in settings:
        settings["asyncio_default_fixture_loop_scope"] = "function"
    else:
        options += " -p no:asyncio"
    lines = ["[pytest]", f"addopts = {options}", *(f"{name} = {value}" for name, value in settings.items())]
    (folder / "pytest.ini").write_text("\n".join(lines), encoding="utf-8")
    (folder / "test_it.py").write_text(test, encoding="utf-8")
    hidden = ("COVERAGE_", "PYTEST_")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith(hidden)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert f"{passed} passed" in done.stdout
    return done.stdout


def test_synchronous_tests(tmp_path: Path) -> None:
    """The emulator is fresh for each test, gets its arguments from the mark, and is the API of the environment."""
    run(tmp_path, SYNCHRONOUS, passed=4)


@pytest.mark.parametrize(
    ("mark", "settings", "passed"),
    [
        ("@pytest.mark.anyio", {}, 6),
        ("", {"anyio_mode": "auto"}, 6),
        ("@pytest.mark.anyio", {"asyncio_mode": "strict"}, 6),
        ("@pytest.mark.asyncio", {"asyncio_mode": "strict"}, 3),
        ("", {"asyncio_mode": "auto"}, 3),
    ],
    ids=["anyio", "anyio, auto", "anyio beside asyncio", "asyncio", "asyncio, auto"],
)
def test_asynchronous_tests(tmp_path: Path, mark: str, settings: Mapping[str, str], passed: int) -> None:
    """The client works with anyio's plugin, on asyncio and on trio, and with pytest-asyncio; nothing stays open."""
    run(tmp_path, ASYNCHRONOUS.replace("MARK", mark), passed=passed, **settings)


def test_projects_that_do_not_use_it_pay_nothing(tmp_path: Path) -> None:
    """The plugin is loaded by itself, but neither the package nor what it imports."""
    run(tmp_path, UNUSED, passed=1)


def test_an_error_in_the_emulator_is_reported(tmp_path: Path) -> None:
    """A test that passes because the client sent the request again still shows the error of the emulator."""
    output = run(tmp_path, FAILING, passed=2, code=1)
    assert "LookupError: this fault has a bug" in output
    assert "2 errors" in output
