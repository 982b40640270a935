"""The example of checkpoints, killed again and again."""

import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from commenda_customers.testing import Emulator, faults

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "examples" / "export_jsonl.py"
PAGE = ROOT / "docs" / "checkpoints.md"
CORPORATIONS = {"corp_1": 430, "corp_2": 900, "corp_3": 0, "corp_4": 1, "corp_5": 200, "corp_6": 650}
TOTAL = sum(CORPORATIONS.values())
TROUBLE = [
    faults.Drop(probability=0.04),
    faults.CutBody(probability=0.04),
    faults.Status(probability=0.03),
    faults.EmptyPage(probability=0.03),
]
KILLS = ["start"] * 5 + ["middle"] * 12 + ["end"] * 4


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Serve an API with faults, and make it the API of the environment."""
    with start_blocking_portal() as portal:
        emulator = Emulator(CORPORATIONS, latency=0.005, faults=TROUBLE)
        with portal.wrap_async_context_manager(emulator):
            monkeypatch.setenv("COMMENDA_BASE_URL", emulator.base_url)
            monkeypatch.setenv("COMMENDA_API_TOKEN", emulator.token)
            yield emulator


class Folder:
    """The folder in which the example runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "customers.jsonl"
        self.state = path / "customers.state.json"

    @contextlib.contextmanager
    def running(self, *corporations: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-W", "error", PROGRAM, *(corporations or CORPORATIONS)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=self.path, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def data_bytes(self) -> bytes:
        return self.data.read_bytes() if self.data.exists() else b""

    def lines(self) -> int:
        return self.data_bytes().count(b"\n")

    def promised(self) -> int:
        return json.loads(self.state.read_bytes())["length"] if self.state.exists() else 0

    def has_come_to(self, lines: int) -> bool:
        return self.state.exists() and self.lines() >= lines

    def ids(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {corporation_id: [] for corporation_id in CORPORATIONS}
        for line in self.data.read_text(encoding="utf-8").splitlines():
            customer = json.loads(line)
            found[customer["corporation_id"]].append(customer["id"])
        return found

    def check_complete(self, server: Emulator) -> None:
        for corporation_id, ids in self.ids().items():
            assert ids == [customer["id"] for customer in server.customers(corporation_id)], corporation_id
        assert [file.name for file in self.path.iterdir()] == [self.data.name]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Poll, as long as the process runs."""
    while process.poll() is None and not condition():
        time.sleep(0.0005)


def test_it_survives_twenty_kills(server: Emulator, folder: Folder) -> None:
    """Killed at any moment and run again, it leaves each customer exactly once, in order, and nothing else."""
    draw = random.Random(8)
    kills = draw.sample(KILLS, len(KILLS))
    while kills:
        when = kills[-1]
        before = folder.lines() if folder.state.exists() else 0
        goal = TOTAL - draw.randrange(3) if when == "end" else before + draw.randrange(1, 300)
        with folder.running() as process:
            if when == "start":
                time.sleep(draw.uniform(0, 0.5))
            else:
                wait_until(partial(folder.has_come_to, goal), process)
                time.sleep(draw.uniform(0, 0.003))
            process.kill()
            errors = process.communicate()[1]
        assert process.returncode in {0, -signal.SIGKILL}, errors
        if process.returncode:  # otherwise it was faster than the kill
            kills.pop()

        # What the state promises is in the file.
        length = folder.promised()
        promised = folder.data_bytes()[:length]
        assert len(promised) == length
        assert promised[-1:] in {b"", b"\n"}

    with folder.running() as process:
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    folder.check_complete(server)


def test_a_second_program_is_refused(server: Emulator, folder: Folder) -> None:
    """Two programs at once: the second ends with a clear error, and the file of the first is unharmed."""
    with folder.running() as first:
        wait_until(lambda: folder.lines() > 100, first)
        first.send_signal(signal.SIGSTOP)
        with folder.running() as second:
            assert second.communicate(timeout=60) == ("", "another program writes customers.jsonl\n")
        assert second.returncode == 1
        first.send_signal(signal.SIGCONT)
        assert first.communicate(timeout=60) == ("", "")
    folder.check_complete(server)


@pytest.mark.parametrize("harm", ["other corporations", "no data"])
def test_a_state_of_another_export_is_refused(harm: str, server: Emulator, folder: Folder) -> None:
    """It does not resume with other corporations or without its data, and changes nothing then."""
    with folder.running() as process:
        wait_until(lambda: folder.promised() > 0, process)
        process.kill()
    if harm == "no data":
        folder.data.unlink()
    kept = folder.data_bytes(), folder.state.read_bytes()
    with folder.running(*(["corp_1"] if harm == "other corporations" else [])) as process:
        errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (
        1,
        "customers.state.json belongs to another export; to start again, delete it\n",
    )
    assert (folder.data_bytes(), folder.state.read_bytes()) == kept


def test_the_page_shows_the_example() -> None:
    """The program in the documentation is the program that these tests kill."""
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert PROGRAM.read_text(encoding="utf-8") in programs
