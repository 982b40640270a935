"""The command line in a separate process: terminals, pipes, locales, signals."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from commenda_customers.testing import faults
from emulated import ServeEmulator

COMMAND = [sys.executable, "-m", "commenda_customers"]


def on_a_terminal(args: Sequence[str], *, columns: int = 100, **env: str) -> tuple[int, str]:
    """Run the command with a terminal for its output. Return the exit code and the output."""
    with Terminal([*COMMAND, *args], columns=columns, **env) as terminal:
        return terminal.finish()


class Terminal:
    """A pseudo-terminal on which a program runs."""

    def __init__(self, command: Sequence[str], *, columns: int = 100, stdout: int | None = None, **env: str) -> None:
        """Start a program. With *stdout*, only its standard error is the terminal."""
        self._ours, self._its = os.openpty()
        environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **env}
        self.written = b""
        self.process = subprocess.Popen(
            command, stdout=self._its if stdout is None else stdout, stderr=self._its, env=environment
        )
        os.close(self._its)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.process.kill()
        self.process.wait(120)
        os.close(self._ours)

    def wait_for(self, text: str) -> None:
        """Wait until the program has written *text*."""
        while text.encode() not in self.written:
            self.written += os.read(self._ours, 65536)

    def finish(self) -> tuple[int, str]:
        """Wait until the program has ended. Return its exit code and its output."""
        with contextlib.suppress(OSError):  # Linux: the terminal of a process that has ended
            while part := os.read(self._ours, 65536):
                self.written += part
        return self.process.wait(120), self.written.decode()


def shown(written: str) -> list[str]:
    """Return the lines that a terminal shows after a program has *written* to it."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+|\x1b", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
        else:
            assert part[-1] in "mhl", f"the terminal of these tests does not know {part!r}"

    return [line.rstrip() for line in lines]


class HeldBack(faults.Fault):
    """A response that waits until the test releases it."""

    released = threading.Event()

    async def deliver(self, exchange: Any, reply: Any) -> None:
        while not self.released.is_set():
            await exchange.pause(0.01)
        await super().deliver(exchange, reply)


@pytest.fixture
def held_back() -> Iterator[type[HeldBack]]:
    """Return a fault that holds a response back until `released` is set."""
    HeldBack.released.clear()
    yield HeldBack
    HeldBack.released.set()


