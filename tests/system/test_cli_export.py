"""`commenda-customers export`: the output, the messages and the exit codes."""

import csv
import fcntl
import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

import commenda_customers.export
from commenda_customers import Customer
from commenda_customers.cli import main
from commenda_customers.cli._group import commands
from commenda_customers.cli._stop import Stop
from commenda_customers.testing import Emulator, faults
from emulated import ServeEmulator
from gates import MakeGate

COMMAND = [sys.executable, "-m", "commenda_customers", "export"]
SIZES = {"corp_1": 250, "corp_2": 3, "corp_empty": 0}
BOTH = ["--corporation", "corp_1", "--corporation", "corp_2"]
HERE = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*args: str) -> int:
    return main(["export", *args])


def by_corporation(lines: Iterable[str | bytes]) -> dict[str, list[Customer]]:
    """Return the customers of each corporation in a JSON Lines file, in order."""
    found: dict[str, list[Customer]] = {}
    for line in lines:
        customer = Customer.model_validate_json(line)
        found.setdefault(customer.corporation_id, []).append(customer)
    return found


def written(path: str) -> dict[str, list[Customer]]:
    return by_corporation(Path(path).read_bytes().splitlines())


def held_by(server: Emulator, *names: str, **params: str) -> dict[str, list[Customer]]:
    """Return the customers of the server, in the same form."""
    lists = {name: list(server.customers(name, **params)) for name in names or server.corporations}
    return {name: [Customer.model_validate(customer) for customer in rows] for name, rows in lists.items() if rows}


def _damage() -> None:
    Path("a.jsonl.partial").touch()
    Path("a.jsonl.state").write_text("{")


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"c{number}", "corporation_id": "corp_1", **changes}


