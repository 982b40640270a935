"""The command line: what it prints, where, and with which exit code."""

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from commenda_customers import Customer
from commenda_customers.cli import main
from commenda_customers.query import CustomerFilters
from commenda_customers.testing import Emulator, faults

COMMAND = [sys.executable, "-m", "commenda_customers"]
ServeEmulator = Callable[..., Emulator]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServeEmulator]:
    """Return a function that serves an emulator for the rest of the test, and makes it the API of the environment."""
    with start_blocking_portal() as portal:
        contexts: list[Any] = []

        def start(*args: Any, **options: Any) -> Emulator:
            context = portal.wrap_async_context_manager(Emulator(*args, **options))
            server = context.__enter__()
            contexts.append(context)
            monkeypatch.setenv("COMMENDA_BASE_URL", server.base_url)
            monkeypatch.setenv("COMMENDA_API_TOKEN", server.token)
            return server

        yield start
        for context in contexts:
            context.__exit__(None, None, None)


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
        code = process.wait(30)
    os.close(ours)
    return code, written.decode()


class TestList:
    """`commenda-customers list`."""

    def test_json_lines_where_there_is_no_terminal(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Into a pipe go all customers, a JSON object a line, which the model reads back."""
        server = serve({"corp_1": 250}, faults=[faults.EmptyPage(at=[2])])
        assert main(["list", "corp_1", "--extend", "shipping_address,exemption_metadata"]) == 0
        printed, complained = capfd.readouterr()
        customers = [Customer.model_validate_json(line) for line in printed.splitlines()]
        expected = server.customers("corp_1", extend="shipping_address,exemption_metadata")
        assert customers == [Customer.model_validate(customer) for customer in expected]
        assert complained == ""

    def test_a_table_on_a_terminal(self, serve: ServeEmulator) -> None:
        """On a terminal it is one table with one head, however many pages it took."""
        serve({"corp_1": 25})
        code, written = on_a_terminal(["list", "corp_1", "--limit", "10"])
        assert code == 0
        assert written.count("platform") == 1
        assert len([line for line in written.splitlines() if "cust_" in line]) == 25

    @pytest.mark.parametrize(("flag", "is_json"), [("--json", True), ("--table", False)])
    def test_the_form_can_be_chosen(
        self, flag: str, is_json: bool, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """`--json` and `--table` say which it is to be, wherever it goes."""
        serve({"corp_1": 1})
        assert main(["list", "corp_1", flag]) == 0
        assert capfd.readouterr().out.startswith("{") == is_json

    def test_a_name_cannot_steer_the_terminal(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Control characters in what the server sends are not printed in a table; nor is markup obeyed."""

        class Hostile(faults.Fault):
            def change_listing(self, listing: Any, asked: str | None, again: str) -> Any:
                return {**listing, "customers": [{**c, "name": "\x1b[2J[red]x\r\n"} for c in listing["customers"]]}

        serve({"corp_1": 1}, faults=[Hostile(probability=1)])
        assert main(["list", "corp_1", "--table"]) == 0
        printed = capfd.readouterr().out
        assert "\x1b" not in printed
        assert "[2J[red]x" in printed

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
        """If the output cannot be written it says so, and fails; what stays in Python's buffer is no second complaint."""
        serve({"corp_1": 5})
        env = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*COMMAND, "list", "corp_1"], stdout=full, stderr=subprocess.PIPE, env=env, check=False)
        assert (done.returncode, done.stderr) == (1, b"error: [Errno 28] No space left on device\n")

    def test_without_an_output_nothing_is_done(self, serve: ServeEmulator) -> None:
        """If there is no standard output at all it says so, and fails."""
        server = serve({"corp_1": 5})
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "list", "corp_1"], stderr=subprocess.PIPE, check=False
        )
        assert (done.returncode, done.stderr) == (1, b"error: standard output is closed\n")
        assert server.requests == []

    def test_all_filters_are_options(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Each parameter of the API is an option, lists separated by commas or repeated, and reaches the server."""
        server = serve()
        args = (
            "--name A --search-term B --source-platforms C,D --source-platforms E --source-platform-ids F "
            "--extend shipping_address --certificate-types G --exemption-jurisdiction H --expiration-status ACTIVE "
            "--exemption-status INACTIVE --no-has-exemption --limit 7"
        )
        assert main(["list", "corp_123", *args.split()]) == 0
        assert server.requests[0].params == {
            "corporation_id": "corp_123",
            "limit": "7",
            "name": "A",
            "search_term": "B",
            "source_platforms": "C,D,E",
            "source_platform_ids": "F",
            "extend": "shipping_address",
            "certificate_types": "G",
            "exemption_jurisdiction": "H",
            "expiration_status": "ACTIVE",
            "exemption_status": "INACTIVE",
            "has_exemption": "false",
        }
        assert set(CustomerFilters.__annotations__) <= set(server.requests[0].params)

    def test_retries_are_told_beside_the_customers(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Whoever waits is told for what: each retry is a line, and not among the customers."""
        serve({"corp_1": 20}, faults=[faults.Status(at=[1])])
        assert main(["list", "corp_1"]) == 0
        printed, complained = capfd.readouterr()
        assert len(printed.splitlines()) == 20
        assert complained.startswith("the server answered 503 Service Unavailable: ")
        assert "; trying again in 0." in complained
        assert complained.count("\n") == 1

    def test_a_cursor_that_was_refused_is_none_to_go_on_from(
        self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """What the server has just refused is not proposed again."""
        serve({"corp_1": 20})
        assert main(["list", "corp_1", "--cursor", "garbage"]) == 1
        assert "go on" not in capfd.readouterr().err

    def test_an_error_names_the_cursor_to_go_on_from(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """A failure of the API is exit code 1, one line, and another to paste, with which the rest can be had."""
        server = serve({"corp_1": 20}, faults=[faults.WrongEnvelope(at=[2])])
        assert main(["list", "corp_1", "--limit", "10"]) == 1
        printed, complained = capfd.readouterr()
        assert complained.startswith("error: the answer has neither documented envelope")
        assert complained.splitlines()[1].startswith("to go on from there: --cursor ")
        option = shlex.split(complained.splitlines()[1].partition(": ")[2])
        assert main(["list", "corp_1", "--limit", "10", *option]) == 0
        ids = [json.loads(line)["id"] for line in (printed + capfd.readouterr().out).splitlines()]
        assert ids == [customer["id"] for customer in server.customers("corp_1")]

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["list"], "Missing argument 'CORPORATION_ID'"),
            (["list", "corp_1", "--limit", "ten"], "'ten' is not a valid integer"),
            (["list", "corp_1", "--limit", "101"], "limit: must be from 1 to 100, got 101"),
            (["list", "corp_1", "--base-url", "ftp://x"], "base_url: must begin with https"),
            (["list", "corp_1", "--extend", "a,,b"], "extend[1]: must not be empty"),
            (["list", "corp_1", "--serch-term", "x"], "No such option"),
            (["lst"], "No such command"),
            (["emulate", "--corporation", "corp_1"], "'corp_1' is not of the form ID=CUSTOMERS"),
            (["emulate", "--corporation", f"a={'9' * 5000}"], "is not of the form ID=CUSTOMERS"),
            (["emulate", "--fault", "drop"], "'drop' is not of the form KIND=PROBABILITY"),
            (["emulate", "--fault", "drap=0.1"], "KIND is one of cut-body, drop"),
            (["emulate", "--fault", "drop=7"], "PROBABILITY is from 0 to 1"),
        ],
    )
    def test_mistakes_of_the_user_are_one_line(
        self, args: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Wrong use is exit code 2 and one line that says what is wrong."""
        monkeypatch.setenv("COMMENDA_API_TOKEN", "token")
        assert main(args) == 2
        printed, complained = capfd.readouterr()
        assert printed == ""
        assert complained.startswith("error: ")
        assert words in complained
        assert complained.count("\n") == 1

    def test_without_a_token(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Without a token in the environment it says which variable to set."""
        assert main(["list", "corp_1"]) == 2
        assert (
            capfd.readouterr().err
            == "error: token: none was passed, and the environment variable COMMENDA_API_TOKEN is missing or empty\n"
        )

    def test_progress_is_shown_beside_a_pipe(self, serve: ServeEmulator) -> None:
        """While customers go into a file, a terminal on the other stream shows how far it is."""
        serve({"corp_1": 30}, latency=0.3)
        ours, its = os.openpty()
        with subprocess.Popen(
            [*COMMAND, "list", "corp_1", "--limit", "10"],
            stdout=subprocess.PIPE,
            stderr=its,
            env={**os.environ, "TERM": "xterm"},
        ) as process:
            os.close(its)
            printed, _ = process.communicate(timeout=30)
            shown = os.read(ours, 65536).decode()
        os.close(ours)
        assert len(printed.splitlines()) == 30
        assert "20 of 30 customers" in shown

    def test_a_reader_that_has_had_enough(self, serve: ServeEmulator) -> None:
        """When the reader of the pipe goes away, it ends without a traceback."""
        serve({"corp_1": 5000})
        with subprocess.Popen([*COMMAND, "list", "corp_1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            complained = process.stderr.read()
            code = process.wait(30)
        assert (code, complained) == (0, b"")

    def test_an_interrupt_is_no_traceback(self, serve: ServeEmulator) -> None:
        """Ctrl-C while it waits for the server is exit code 130 and one word."""
        server = serve({"corp_1": 10}, faults=[faults.Hang(probability=1)])
        with subprocess.Popen([*COMMAND, "list", "corp_1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while not server.requests:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, complained = process.communicate(timeout=30)
        assert (process.returncode, complained.strip()) == (130, b"interrupted")

    def test_an_interrupt_at_any_time(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """Ctrl-C before anything is in flight ends in the same way."""

        def interrupted(*_args: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("commenda_customers.cli._commands.anyio.run", interrupted)
        assert main(["list", "corp_1"]) == 130
        assert capfd.readouterr().err.strip() == "interrupted"


class TestDemo:
    """`commenda-customers demo`."""

    def test_it_proves_that_everything_came(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Faults and a rate limit notwithstanding, all customers of all corporations come; lines show how far it is."""
        assert main(["demo", "--corporations", "3", "--customers", "1200", "--rate", "10", "--seed", "7"]) == 0
        printed = capfd.readouterr().out
        assert " pages, " in printed
        assert "Stopped after 1,8" in printed
        assert "3,600 of 3 corporations" in printed
        assert " requests/s learned, 10 is true" in printed
        assert "yes: every customer once, in the server's order" in printed
        assert "RateLimitError" in printed

    def test_on_a_terminal_it_shows_progress(self) -> None:
        """On a terminal there is a bar for each corporation."""
        code, written = on_a_terminal(["demo", "--corporations", "2", "--customers", "150"])
        assert code == 0
        assert "corp_2" in written
        assert "150/150" in written
        assert "300 of 2 corporations" in written

    def test_a_failure_is_one_line(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """Should the API fail for good, the demo ends like any command: one line and exit code 1."""
        monkeypatch.setattr("commenda_customers.cli._demo._FAULTS", [faults.WrongEnvelope(probability=1)])
        assert main(["demo", "--corporations", "3"]) == 1
        assert capfd.readouterr().err.startswith("error: the answer has neither documented envelope")

    def test_it_notices_what_is_missing(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """If something were missing, the demo would say what, and fail."""
        truth = Emulator.customers
        monkeypatch.setattr(
            Emulator, "customers", lambda self, name, **params: list(truth(self, name, **params))[name == "corp_2" :]
        )
        assert main(["demo", "--corporations", "2", "--customers", "50"]) == 1
        assert "NO: corp_2 differ" in capfd.readouterr().out


class TestEmulate:
    """`commenda-customers emulate`."""

    def test_other_errors_are_not_mistaken(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """Only a port that cannot be had is the user's mistake."""

        async def fail(_self: Emulator) -> Emulator:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Emulator, "__aenter__", fail)
        assert main(["emulate", "--port", "0"]) == 1
        assert capfd.readouterr().err == "error: [Errno 28] No space left on device\n"

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
            _, complained = process.communicate(timeout=30)
        assert len(done.stdout.splitlines()) == 15
        assert settings["COMMENDA_API_TOKEN"] == "open-sesame"
        assert (process.returncode, complained.strip()) == (130, "interrupted")

    def test_a_port_that_is_taken(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """A port that somebody else has is the user's mistake."""
        port = serve().base_url.rpartition(":")[2].partition("/")[0]
        assert main(["emulate", "--port", port]) == 2
        assert "error: --port: Address already in use" in capfd.readouterr().err


def _unbuffered() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


class TestHelp:
    """`--help` and `--version`."""

    @pytest.mark.parametrize("args", [[], ["list"], ["demo"], ["emulate"]], ids=" ".join)
    def test_everything_has_help(self, args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
        """Each command explains itself, and each option has a text."""
        assert main([*args, "--help"]) == 0
        printed = capfd.readouterr().out
        assert printed.startswith("Usage: commenda-customers")
        for line in printed.partition("Options:")[2].splitlines():
            # A long option has its text on the next line.
            assert not line.startswith("  -") or len(line.split("  ")) > 2 or len(line) > 28

    def test_alone_it_explains_itself(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Without arguments it shows its help, readable, as wrong use."""
        assert main([]) == 2
        assert "\nCommands:\n" in capfd.readouterr().err

    def test_an_interrupt_while_it_loads(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """Ctrl-C before the command has begun is an interrupt like any other."""

        def interrupted(_args: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr("commenda_customers.cli._commands.run", interrupted)
        assert main(["demo"]) == 130
        assert capfd.readouterr().err == "interrupted\n"

    def test_it_can_be_called_by_a_program(self) -> None:
        """A program that has redirected its output may call `main` itself."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["demo", "--help"]) == 0
        assert "Read several corporations" in printed.getvalue()

    def test_the_version(self, capfd: pytest.CaptureFixture[str]) -> None:
        """`--version` prints the version."""
        from commenda_customers import __version__

        assert main(["--version"]) == 0
        assert __version__ in capfd.readouterr().out

    @pytest.mark.parametrize(
        ("missing", "code", "complaint"),
        [
            ("click", 2, "error: the command line needs more packages: pip install 'commenda-customers[cli]'"),
            ("commenda_customers.cli._list", 1, "ModuleNotFoundError: import of commenda_customers.cli._list halted"),
        ],
    )
    def test_the_extra_is_asked_for(self, missing: str, code: int, complaint: str) -> None:
        """Without the packages of the command line it says how to get them; anything else that is missing is not hidden."""
        program = (
            f"import sys; sys.modules['{missing}'] = None\n"
            "from commenda_customers.cli import main\n"
            "sys.exit(main(['demo']))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stderr.splitlines()[-1].startswith(complaint)