class TestList:
    """`commenda-customers list`."""

    def test_a_table_on_a_terminal(self, serve: ServeEmulator) -> None:
        """A terminal shows one table with one heading, for any number of pages."""
        serve({"corp_1": 25})
        code, written = on_a_terminal(["list", "corp_1", "--limit", "10"])
        assert code == 0
        assert written.count("platform") == 1
        assert len([line for line in written.splitlines() if "cust_" in line]) == 25

    @pytest.mark.parametrize("form", ["--json", "--table"])
    def test_any_locale_will_do(self, form: str, serve: ServeEmulator) -> None:
        """JSON is always UTF-8. A table replaces characters that the terminal cannot show."""
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
        """If the disk is full, there are one line and exit code 1, and no second error for Python's buffer."""
        serve({"corp_1": 5})
        env = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*COMMAND, "list", "corp_1"], stdout=full, stderr=subprocess.PIPE, env=env, check=False)
        assert (done.returncode, done.stderr) == (1, b"error: [Errno 28] No space left on device\n")

    def test_a_closed_output_is_an_error(self, serve: ServeEmulator) -> None:
        """If standard output is closed, this is an error before any request."""
        server = serve({"corp_1": 5})
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "list", "corp_1"], stderr=subprocess.PIPE, check=False
        )
        assert (done.returncode, done.stderr) == (1, b"error: standard output is closed\n")
        assert server.requests == []

    def test_progress_is_shown_beside_a_file(self, serve: ServeEmulator, held_back: type[HeldBack], tmp_path: Path) -> None:
        """While customers go to a file, a terminal on standard error shows the progress. At the end, it is erased."""
        serve({"corp_1": 30}, faults=[held_back(at=[3])])
        path = tmp_path / "customers.jsonl"
        with (
            path.open("wb") as file,
            Terminal([*COMMAND, "list", "corp_1", "--limit", "10"], stdout=file.fileno()) as terminal,
        ):
            terminal.wait_for("20 of 30 customers")
            held_back.released.set()
            code, written = terminal.finish()
        assert code == 0
        assert len(path.read_bytes().splitlines()) == 30
        assert "".join(shown(written)) == ""

    def test_nothing_of_the_progress_stays(self, serve: ServeEmulator, held_back: type[HeldBack]) -> None:
        """A terminal shows that the command waits. Then the heading of the table replaces this line."""
        serve({"corp_1": 3}, faults=[held_back()])
        with Terminal([*COMMAND, "list", "corp_1"]) as terminal:
            terminal.wait_for("waiting for the first page")
            held_back.released.set()
            code, written = terminal.finish()
        assert code == 0
        head, *rows = shown(written)
        assert head.startswith("id  ")
        assert [row[:5] for row in rows] == ["cust_"] * 3 + [""]

    def test_a_pipe_may_lead_to_the_same_terminal(self, serve: ServeEmulator, held_back: type[HeldBack]) -> None:
        """The progress does not mix with the output of the program that reads the pipe."""
        serve({"corp_1": 2}, faults=[held_back(at=[2])])
        pipe = ["bash", "-c", 'set -o pipefail; "$@" | sed -u s/.*corporation_id.*/customer/', "bash"]
        with Terminal([*pipe, *COMMAND, "list", "corp_1", "--limit", "1"]) as terminal:
            terminal.wait_for("customer\r\n")
            held_back.released.set()
            code, written = terminal.finish()
        assert code == 0
        assert shown(written) == ["customer", "customer", ""]

    def test_a_closed_pipe_ends_it_quietly(self, serve: ServeEmulator) -> None:
        """If the program that reads the pipe ends, the command ends without a traceback."""
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
        """If Ctrl-C comes before the first page, the command prints one word, and ends with exit code 130."""
        server = serve({"corp_1": 10}, faults=[faults.Hang(probability=1)])
        with subprocess.Popen([*COMMAND, "list", "corp_1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while not server.requests:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, complained = process.communicate(timeout=120)
        assert (process.returncode, complained) == (130, b"interrupted\n")

    def test_an_interrupt_says_how_to_resume(self, serve: ServeEmulator) -> None:
        """After Ctrl-C, the next run starts with the first page that was not printed."""
        server = serve({"corp_1": 30}, faults=[faults.Hang(at=[2])])
        command = [*COMMAND, "list", "corp_1", "--limit", "10"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while len(server.requests) < 2:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            printed, complained = process.communicate(timeout=120)
        assert process.returncode == 130
        word, hint = complained.splitlines()
        assert word == "interrupted"
        resume = shlex.split(hint.removeprefix("to resume: "))
        printed += subprocess.run([*command, *resume], check=True, capture_output=True, text=True).stdout
        assert [json.loads(line)["id"] for line in printed.splitlines()] == [c["id"] for c in server.customers("corp_1")]

    def test_an_interrupt_leaves_nothing_on_the_terminal(self, serve: ServeEmulator) -> None:
        """After Ctrl-C, a terminal shows neither the progress nor a ^C."""
        serve({"corp_1": 1}, faults=[faults.Hang(probability=1)])
        with Terminal([*COMMAND, "list", "corp_1"]) as terminal:
            terminal.wait_for("waiting for the first page")
            terminal.process.send_signal(signal.SIGINT)
            code, written = terminal.finish()
        assert code == 130
        assert shown(written) == ["interrupted", ""]
        assert written.endswith("\rinterrupted\r\n")


class TestDebug:
    """`commenda-customers list --debug`."""

    @pytest.mark.parametrize("is_terminal", [True, False])
    def test_it_shows_log_and_traceback(self, is_terminal: bool, serve: ServeEmulator) -> None:
        """Standard error has the log and the traceback, without the token and without progress."""

        class Telltale(faults.Fault):
            def change(self, reply: Any) -> Any:
                return type(reply).error(401, "the token open-sesame is not valid", {"X-Echo": "open-sesame"})

        serve({"corp_1": 20}, token="open-sesame", faults=[Telltale(at=[2])])
        args = ["list", "corp_1", "--limit", "10", "--debug"]
        if is_terminal:
            code, written = on_a_terminal(args)
        else:
            done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, check=False)
            code, written = done.returncode, done.stderr
        assert code == 1
        assert "DEBUG commenda_customers: RequestSent(" in written
        assert "Traceback (most recent call last):" in written
        assert "commenda_customers.errors.AuthenticationError: " in written
        assert "\nto resume: --cursor " in written
        assert "error: " not in written
        assert "waiting" not in written
        assert "open-sesame" not in written


class TestPatience:
    """The time that a person waits for a server that does not respond."""

    IMPATIENT = (
        "import sys\n"
        "from commenda_customers.cli import _options, main\n"
        "_options._SECONDS_TO_FIRST_RESPONSE = 0.3\n"
        "sys.exit(main())\n"
    )
    COMMAND = (sys.executable, "-c", IMPATIENT, "list", "corp_1", "--json")

    def test_a_host_that_refuses_connections(self) -> None:
        """On a terminal, an unreachable host is soon an error. It has the reason, and the option to wait longer."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # not listening
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with Terminal([*self.COMMAND, "--base-url", url], columns=300, COMMENDA_API_TOKEN="token") as terminal:
                code, written = terminal.finish()
        assert code == 1
        error = shown(written)[-2]
        assert error.startswith(f"error: no response from {url} within 0.3 s; before that: the connection to 127.0.0.1")
        assert error.endswith("; to wait longer: --deadline SECONDS")

    def test_a_host_that_is_silent(self, serve: ServeEmulator) -> None:
        """On a terminal, a server that accepts the request and never responds is soon an error."""
        server = serve({"corp_1": 3}, faults=[faults.Hang(probability=1)])
        with Terminal(self.COMMAND) as terminal:
            code, written = terminal.finish()
        assert code == 1
        error = f"error: no response from {server.base_url} within 0.3 s; to wait longer: --deadline SECONDS"
        assert shown(written) == [error, ""]

    @pytest.mark.parametrize("options", [["--deadline", "60"], ["--timeout", "60"]], ids=" ".join)
    def test_options_wait_longer(self, options: list[str], serve: ServeEmulator) -> None:
        """A longer `--timeout` or a `--deadline` gives the server more time."""
        serve({"corp_1": 3}, latency=1.0)
        with Terminal([*self.COMMAND, *options]) as terminal:
            code, _ = terminal.finish()
        assert code == 0

    def test_a_script_waits_longer(self, serve: ServeEmulator) -> None:
        """Without a terminal, only the retry policy of the library gives up."""
        serve({"corp_1": 3}, latency=1.0)
        done = subprocess.run(self.COMMAND, capture_output=True, check=True)
        assert len(done.stdout.splitlines()) == 3


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
        """It prints how to use it, serves the given corporations, and ends at Ctrl-C."""
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
        """The command names the extra if one of its packages is missing. It does not hide any other import error."""
        program = (
            f"import sys; sys.modules['{missing}'] = None\n"
            "from commenda_customers.cli import main\n"
            "sys.exit(main(['demo']))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stderr.splitlines()[-1].startswith(complaint)
