"""The example of checkpoints, killed again and again."""

import contextlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from commenda_customers.testing import Emulator, faults
from forks import fork

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "examples" / "export_jsonl.py"
PAGE = ROOT / "docs" / "checkpoints.md"
CORPORATIONS = {"corp_1": 430, "corp_2": 900, "corp_3": 0, "corp_4": 1, "corp_5": 200, "corp_6": 650}
TOTAL = sum(CORPORATIONS.values())
TROUBLE = [
    faults.Drop(probability=0.02),
    faults.CutBody(probability=0.02),
    faults.Status(probability=0.01),
    faults.EmptyPage(probability=0.03),
]
KILLS = ["start"] * 4 + ["middle"] * 14 + ["end"] * 4
STEPS = range(1, 9)


def die_after(steps: int | None) -> None:
    """Let this process kill itself after so many steps of writing: a file opened, synced or renamed."""
    left = steps or -1
    io_open = io.open

    def step(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal left
            result = function(*args)
            left -= function is not io_open or args[1] == "w"
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    io.open, os.fsync, os.replace = step(io.open), step(os.fsync), step(os.replace)  # type: ignore[assignment]  # overloaded


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Serve an API with faults, and make it the API of the environment."""
    with Emulator(CORPORATIONS, latency=0.005, faults=TROUBLE) as emulator:
        monkeypatch.setenv("COMMENDA_BASE_URL", emulator.base_url)
        monkeypatch.setenv("COMMENDA_API_TOKEN", emulator.token)
        yield emulator


class Folder:
    """The folder in which the example runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.errors = path.parent / f"{path.name}.errors"
        self.data = path / "customers.jsonl"
        self.state = path / "customers.state.json"

    @contextlib.contextmanager
    def running(self, *corporations: str) -> Iterator[subprocess.Popen[str]]:
        """Start the program as a user does."""
        command = [sys.executable, "-W", "error", PROGRAM, *(corporations or CORPORATIONS)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=self.path, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def fork(self, *, steps: int | None = None) -> Any:
        """Start the program faster."""
        prepare = partial(die_after, steps)
        return fork(PROGRAM, *CORPORATIONS, folder=self.path, errors=self.errors, prepare=prepare)

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

    def check_promise(self) -> None:
        """Check that all that the state promises is in the file."""
        promised = self.data_bytes()[: self.promised()]
        assert len(promised) == self.promised()
        assert promised[-1:] in {b"", b"\n"}

    def check_complete(self, server: Emulator) -> None:
        for corporation_id, ids in self.ids().items():
            assert ids == [customer["id"] for customer in server.customers(corporation_id)], corporation_id
        assert [file.name for file in self.path.iterdir()] == [self.data.name]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def wait_until(condition: Callable[[], bool], is_running: Callable[[], bool]) -> None:
    """Poll, as long as the process runs."""
    while is_running() and not condition():
        time.sleep(0.003)


def test_it_survives_many_kills(server: Emulator, folder: Folder) -> None:
    """Killed at any moment and run again, it leaves each customer exactly once, in order, and nothing else."""
    draw = random.Random(8)
    kills = draw.sample(KILLS, len(KILLS))
    while kills:
        if kills[-1] == "start":
            with folder.running() as process:
                time.sleep(draw.uniform(0, 0.5))
            code = process.returncode
        else:
            before = folder.lines() if folder.state.exists() else 0
            goal = TOTAL - draw.randrange(3) if kills[-1] == "end" else before + draw.randrange(1, 300)
            forked = folder.fork()
            wait_until(partial(folder.has_come_to, goal), forked.is_alive)
            time.sleep(draw.uniform(0, 0.005))
            forked.kill()
            forked.join()
            code = forked.exitcode
        assert code in {0, -signal.SIGKILL}, folder.errors.read_text()
        if code:  # otherwise it was faster than the kill
            kills.pop()
        folder.check_promise()

    # And where a kill by chance seldom hits: between any two steps of writing.
    for steps in STEPS:
        code = 0
        while not code:  # it had fewer steps left, and begins anew
            forked = folder.fork(steps=steps)
            forked.join()
            code = forked.exitcode
            assert code in {0, -signal.SIGKILL}, folder.errors.read_text()
            folder.check_promise()

    with folder.running() as process:
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    folder.check_complete(server)


def test_a_second_program_is_refused(server: Emulator, folder: Folder) -> None:
    """Two programs at once: the second ends with a clear error, and the file of the first is unharmed."""
    with folder.running() as first:
        wait_until(lambda: folder.lines() > 100, lambda: first.poll() is None)
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
        wait_until(lambda: folder.promised() > 0, lambda: process.poll() is None)
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
