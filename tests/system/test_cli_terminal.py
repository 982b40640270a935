"""The command line in a process of its own: terminals, pipes, locales, signals."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from commenda_customers.testing import faults
from emulated import ServeEmulator

COMMAND = [sys.executable, "-m", "commenda_customers"]


def on_a_terminal(args: Sequence[str], *, columns: int = 100, **env: str) -> tuple[int, str]:
    """Run the command with a terminal for its output; return the exit code and all that it wrote."""
    ours, its = os.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **env}
    with subprocess.Popen([*COMMAND, *args], stdout=its, stderr=its, env=environment) as process:
        os.close(its)
        written = b""
        while True:
            try:
                written += os.read(ours, 65536)
            except OSError:  # the terminal of a process that has ended
                break
        code = process.wait(120)
    os.close(ours)
    return code, written.decode()


class TestList:
    """`commenda-customers list`."""

    def test_a_table_on_a_terminal(self, serve: ServeEmulator) -> None:
        """A terminal shows one table with one head, however many pages there are."""
        serve({"corp_1": 25})
        code, written = on_a_terminal(["list", "corp_1", "--limit", "10"])
        assert code == 0
        assert written.count("platform") == 1
        assert len([line for line in written.splitlines() if "cust_" in line]) == 25

    @pytest.mark.parametrize("form", ["--json", "--table"])
    def test_any_locale_will_do(self, form: str, serve: ServeEmulator) -> None:
        """JSON is UTF-8 everywhere; a table shows what the terminal can."""
        server = serve({"corp_1": 100})
        done = subprocess.run(
            [*COMMAND, "list", "corp_1", form],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert done.stderr == b""
        assert len([line for line in done.stdout.splitlines() if b"cust_" in line]) == 100
        if form == "--json":
            names = [json.loads(line)["name"] for line in done.stdout.decode().splitlines()]
            assert names == [customer["name"] for customer in server.customers("corp_1")]

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
    @pytest.mark.parametrize("buffered", [True, False])
    def test_a_full_disk_is_one_line(self, buffered: bool, serve: ServeEmulator) -> None:
        """A full disk is one line and exit code 1, without a second error for Python's buffer."""
        serve({"corp_1": 5})
        env = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*COMMAND, "list", "corp_1"], stdout=full, stderr=subprocess.PIPE, env=env, check=False)
        assert (done.returncode, done.stderr) == (1, b"error: [Errno 28] No space left on device\n")

    def test_a_closed_output_is_an_error(self, serve: ServeEmulator) -> None:
        """A closed standard output is an error, and no request is sent."""
        server = serve({"corp_1": 5})
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "list", "corp_1"], stderr=subprocess.PIPE, check=False
        )
        assert (done.returncode, done.stderr) == (1, b"error: standard output is closed\n")
        assert server.requests == []

    def test_progress_is_shown_beside_a_pipe(self, serve: ServeEmulator) -> None:
        """A terminal on standard error shows the progress while customers go into a file."""
        was_shown = threading.Event()

        class HeldBack(faults.Fault):
            async def deliver(self, exchange: Any, reply: Any) -> None:
                while not was_shown.is_set():
                    await exchange.pause(0.01)
                await super().deliver(exchange, reply)

        serve({"corp_1": 30}, faults=[HeldBack(at=[3])])
        ours, its = os.openpty()
        env = {**os.environ, "TERM": "xterm"}
        command = [*COMMAND, "list", "corp_1", "--limit", "10"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its, env=env) as process:
            os.close(its)
            shown = b""
            while b"20 of 30 customers" not in shown:
                shown += os.read(ours, 65536)
            was_shown.set()
            assert process.stdout is not None
            printed = process.stdout.read()
        os.close(ours)
        assert len(printed.splitlines()) == 30

    def test_a_closed_pipe_ends_it_quietly(self, serve: ServeEmulator) -> None:
        """The command ends without a traceback when the reader of the pipe goes away."""
        serve({"corp_1": 5000})
        with subprocess.Popen([*COMMAND, "list", "corp_1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            complained = process.stderr.read()
            code = process.wait(120)
        assert (code, complained) == (0, b"")

    def test_an_interrupt_is_no_traceback(self, serve: ServeEmulator) -> None:
        """Ctrl-C while it waits for the server is exit code 130 and one word."""
        server = serve({"corp_1": 10}, faults=[faults.Hang(probability=1)])
        with subprocess.Popen([*COMMAND, "list", "corp_1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while not server.requests:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, complained = process.communicate(timeout=120)
        assert (process.returncode, complained.strip()) == (130, b"interrupted")


class TestDemo:
    """`commenda-customers demo`."""

    def test_on_a_terminal_it_shows_progress(self) -> None:
        """On a terminal there is a bar for each corporation."""
        code, written = on_a_terminal(["demo", "--corporations", "2", "--customers", "150"])
        assert code == 0
        assert "corp_2" in written
        assert "150/150" in written
        assert "300 of 2 corporations" in written


class TestEmulate:
    """`commenda-customers emulate`."""

    def test_it_serves_until_interrupted(self) -> None:
        """It says how to use it, serves what it was told to, and ends with Ctrl-C."""
        args = ["emulate", "--port", "0", "--corporation", "corp_7=15", "--token", "open-sesame", "--envelope", "bare"]
        faulty = ["--fault", "status=0.5", "--fault", "empty-page=0.2", "--rate", "500", "--latency", "0.001"]
        with subprocess.Popen(
            [*COMMAND, *args, *faulty], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_unbuffered()
        ) as process:
            assert process.stdout is not None
            settings = dict(
                line.strip().removeprefix("export ").split("=", 1)
                for _, line in zip(range(4), process.stdout, strict=False)
                if "export" in line
            )
            done = subprocess.run(
                [*COMMAND, "list", "corp_7", "--limit", "3"], env={**os.environ, **settings}, capture_output=True, check=True
            )
            process.send_signal(signal.SIGINT)
            _, complained = process.communicate(timeout=120)
        assert len(done.stdout.splitlines()) == 15
        assert settings["COMMENDA_API_TOKEN"] == "open-sesame"
        assert (process.returncode, complained.strip()) == (130, "interrupted")


def _unbuffered() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


class TestHelp:
    """`--help` and `--version`."""

    @pytest.mark.parametrize(
        ("missing", "code", "complaint"),
        [
            ("click", 2, "error: the command line needs the extra 'cli': pip install '/path/to/clone[cli]'"),
            ("commenda_customers.cli._list", 1, "ModuleNotFoundError: import of commenda_customers.cli._list halted"),
        ],
    )
    def test_missing_packages_are_named(self, missing: str, code: int, complaint: str) -> None:
        """The command names the packages of the command line that are missing, and hides no other import error."""
        program = (
            f"import sys; sys.modules['{missing}'] = None\n"
            "from commenda_customers.cli import main\n"
            "sys.exit(main(['demo']))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stderr.splitlines()[-1].startswith(complaint)
