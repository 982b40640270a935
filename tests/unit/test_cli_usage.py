"""The command line without a server: help, usage errors, interrupts."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from commenda_customers.cli import main
from commenda_customers.testing import Emulator

EXPORT = ("export", "--corporation", "c")
JSONL = (*EXPORT, "--output", "a.jsonl")
SECRET = "s3cr3t"


class TestUsage:
    """Arguments that cannot be right."""

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["list"], "Missing argument 'CORPORATION_ID...'"),
            (["list", "corp_1", "--limit", "ten"], "'ten' is not a valid integer"),
            (["list", "corp_1", "--limit", "101"], "101 is not in the range 1<=x<=100"),
            (["list", "corp_1", "--max", "0"], "0 is not in the range x>=1"),
            (["list", "corp_1", "--timeout", "-1"], "timeout: must be above 0"),
            (["list", "corp_1", "--deadline", "nan"], "deadline: must be above 0"),
            (["list", "corp_1", "corp_2", "--cursor", "x"], "--cursor: needs a single corporation"),
            (["list", "corp_1", "corp_2", "corp_1"], "'corp_1' is given twice"),
            (["list", "corp_1", ""], "corporation_id: must not be empty"),
            (["list", "corp_1", "--base-url", "ftp://x"], "base_url: must begin with https"),
            (["list", "corp_1", "--base-url", ""], "base_url: must not be empty"),
            ([*JSONL, "--base-url", " "], "base_url: must not be empty"),
            (["list", "corp_1", "--extend", "a,,b"], "extend[1]: must not be empty"),
            (["list", "corp_1", "--serch-term", "x"], "No such option"),
            (["lst"], "No such command"),
            (["export", "--output", "a.jsonl"], "name the corporations with --corporation or --corporations-from"),
            ([*EXPORT], "Missing option '--output'"),
            ([*EXPORT, "--output", "a.txt"], ".jsonl, .ndjson (also with .gz or .zst) for jsonl"),
            ([*EXPORT, "--output", "a.db.gz"], "cannot tell the format from the name 'a.db.gz'"),
            ([*EXPORT, "--output", ""], "cannot tell the format from the name ''"),
            ([*EXPORT, "--output", "a.txt", "--format", "xml"], "'xml' is not one of 'sqlite'"),
            ([*EXPORT, "--output", "-", "--format", "csv"], "standard output supports only JSON Lines"),
            ([*EXPORT, "--output", "/dev/null", "--format", "jsonl"], "/dev/null exists, and is not a regular file"),
            ([*EXPORT, "--output", "/", "--format", "jsonl"], "/ exists, and is not a regular file"),
            ([*EXPORT, "--output", __file__, "--format", "parquet"], "exists, and is not a folder"),
            ([*JSONL, "--corporation", "c"], "--corporation: 'c' is given twice, the first time with --corporation"),
            ([*JSONL, "--corporation", ""], "--corporation: corporation_id: must not be empty"),
            ([*JSONL, "--corporations-from", "missing"], "--corporations-from: missing: No such file or directory"),
            ([*JSONL, "--summary-json", "-"], "'-' is not the name of a file in an existing folder"),
            ([*JSONL, "--rate", "fast"], "'fast' is not of the form REQUESTS/PERIOD"),
            ([*JSONL, "--rate", "0/s"], "'0/s' is not of the form REQUESTS/PERIOD"),
            ([*JSONL, "--quota", "redis://h/0"], "is not of the form URL#NAME, such as redis://localhost:6379/0#prod"),
            ([*JSONL, "--quota", "redis://h/0#"], "is not of the form URL#NAME"),
            ([*JSONL, "--quota", f"redis://:1#{SECRET}@h/0"], "in a password, write %23 for #"),
            ([*JSONL, "--quota", f"redis://:1#{SECRET}@h/0#prod"], "in a password, write %23 for #"),
            ([*JSONL, "--quota", f"http://:{SECRET}@h/0#prod"], "url: must begin with redis://"),
            (["list", "corp_1", "--quota", f"redis://:{SECRET}@h:port/0#prod"], "url: is not a URL"),
            (["list", "corp_1", "--quota", "redis://h#{a}"], "quota: must not contain braces"),
            ([*JSONL, "--quota", "redis://h#prod", "--rate", "10"], "--rate and --quota (or COMMENDA_QUOTA) exclude"),
            ([*JSONL, "--shard", "0/8"], "'0/8' is not of the form NUMBER/SHARDS"),
            ([*JSONL, "--shard", "9/8"], "'9/8' is not of the form NUMBER/SHARDS"),
            ([*JSONL, "--shard", "2"], "'2' is not of the form NUMBER/SHARDS"),
            ([*JSONL, "--limit", "101"], "101 is not in the range"),
            ([*JSONL, "--extend", "a,,b"], "extend[1]: must not be empty"),
            ([*JSONL, "--summary-json", "missing/s.json"], "'missing/s.json' is not the name of a file"),
            ([*JSONL, "--summary-json", "/"], "'/' is not the name of a file"),
            (["emulate", "--corporation", "corp_1"], "'corp_1' is not of the form ID=CUSTOMERS"),
            (["emulate", "--corporation", f"a={'9' * 5000}"], "is not of the form ID=CUSTOMERS"),
            (["emulate", "--fault", "drop"], "'drop' is not of the form KIND=PROBABILITY"),
            (["emulate", "--fault", "drap=0.1"], "KIND is one of cut-body, drop"),
            (["emulate", "--fault", "drop=7"], "PROBABILITY is from 0 to 1"),
        ],
    )
    def test_usage_errors_say_where_help_is(
        self, args: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A usage error is exit code 2, a line that says what is wrong, and a line that says how to get help."""
        monkeypatch.setenv("COMMENDA_API_TOKEN", "token")
        assert main(args) == 2
        printed, complained = capfd.readouterr()
        assert printed == ""
        error, hint = complained.splitlines()
        assert error.startswith("error: ")
        assert words in error
        assert SECRET not in complained
        command = "commenda-customers" if args == ["lst"] else f"commenda-customers {args[0]}"
        assert hint == f"Try '{command} --help' for help."

    def test_a_missing_token_is_a_usage_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        """A missing token is a usage error that names the environment variable."""
        assert main(["list", "corp_1"]) == 2
        error = capfd.readouterr().err.splitlines()[0]
        assert error == "error: token: the environment variable COMMENDA_API_TOKEN is missing or empty"

    def test_a_wrong_quota_of_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The quota may come from the environment. Then an error names the variable, and does not repeat the password."""
        monkeypatch.setenv("COMMENDA_LOG", "")  # restores what `--debug` sets
        monkeypatch.setenv("COMMENDA_QUOTA", f"redis://:{SECRET}@h/database#prod")
        assert main(["list", "corp_1", "--debug"]) == 2
        complained = capfd.readouterr().err
        assert "COMMENDA_QUOTA" in complained
        assert "url: the database must be a number" in complained
        assert SECRET not in complained

    def test_a_quota_needs_an_extra(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """If the extra is not installed, one line says how to install it."""
        for name in [name for name in sys.modules if name.startswith("commenda_customers.limits._redis")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, "commenda_customers.limits.redis", raising=False)
        monkeypatch.setitem(sys.modules, "redis", None)
        assert main([*JSONL, "--quota", "redis://h/0#prod"]) == 2
        error = capfd.readouterr().err.splitlines()[0]
        assert error == "error: --quota needs the extra 'redis': pip install '/path/to/clone[cli,redis]'"

    def test_an_interrupt_before_any_request(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Ctrl-C before the first request is exit code 130 and one word."""

        def interrupted(*_args: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("commenda_customers.cli._list.anyio.run", interrupted)
        assert main(["list", "corp_1"]) == 130
        assert capfd.readouterr().err == "interrupted\n"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"a\nb c\n", "ids.txt, line 2: 'b c' has a space; write one id on each line"),
            (b"a\n\n# b\nb\na\n", "ids.txt, line 5: 'a' is given twice, the first time in line 1"),
            (b"a\nb\xff\n", "ids.txt, line 2: is not UTF-8 text"),
            (b"a\n" + b"x" * 70_000, "ids.txt, line 2: corporation_id: 70,000 characters are too long for a URL"),
            (b"\n# nothing\n", "ids.txt names no corporation"),
        ],
    )
    def test_a_file_of_corporations(
        self,
        text: bytes,
        words: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """What is wrong in a file of corporations is named with its line, before anything is read or written."""
        monkeypatch.chdir(tmp_path)
        Path("ids.txt").write_bytes(text)
        assert main(["export", "--corporations-from", "ids.txt", "--output", "a.jsonl"]) == 2
        assert words in capfd.readouterr().err.splitlines()[0]
        assert [path.name for path in tmp_path.iterdir()] == ["ids.txt"]

    def test_an_interrupted_export_resumes(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """Where the system has no signals, an interrupt still says how to resume."""

        def interrupted(*_args: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("commenda_customers.cli._export.anyio.run", interrupted)
        assert main([*JSONL]) == 130
        assert capfd.readouterr().err == "interrupted\nto resume, run the same command again\n"


class TestHelp:
    """`--help` and `--version`."""

    @pytest.mark.parametrize("args", [[], ["list"], ["export"], ["demo"], ["emulate"]], ids=" ".join)
    def test_everything_has_help(self, args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
        """Each command explains itself, and each option has a text."""
        assert main([*args, "--help"]) == 0
        printed = capfd.readouterr().out
        assert printed.startswith("Usage: commenda-customers")
        for line in printed.partition("Options:")[2].splitlines():
            # A long option has its text on the next line.
            assert not line.startswith("  -") or len(line.split("  ")) > 2 or len(line) > 28

    @pytest.mark.parametrize("command", ["list", "export"])
    def test_no_option_takes_the_token(self, command: str, capfd: pytest.CaptureFixture[str]) -> None:
        """All users of a machine can see the arguments of a process, so the token comes from the environment only."""
        assert main([command, "--help"]) == 0
        assert "--token" not in capfd.readouterr().out
        assert main([command, "--corporation", "c", "--token", "s3cr3t"]) == 2

    def test_without_arguments_it_shows_help(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Without arguments the command shows its help, as a usage error."""
        assert main([]) == 2
        assert "\nCommands:\n" in capfd.readouterr().err

    def test_an_interrupt_while_it_loads(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """Ctrl-C before the command has begun is an interrupt like any other."""

        def interrupted(_args: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr("commenda_customers.cli._group.run", interrupted)
        assert main(["demo"]) == 130
        assert capfd.readouterr().err == "interrupted\n"

    def test_it_can_be_called_by_a_program(self) -> None:
        """A program that has redirected its output may call `main` itself."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["demo", "--help"]) == 0
        assert "Stream several corporations" in printed.getvalue()

    def test_the_version(self, capfd: pytest.CaptureFixture[str]) -> None:
        """`--version` prints the version."""
        from commenda_customers import __version__

        assert main(["--version"]) == 0
        assert __version__ in capfd.readouterr().out


class TestEmulate:
    """`commenda-customers emulate`."""

    def test_only_a_taken_port_is_a_usage_error(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Any other error of the system is exit code 1."""

        async def fail(_self: Emulator) -> Emulator:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Emulator, "__aenter__", fail)
        assert main(["emulate", "--port", "0"]) == 1
        assert capfd.readouterr().err == "error: [Errno 28] No space left on device\n"
