"""`commenda-customers export` on a terminal."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from test_cli_terminal import COMMAND, Terminal, shown

from commenda_customers.testing import faults
from emulated import ServeEmulator
from gates import MakeGate

BOTH = ["--corporation", "corp_1", "--corporation", "corp_2"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*args: str, **options: Any) -> Terminal:
    return Terminal([*COMMAND, "export", *args], **options)


def test_it_shows_how_far_it_is(serve: ServeEmulator, make_gate: MakeGate) -> None:
    """The terminal shows customers, corporations, the limit and retries. At the end, only the summary stays."""
    gate = make_gate(corporation_id="corp_2")
    serve({"corp_1": 150, "corp_2": 30}, faults=[faults.Status(503, at=[1]), gate])
    with export(*BOTH, "--output", "a.jsonl", "--rate", "600/min") as terminal:
        terminal.wait_for("150 customers, 2 pages, ")
        terminal.wait_for("1 of 2 corporations done, 0 in flight, 0 failed")
        terminal.wait_for("limit: 10.0 requests/s")
        terminal.wait_for("1 retry")
        gate.is_open.set()
        code, written = terminal.finish()
    assert code == 0
    lines = [line for line in shown(written) if line]
    assert lines[0] == "180 customers written to a.jsonl; 2 corporations complete"
    assert len(lines) == 2
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_how_long_the_rest_takes(serve: ServeEmulator, make_gate: MakeGate) -> None:
    """The terminal shows about how long the rest takes, also for corporations that have not begun."""
    gate = make_gate(corporation_id="corp_1", pages=[3])
    serve({"corp_1": 300, "corp_2": 100}, faults=[gate])
    with export(*BOTH, "--output", "a.jsonl", "--concurrency", "1") as terminal:
        terminal.wait_for(", about 0:00:0")
        gate.is_open.set()
        code, _ = terminal.finish()
    assert code == 0


def test_ctrl_c(serve: ServeEmulator, make_gate: MakeGate) -> None:
    """Ctrl-C restores the terminal: the cursor is visible, and the progress is erased."""
    gate = make_gate(pages=[3])
    serve({"corp_1": 300}, faults=[gate])
    with export("--corporation", "corp_1", "--output", "a.jsonl") as terminal:
        terminal.wait_for("200 customers")
        terminal.process.send_signal(signal.SIGINT)
        code, written = terminal.finish()
    assert code == 130
    lines = [line for line in shown(written) if line]
    assert lines[0] == "200 customers written to a.jsonl.partial; 0 corporations complete"
    assert lines[-1] == "interrupted; to resume, run the same command again"
    assert len(lines) == 3
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_a_server_that_cannot_be_reached(serve: ServeEmulator) -> None:
    """On a terminal, the export gives up if the server does not respond at all. Meanwhile it shows the reason."""
    serve()
    args = [*BOTH, "--output", "a.jsonl", "--base-url", "http://127.0.0.1:1", "--deadline", "3"]
    with export(*args) as terminal:
        terminal.wait_for("waiting for the first page")
        terminal.wait_for("the last: the connection to 127.0.0.1:1 failed")
        code, written = terminal.finish()
    assert code == 1
    assert "error: the connection to 127.0.0.1:1 failed" in written


def test_the_log_is_not_mixed_with_the_progress(serve: ServeEmulator) -> None:
    """With `--debug`, the terminal shows the log without the token, and no live lines."""
    server = serve({"corp_1": 3})
    with export("--corporation", "corp_1", "--output", "a.jsonl", "--debug") as terminal:
        code, written = terminal.finish()
    assert code == 0
    assert "DEBUG commenda_customers: RequestSent" in written
    assert "\x1b" not in written
    assert server.token not in written


@pytest.mark.parametrize("is_file", [True, False])
def test_progress_beside_standard_output(is_file: bool, serve: ServeEmulator, make_gate: MakeGate) -> None:
    """With `--output -`, the progress is shown only if customers go to a file. Otherwise they may use the same terminal."""
    gate = make_gate(pages=[2])
    serve({"corp_1": 150}, faults=[gate])
    reader, writer = os.pipe()
    target = os.open("customers.jsonl", os.O_CREAT | os.O_WRONLY) if is_file else writer
    with export("--corporation", "corp_1", "--output", "-", stdout=target) as terminal:
        if is_file:
            terminal.wait_for("100 customers")
        else:
            assert os.read(reader, 1) == b"{"
        gate.is_open.set()
        os.close(writer)
        while not is_file and os.read(reader, 65536):
            pass
        code, written = terminal.finish()
    os.close(reader)
    if is_file:
        os.close(target)
    assert code == 0
    assert ("\x1b" in written) == is_file
    assert "150 customers written to standard output; 1 corporation complete" in written