class TestFormats:
    """`--output` and `--format`."""

    @pytest.mark.parametrize("name", ["customers.jsonl", "customers.NDJSON"])
    def test_json_lines(self, name: str, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """The file has every customer of each corporation, in order. No other file is left in the folder."""
        server = serve(SIZES, faults=[faults.Status(at=[2]), faults.EmptyPage(at=[4])])
        assert export(*BOTH, "--corporation", "corp_empty", "--output", name) == 0
        assert written(name) == held_by(server)
        assert os.listdir() == [name]
        printed, complained = capfd.readouterr()
        assert printed == ""
        assert f"253 customers written to {name}; 3 corporations complete\n" in complained
        assert "1 retry, " in complained

    def test_compressed(self, serve: ServeEmulator) -> None:
        """A second suffix compresses the file."""
        server = serve(SIZES)
        assert export(*BOTH, "--output", "customers.jsonl.gz") == 0
        assert by_corporation(gzip.decompress(Path("customers.jsonl.gz").read_bytes()).splitlines()) == held_by(server)

    @pytest.mark.parametrize("args", [["--format", "jsonl", "--output", "customers.db"], ["--output", "customers.jsonl"]])
    def test_the_format_can_be_given(self, args: list[str], serve: ServeEmulator) -> None:
        """`--format` overrides the suffix of the name."""
        server = serve(SIZES)
        assert export(*BOTH, *args) == 0
        assert written(args[-1]) == held_by(server)

    def test_csv(self, serve: ServeEmulator) -> None:
        """A CSV file has a row for each customer."""
        server = serve(SIZES)
        assert export(*BOTH, "--output", "customers.csv") == 0
        with open("customers.csv", newline="", encoding="utf-8-sig") as file:
            ids = sorted(line["id"] for line in csv.DictReader(file))
        assert ids == sorted(customer.id for each in held_by(server).values() for customer in each)

    def test_sqlite(self, serve: ServeEmulator) -> None:
        """A database has a row for each customer. The same command begins the next sync."""
        server = serve(SIZES)
        for _ in range(2):
            assert export(*BOTH, "--output", "customers.db") == 0
            connection = sqlite3.connect("customers.db")
            ids = sorted(name for (name,) in connection.execute("SELECT id FROM customers"))
            connection.close()
            assert ids == sorted(customer.id for each in held_by(server).values() for customer in each)

    @pytest.mark.parametrize("exists", [True, False])
    def test_parquet(self, exists: bool, serve: ServeEmulator) -> None:
        """A folder, or a name that ends with a slash, means Parquet files with a row for each customer."""
        import duckdb

        server = serve(SIZES)
        if exists:
            os.mkdir("customers")
        assert export(*BOTH, "--output", "customers" if exists else "customers/") == 0
        rows = duckdb.sql("SELECT id FROM read_parquet('customers/**/*.parquet', hive_partitioning=false)").fetchall()
        assert sorted(name for (name,) in rows) == sorted(
            customer.id for each in held_by(server).values() for customer in each
        )

    @pytest.mark.parametrize(
        ("output", "package"),
        [
            ("customers.jsonl.zst", "backports.zstd"),
            ("customers/", "pyarrow"),
        ],
    )
    def test_a_missing_extra_is_a_usage_error(
        self, output: str, package: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """If a format needs a package that is not installed, one line names the extra."""
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, "compression.zstd", None)
        assert export(*BOTH, "--output", output) == 2
        assert "pip install" in capfd.readouterr().err.splitlines()[0]

    def test_a_complete_file_is_replaced_only_if_asked(
        self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The command overwrites a complete file only with `--fresh`."""
        server = serve(SIZES)
        assert export("--corporation", "corp_2", "--output", "a.jsonl") == 0
        before = capfd.readouterr() and Path("a.jsonl").read_bytes()
        assert export(*BOTH, "--output", "a.jsonl") == 2
        assert capfd.readouterr().err.startswith("error: a.jsonl: already exists")
        assert Path("a.jsonl").read_bytes() == before
        assert export(*BOTH, "--output", "a.jsonl", "--fresh") == 0
        assert written("a.jsonl") == held_by(server)

    def test_filters(self, serve: ServeEmulator) -> None:
        """The filters of the API are options. A run with other filters does not resume."""
        server = serve(SIZES)
        fault = faults.Status(403, corporation_id="corp_1", pages=[2])
        server.faults.add(fault)
        assert export(*BOTH, "--extend", "shipping_address", "--limit", "50", "--output", "a.jsonl") == 3
        server.faults.remove(fault)
        assert export(*BOTH, "--output", "a.jsonl") == 2
        assert export(*BOTH, "--extend", "shipping_address", "--output", "a.jsonl") == 0
        assert written("a.jsonl") == held_by(server, extend="shipping_address")
        assert {request.params["limit"] for request in server.requests} == {"50", "100"}


class TestStandardOutput:
    """`--output -`."""

    def test_it_has_every_customer(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Standard output has only JSON Lines. Standard error names every invalid row."""
        server = serve({"corp_1": [*map(row, range(150)), *(row(n, name=n) for n in range(25))], "corp_2": 3})
        assert export(*BOTH, "--output", "-") == 3
        printed, complained = capfd.readouterr()
        assert {name: len(each) for name, each in by_corporation(printed.splitlines()).items()} == {
            "corp_1": 150,
            "corp_2": 3,
        }
        assert complained.count("not valid: corporation 'corp_1'") == 25
        assert by_corporation(printed.splitlines())["corp_2"] == held_by(server, "corp_2")["corp_2"]

    def test_a_closed_pipe_ends_it_quietly(self, serve: ServeEmulator) -> None:
        """If the program that reads the pipe ends, the command ends with code 0, without a message."""
        serve({"corp_1": 20_000})
        command = [*COMMAND, "--corporation", "corp_1", "--output", "-", "--summary-json", "s.json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            complained = process.stderr.read()
            code = process.wait(120)
        assert (code, complained) == (0, b"")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
    def test_a_full_disk(self, serve: ServeEmulator) -> None:
        """If the disk is full, the command prints one line, and ends with exit code 1."""
        serve(SIZES)
        with open("/dev/full", "wb") as full:
            command = [*COMMAND, *BOTH, "--output", "-", "--quiet"]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (1, b"error: [Errno 28] No space left on device\n")


class TestCorporations:
    """`--corporations-from` and `--shard`."""

    @pytest.mark.parametrize("source", ["ids.txt", "-"])
    def test_from_a_file(self, source: str, serve: ServeEmulator) -> None:
        """A file, or standard input, has one id on each line. Blank lines and comments are skipped."""
        server = serve({**SIZES, "größe": 7})
        text = "\ufeff# all of ours\r\n\r\n  corp_2  \r\n#corp_3\ngröße\n"
        Path("ids.txt").write_text(text, encoding="utf-8", newline="")
        command = [*COMMAND, "--corporation", "corp_1", "--corporations-from", source, "--output", "a.jsonl"]
        subprocess.run(command, input=text.encode() if source == "-" else b"", capture_output=True, check=True)
        assert written("a.jsonl") == held_by(server, "corp_1", "corp_2", "größe")

    def test_shares_together_are_all(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Every corporation is in exactly one shard. A shard without corporations is complete."""
        sizes = {f"corp_{number}": number % 7 + 1 for number in range(12)}
        server = serve({**sizes, "lonely": 1})
        Path("ids.txt").write_text("\n".join(sizes))
        found: dict[str, list[Customer]] = {}
        for share in range(1, 6):
            assert export("--corporations-from", "ids.txt", "--shard", f"{share}/5", "--output", f"{share}.jsonl") == 0
            mine = written(f"{share}.jsonl")
            assert not found.keys() & mine.keys()
            found |= mine
        assert found == held_by(server, *sizes)
        capfd.readouterr()
        for share in ("1/3", "2/3", "3/3"):
            assert export("--corporation", "lonely", "--shard", share, "--output", f"lonely{share[0]}.jsonl") == 0
        assert [len(written(f"lonely{share}.jsonl")) for share in "123"].count(0) == 2
        assert capfd.readouterr().err.count("0 corporations complete") == 2

    def test_a_rate(self, serve: ServeEmulator) -> None:
        """The command does not exceed the limit of `--rate`, and spreads the requests evenly."""
        server = serve({"corp_1": 5})
        args = ["--corporation", "corp_1", "--output", "-", "--limit", "1", "--rate"]
        assert export(*args, "3/s") == 0
        times = [request.at for request in server.requests]
        assert times[3] - times[0] > 0.9
        asked = len(server.requests)
        assert export(*args, "180/min") == 0
        times = [request.at for request in server.requests[asked:]]
        assert min(later - earlier for earlier, later in pairwise(times)) > 0.2
        assert export(*args, "10") == 0


class TestPlaces:
    """What an export says about where the customers are."""

    @pytest.mark.parametrize(
        ("output", "unfinished"),
        [("a.csv", "a.csv.partial"), ("a.db", "a.db"), ("parts/", "parts/_partial"), ("a.jsonl.gz", "a.jsonl.gz.partial")],
    )
    def test_an_unfinished_output_is_named(
        self, output: str, unfinished: str, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """If a corporation fails, the summary says where the others are, and how to continue."""
        failing = faults.Status(404, corporation_id="corp_2")
        server = serve({"corp_1": 5, "corp_2": 5}, faults=[failing])
        args = (*BOTH, "--output", output)
        assert export(*args) == 3
        complained = capfd.readouterr().err.splitlines()
        assert f"5 customers written to {unfinished}; 1 corporation complete" in complained
        assert complained[-1] == "not complete: 1 corporation failed; run the same command again"
        server.faults.remove(failing)
        assert export(*args) == 0
        assert f"10 customers written to {output.rstrip('/')}, 5 of them by earlier runs;" in capfd.readouterr().err

    def test_standard_output_counts_each_page(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """The summary of standard output counts all that was printed, also if the export ends early."""
        serve({"corp_1": 250}, faults=[faults.Status(401, pages=[3])])
        assert export("--corporation", "corp_1", "--output", "-") == 1
        printed, complained = capfd.readouterr()
        assert len(printed.splitlines()) == 200
        assert complained.startswith("200 customers written to standard output; 0 corporations complete\n")

    def test_a_refusal_names_the_option(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """A refusal names the option of the command, not the argument of the library."""
        serve({"corp_1": 5})
        Path("a.jsonl").touch()
        assert export("--corporation", "corp_1", "--output", "a.jsonl") == 2
        assert capfd.readouterr().err == "error: a.jsonl: already exists; to replace it, start again with --fresh\n"

    def test_formulas_can_be_left_as_they_are(self, serve: ServeEmulator) -> None:
        """`--no-escape-formulas` writes texts as they are. By default a text that a spreadsheet would run is escaped."""
        serve({"corp_1": [{"id": "1", "corporation_id": "corp_1", "name": "=1+1"}]})
        args = ("--corporation", "corp_1", "--quiet", "--output")
        assert export(*args, "a.csv") == export(*args, "b.csv", "--no-escape-formulas") == 0
        assert "'=1+1" in Path("a.csv").read_text()
        assert ",=1+1" in Path("b.csv").read_text()


class TestOutcome:
    """Failures, exit codes, and the summary."""

    def test_some_fail(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Failed corporations are named. The others are complete. The next run reads only what is missing."""
        server = serve(SIZES)
        fault = faults.Status(403, corporation_id="corp_1", pages=[2])
        server.faults.add(fault)
        args = (*BOTH, "--output", "a.jsonl", "--summary-json", "s.json")
        assert export(*args, "--corporation", "unknown") == 3
        complained = capfd.readouterr().err
        assert "failed: corp_1: the server answered 403 Forbidden" in complained
        assert "failed: unknown: the server answered 404 Not Found" in complained
        assert "not complete: 2 corporations failed" in complained
        summary = json.loads(Path("s.json").read_text())
        assert summary["failures"]["unknown"]["status_code"] == 404
        assert (summary["customers"], summary["is_complete"], summary["error"]) == (103, False, None)
        assert not os.path.exists("a.jsonl")
        server.faults.remove(fault)
        count = len(server.requests)
        assert export(*args) == 0
        assert len(server.requests) <= count + 3  # the page at which it stopped is requested again
        assert (
            "253 customers written to a.jsonl, 103 of them by earlier runs; 2 corporations complete"
            in capfd.readouterr().err
        )
        assert written("a.jsonl") == held_by(server)
        assert json.loads(Path("s.json").read_text())["is_complete"] is True

    def test_many_failures_are_few_lines(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """The command names at most twenty failures. The JSON summary has all."""
        serve()
        Path("ids.txt").write_text("\n".join(f"unknown_{number}" for number in range(33)))
        assert export("--corporations-from", "ids.txt", "--output", "a.jsonl", "--summary-json", "s.json") == 3
        complained = capfd.readouterr().err
        assert complained.count("failed: unknown_") == 20
        assert "and 13 more\n" in complained
        assert len(json.loads(Path("s.json").read_text())["failures"]) == 33

    def test_invalid_rows(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """With invalid rows, the exit code is 3. The command names the first twenty. A file has all of them."""
        serve({"corp_1": [row(0), *(row(n, name=n) for n in range(1, 31))]})
        assert export("--corporation", "corp_1", "--output", "a.jsonl", "--quiet") == 3
        complained = capfd.readouterr().err.splitlines()
        assert complained[0] == (
            "not valid: corporation 'corp_1', row 1 of a page, id 'c1': name: Input should be a valid string"
        )
        assert complained[20:] == ["not valid: 30 rows: see a.jsonl.invalid.jsonl"]
        assert len(Path("a.jsonl.invalid.jsonl").read_text().splitlines()) == 30
        assert len(Path("a.jsonl").read_text().splitlines()) == 1

    def test_what_is_remarkable_is_said(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Shortfalls, refused cursors and discarded corporations are in the summary."""

        class Miscount(faults.Fault):
            def change_listing(self, listing: Any, asked: str | None, again: str) -> Any:
                return {**listing, "total_customers": 7}

        sizes = {f"corp_{number}": 150 for number in range(1, 23)}
        server = serve({**sizes, "short": 5}, faults=[Miscount(corporation_id="short")])
        fault = faults.Status(403, pages=[2])
        server.faults.add(fault)
        ids = [argument for name in sizes for argument in ("--corporation", name)]
        assert export(*ids, "--output", "a.jsonl") == 3
        server.faults.remove(fault)
        server.faults.add(faults.Status(410, corporation_id="corp_1", pages=[2], at=[1]))
        capfd.readouterr()
        assert export("--corporation", "short", "--corporation", "corp_1", "--output", "a.jsonl", "--quiet") == 0
        assert capfd.readouterr().err.splitlines() == [
            "read again from the beginning, because they could not be resumed: corp_1",
            "discarded, because this run does not name them: "
            + ", ".join(f"corp_{number}" for number in range(2, 22))
            + " and 1 more",
            "missing: short: the server counted 2 customers more than it sent",
        ]
        assert written("a.jsonl") == held_by(server, "short", "corp_1")

    def test_nothing_is_said_if_all_is_well(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """With `--quiet`, a complete export prints nothing."""
        serve(SIZES)
        assert export(*BOTH, "--output", "a.jsonl", "--quiet") == 0
        assert capfd.readouterr() == ("", "")

    def test_a_refused_token(
        self, serve: ServeEmulator, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """If the server refuses the token, the export ends with exit code 1. The summary has the reason."""
        serve(SIZES)
        monkeypatch.setenv("COMMENDA_API_TOKEN", "another")
        assert export(*BOTH, "--output", "a.jsonl", "--summary-json", "s.json") == 1
        complained = capfd.readouterr().err.splitlines()
        assert complained[-2].startswith("error: the server answered 401 Unauthorized")
        assert complained[-1] == "the token is that of the environment variable COMMENDA_API_TOKEN"
        assert json.loads(Path("s.json").read_text())["error"]["type"] == "AuthenticationError"

    def test_too_many_failures(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """`--max-failures` ends the export. It commits all pages that it has, and the next run can resume."""
        serve(SIZES, faults=[faults.Status(403, corporation_id="corp_1", pages=[2])])
        args = ("--output", "a.jsonl", "--max-failures", "0", "--concurrency", "1")
        assert export("--corporation", "corp_2", "--corporation", "corp_1", *args) == 1
        complained = capfd.readouterr().err.splitlines()
        assert complained[-2].startswith("error: the server answered 403")
        assert complained[-1] == "to resume, run the same command again"
        assert complained[0] == "103 customers written to a.jsonl.partial; 1 corporation complete"
        assert len(complained) == 4

    @pytest.mark.parametrize("corporations", [1, 30])
    def test_an_unreachable_host(self, corporations: int, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """If no first page arrives, the whole export fails soon, however many corporations there are."""
        serve()
        Path("ids.txt").write_text("\n".join(f"corp_{number}" for number in range(corporations)))
        args = ("--corporations-from", "ids.txt", "--output", "a.jsonl", "--concurrency", "2", "--summary-json", "s.json")
        assert export(*args, "--base-url", "http://127.0.0.1:1", "--deadline", "0.2") == 1
        assert "the connection to 127.0.0.1:1 failed" in capfd.readouterr().err.splitlines()[-1]
        failures = json.loads(Path("s.json").read_text())["failures"]
        assert len(failures) < 4

    @pytest.mark.parametrize(
        ("output", "prepare", "ends"),
        [
            ("missing/a.jsonl", lambda: None, (1, "/missing/a.jsonl.lock'")),
            ("a.jsonl", _damage, (2, "a.jsonl.state: is damaged")),
            ("a.jsonl", lambda: Path("a.jsonl.partial").write_text("{}"), (2, "a.jsonl.partial: has no state file")),
            pytest.param(
                "locked/a.jsonl",
                lambda: os.mkdir("locked", 0o500),
                (1, "/locked/a.jsonl.lock'"),
                marks=pytest.mark.skipif(not os.getuid(), reason="root may write everywhere"),
            ),
        ],
    )
    def test_an_output_that_cannot_be_used(
        self, output: str, prepare: Callable[[], object], ends: tuple[int, str], serve: ServeEmulator, capfd: Any
    ) -> None:
        """If the output cannot be used, the command prints one line before any request."""
        server = serve(SIZES)
        prepare()
        assert export(*BOTH, "--output", output, "--quiet") == ends[0]
        complained = capfd.readouterr().err
        assert complained.startswith("error: ")
        assert ends[1] in complained
        assert complained.count("\n") == 1
        assert server.requests == []

    def test_a_summary_does_not_replace_the_output(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """The summary cannot have the name of the output, however it is written."""
        server = serve(SIZES)
        assert export(*BOTH, "--output", "a.jsonl", "--summary-json", "./a.jsonl") == 2
        assert "--summary-json and --output are the same file" in capfd.readouterr().err
        assert (server.requests, os.listdir()) == ([], [])

    def test_an_output_in_use(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Two exports never write to the same output."""
        server = serve(SIZES)
        with open("a.jsonl.lock", "wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert export(*BOTH, "--output", "a.jsonl", "--summary-json", "s.json") == 2
        assert capfd.readouterr().err == "error: a.jsonl: another export is writing to it\n"
        assert json.loads(Path("s.json").read_text())["error"]["type"] == "OutputRefusedError"
        assert server.requests == []

    def test_a_full_disk(self, serve: ServeEmulator) -> None:
        """If the disk is full, the export fails with one line. When there is space again, the same command resumes."""
        server = serve({"corp_1": 3000})
        command = [*COMMAND, "--corporation", "corp_1", "--output", "a.jsonl", "--quiet", "--commit-every", "2"]
        full = ["bash", "-c", 'ulimit -f 300; exec "$@"', "bash"]
        done = subprocess.run([*full, *command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"error: [Errno 27] File too large: '{Path('a.jsonl.partial').absolute()}'\n"
            "to resume, run the same command again\n"
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert written("a.jsonl") == held_by(server)
        assert len(server.requests) < 60

    @pytest.mark.parametrize("is_well", [True, False])
    def test_a_summary_that_cannot_be_written(
        self, is_well: bool, serve: ServeEmulator, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """If the summary cannot be written, the command says so and fails. The output is still complete."""

        def full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device", str(path))

        serve(SIZES, faults=[] if is_well else [faults.Status(401)])
        monkeypatch.setattr("commenda_customers.cli._report.write_whole", full)
        assert export(*BOTH, "--output", "a.jsonl", "--summary-json", "s.json", "--quiet") == 1
        complained = capfd.readouterr().err.splitlines()
        assert complained[0] == "error: [Errno 28] No space left on device: 's.json'"
        assert len(complained) == (1 if is_well else 3)
        assert os.path.exists("a.jsonl") == is_well

    def test_a_summary_into_a_pipe(self, serve: ServeEmulator) -> None:
        """The summary can go to a pipe or a device. It is not replaced by a file."""
        serve(SIZES)
        command = [*COMMAND, *BOTH, "--output", "a.jsonl", "--quiet", "--summary-json", "/dev/stdout"]
        done = subprocess.run(command, capture_output=True, check=True)
        assert json.loads(done.stdout)["customers"] == 253

    def test_progress_of_a_script(
        self, serve: ServeEmulator, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Without a terminal, the export prints a line with its progress now and then. With `--quiet`, it prints none."""
        monkeypatch.setattr("commenda_customers.cli._progress._SECONDS_BETWEEN_LINES", 0.01)
        serve(SIZES, latency=0.05)
        assert export(*BOTH, "--output", "a.jsonl", "--limit", "50") == 0
        complained = capfd.readouterr().err
        assert "waiting for the first page" in complained
        assert "1 of 2 corporations done, 1 in flight, 0 failed; " in complained
        assert export(*BOTH, "--output", "a.jsonl", "--limit", "50", "--fresh", "--quiet") == 0
        assert capfd.readouterr().err == ""


class TestInterrupts:
    """Ctrl-C and SIGTERM."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_saves_and_resumes(self, number: signal.Signals, serve: ServeEmulator, make_gate: MakeGate) -> None:
        """At a signal, the export commits its pages, and ends. The same command then has every customer exactly once."""
        gate = make_gate(at=[30])
        sizes = {f"corp_{index}": 40 * index for index in range(20)}
        server = serve(sizes, faults=[gate])
        Path("ids.txt").write_text("\n".join(sizes))
        command = [*COMMAND, "--corporations-from", "ids.txt", "--output", "a.jsonl", "--summary-json", "s.json"]
        with subprocess.Popen([*command, "--concurrency", "1"], stderr=subprocess.PIPE, text=True) as process:
            assert gate.was_reached.wait(120)
            process.send_signal(number)
            _, complained = process.communicate(timeout=120)
        gate.is_open.set()
        assert process.returncode == 128 + number
        assert complained.splitlines()[-1] == "interrupted; to resume, run the same command again"
        summary = json.loads(Path("s.json").read_text())
        assert summary["error"] == {"type": "Interrupted", "message": f"interrupted by {number.name}"}
        assert summary["pages"] == 29
        assert not os.path.exists("a.jsonl")
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0
        assert f", {summary['customers']:,} of them by earlier runs" in done.stderr
        assert written("a.jsonl") == held_by(server)
        assert sorted(os.listdir()) == ["a.jsonl", "ids.txt", "s.json"]

    def test_a_second_signal_ends_it_at_once(self, serve: ServeEmulator, make_gate: MakeGate) -> None:
        """During the last commit, a second Ctrl-C ends the export. Earlier commits are safe."""
        gate = make_gate(at=[5])
        server = serve({"corp_1": 1000}, faults=[gate])
        # The disk hangs as soon as the test says so.
        program = """if True:
            import os, sys, time
            from commenda_customers.export import JSONLinesFile
            from commenda_customers.cli import main
            commit = JSONLinesFile._commit
            def slow(self, checkpoint):
                while os.path.exists("hang"):
                    os.close(os.open("hanging", os.O_CREAT | os.O_WRONLY))
                    time.sleep(0.01)
                commit(self, checkpoint)
            JSONLinesFile._commit = slow
            sys.exit(main(sys.argv[1:]))
        """
        args = ["export", "--corporation", "corp_1", "--output", "a.jsonl", "--commit-every", "3"]
        with subprocess.Popen([sys.executable, "-c", program, *args], stderr=subprocess.PIPE) as process:
            assert gate.was_reached.wait(120)
            Path("hang").touch()
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)  # a wrapper sends it twice: that counts once
            while not os.path.exists("hanging"):
                assert process.poll() is None
            while process.poll() is None:  # a person presses it again
                process.send_signal(signal.SIGINT)
                time.sleep(0.05)
            _, complained = process.communicate(timeout=120)
        gate.is_open.set()
        assert process.returncode == 130
        assert complained.endswith(b"interrupted while saving; run the same command again\n")
        assert export(*args[1:]) == 0
        assert written("a.jsonl") == held_by(server)

    def test_signals_after_another_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the export ends for another reason, Ctrl-C does not hide it. A second Ctrl-C still ends it immediately."""
        codes: list[int] = []
        monkeypatch.setattr("os._exit", codes.append)

        async def run() -> Exception | None:
            stop = Stop()
            stop.because(OSError("the reason"))
            async with anyio.create_task_group() as tasks:
                await tasks.start(stop.watch_signals, lambda: None)
                while not codes:
                    signal.raise_signal(signal.SIGINT)
                    await anyio.sleep(0.05)
                tasks.cancel_scope.cancel()
            return await stop.outcome_of(anyio.sleep_forever)

        assert str(anyio.run(run)) == "the reason"
        assert codes == [130]

    def test_an_interrupted_pipe_cannot_resume(self, serve: ServeEmulator, make_gate: MakeGate) -> None:
        """An export to standard output cannot resume. So the command does not suggest this."""
        gate = make_gate(at=[2])
        serve({"corp_1": 1000}, faults=[gate])
        command = [*COMMAND, "--corporation", "corp_1", "--output", "-", "--quiet"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert gate.was_reached.wait(120)
            process.send_signal(signal.SIGINT)
            printed, complained = process.communicate(timeout=120)
        gate.is_open.set()
        assert (process.returncode, complained) == (130, b"interrupted\n")
        assert len(by_corporation(printed.splitlines())["corp_1"]) == 100

    def test_what_is_ignored_stays_ignored(self, serve: ServeEmulator, make_gate: MakeGate) -> None:
        """If a shell has set the process to ignore Ctrl-C, as for background jobs, it ignores Ctrl-C."""
        gate = make_gate(at=[2])
        server = serve({"corp_1": 300}, faults=[gate])
        command = ["bash", "-c", "trap '' INT; exec \"$@\"", "bash", *COMMAND]
        with subprocess.Popen([*command, "--corporation", "corp_1", "--output", "a.jsonl", "--quiet"]) as process:
            assert gate.was_reached.wait(120)
            process.send_signal(signal.SIGINT)
            gate.is_open.set()
            assert process.wait(120) == 0
        assert written("a.jsonl") == held_by(server)

    def test_a_thread_gets_no_signals(self, serve: ServeEmulator) -> None:
        """A program may run the command in a thread."""
        server = serve(SIZES)
        assert anyio.run(anyio.to_thread.run_sync, export, *BOTH, "--output", "a.jsonl") == 0
        assert written("a.jsonl") == held_by(server)


EXAMPLES = [
    line.strip()
    for line in (commands.commands["export"].help or "").splitlines()
    if line.strip().startswith("commenda-customers export")
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_help_run(example: str, serve: ServeEmulator) -> None:
    """Each example of `--help` runs without changes."""
    for suffix, sink in {".db": "SQLiteDatabase", ".csv": "CSVFile"}.items():
        if suffix in example and not hasattr(commenda_customers.export, sink):
            pytest.skip(f"there is no {sink} yet")
    serve({f"corp_{number}": 120 for number in range(1, 21)})
    Path("corporations.txt").write_text("".join(f"corp_{number}\n" for number in range(1, 21)))
    env = {**os.environ, "PATH": f"{HERE}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", example], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(EXAMPLES) >= 4
