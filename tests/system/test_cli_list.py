"""`commenda-customers list`: the output, the messages and the exit codes."""

import json
import re
import shlex
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from commenda_customers import Customer
from commenda_customers.cli import main
from commenda_customers.query import CustomerFilters
from commenda_customers.testing import Emulator, faults
from emulated import ServeEmulator


def ids_in(printed: str) -> list[str]:
    """Return the ids of customers that were printed as JSON lines."""
    return [json.loads(line)["id"] for line in printed.splitlines()]


def ids_of(server: Emulator, *corporation_ids: str) -> list[str]:
    """Return the ids of all customers of some corporations."""
    return [customer["id"] for name in corporation_ids for customer in server.customers(name)]


def advice(complained: str) -> Sequence[list[str]]:
    """Return the arguments of the runs that print the rest."""
    lines = [line.split(": ", 1) for line in complained.splitlines()]
    return [shlex.split(line[1]) for line in lines if line[0] in {"to resume", "not read yet"}]


def error_of(complained: str) -> str:
    """Return the line that names the error, after the lines for retries."""
    return next(line for line in complained.splitlines() if line.startswith("error: "))


class TestList:
    """`commenda-customers list`."""

    def test_json_lines_where_there_is_no_terminal(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """A pipe receives one JSON object on each line. The model reads it back."""
        server = serve({"corp_1": 250}, faults=[faults.EmptyPage(at=[2])])
        assert main(["list", "corp_1", "--extend", "shipping_address,exemption_metadata"]) == 0
        printed, complained = capfd.readouterr()
        customers = [Customer.model_validate_json(line) for line in printed.splitlines()]
        expected = server.customers("corp_1", extend="shipping_address,exemption_metadata")
        assert customers == [Customer.model_validate(customer) for customer in expected]
        assert complained == ""

    def test_invalid_rows_can_be_skipped(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """By default, an invalid row is an error. With `--skip-invalid`, the others are printed, and the row is named."""
        good = {"id": "a", "corporation_id": "corp_1"}
        serve({"corp_1": [good, {**good, "id": "b", "name": 5}, None]})
        assert main(["list", "corp_1"]) == 1
        printed, complained = capfd.readouterr()
        assert printed == ""
        assert "row 1 (id 'b'): name: Input should be a valid string" in " ".join(complained.split())
        assert main(["list", "corp_1", "--skip-invalid"]) == 0
        printed, complained = capfd.readouterr()
        assert [json.loads(line)["id"] for line in printed.splitlines()] == ["a"]
        assert complained.splitlines() == [
            "not valid: corporation 'corp_1', row 1 of a page, id 'b': name: Input should be a valid string",
            "not valid: corporation 'corp_1', row 2 of a page, id None: the row is not an object",
        ]

    def test_missing_customers_are_a_warning(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """If the server counts more customers than it sends, there is a warning. With `--cursor`, there is none."""

        class Miscount(faults.Fault):
            def change_listing(self, listing: Any, asked: str | None, again: str) -> Any:
                return {**listing, "total_customers": 7}

        serve({"corp_1": 5}, faults=[Miscount()])
        assert main(["list", "corp_1"]) == 0
        assert capfd.readouterr().err == "warning: the server counted 7 customers, but sent 5\n"

    @pytest.mark.parametrize(("flag", "is_json"), [("--json", True), ("--table", False)])
    def test_the_form_can_be_chosen(
        self, flag: str, is_json: bool, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """`--json` and `--table` choose the format, wherever the output goes."""
        serve({"corp_1": 1})
        assert main(["list", "corp_1", flag]) == 0
        assert capfd.readouterr().out.startswith("{") == is_json

    def test_a_name_cannot_control_the_terminal(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """A table shows no control characters of the server's data, and does not interpret its markup."""

        class Hostile(faults.Fault):
            def change_listing(self, listing: Any, asked: str | None, again: str) -> Any:
                return {**listing, "customers": [{**c, "name": "\x1b[2J[red]x\r\n"} for c in listing["customers"]]}

        serve({"corp_1": 1}, faults=[Hostile(probability=1)])
        assert main(["list", "corp_1", "--table"]) == 0
        printed = capfd.readouterr().out
        assert "\x1b" not in printed
        assert "[2J[red]x" in printed

    def test_all_filters_are_options(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Each parameter of the API is an option and reaches the server. Lists are separated by commas or repeated."""
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

    def test_retries_are_reported_on_standard_error(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Each retry is one line on standard error."""
        serve({"corp_1": 20}, faults=[faults.Status(at=[1])])
        assert main(["list", "corp_1"]) == 0
        printed, complained = capfd.readouterr()
        assert len(printed.splitlines()) == 20
        assert complained.startswith("the server answered 503 Service Unavailable: ")
        assert "; retrying in 0." in complained
        assert complained.count("\n") == 1

    def test_a_refused_cursor_is_not_proposed_again(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """If the server has just refused a cursor, the command does not propose it again."""
        serve({"corp_1": 20})
        assert main(["list", "corp_1", "--cursor", "garbage"]) == 1
        assert "to resume" not in capfd.readouterr().err

    def test_an_error_prints_the_cursor_to_resume_from(
        self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """If the API fails, the exit code is 1, and there are two lines: the error, and the option to resume."""
        server = serve({"corp_1": 20}, faults=[faults.WrongEnvelope(at=[2])])
        assert main(["list", "corp_1", "--limit", "10"]) == 1
        printed, complained = capfd.readouterr()
        assert complained.startswith("error: the response has neither documented envelope")
        assert complained.splitlines()[1].startswith("to resume: --cursor ")
        option = shlex.split(complained.splitlines()[1].partition(": ")[2])
        assert main(["list", "corp_1", "--limit", "10", *option]) == 0
        ids = [json.loads(line)["id"] for line in (printed + capfd.readouterr().out).splitlines()]
        assert ids == [customer["id"] for customer in server.customers("corp_1")]

    @pytest.mark.parametrize("form", ["--json", "--table"])
    def test_no_customers_are_no_table(self, form: str, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """If there are no customers, there is no heading, but a message."""
        serve({"corp_1": 0})
        assert main(["list", "corp_1", form]) == 0
        assert capfd.readouterr() == ("", "no customers match\n")

    def test_forced_colours_are_no_terminal(
        self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pipe gets JSON Lines and no progress, even if the environment asks for colours."""
        serve({"corp_1": 1})
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert main(["list", "corp_1"]) == 0
        printed, complained = capfd.readouterr()
        assert len(ids_in(printed)) == 1
        assert complained == ""


class TestSeveralCorporations:
    """`commenda-customers list corp_1 corp_2`."""

    def test_one_after_the_other(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """The command prints one corporation after the other, in the order of the arguments."""
        server = serve({"corp_1": 12, "corp_2": 25, "corp_3": 3})
        assert main(["list", "corp_2", "corp_3", "corp_1", "--limit", "10"]) == 0
        printed, complained = capfd.readouterr()
        assert ids_in(printed) == ids_of(server, "corp_2", "corp_3", "corp_1")
        assert complained == ""

    def test_the_table_names_them(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """One table has all corporations, with a column for their ids. For a single corporation, there is no such column."""
        serve({"corp_1": 2, "corp_2": 3})
        assert main(["list", "corp_1", "corp_2", "--table"]) == 0
        head, *rows = capfd.readouterr().out.splitlines()
        assert head.split() == ["corporation", "id", "name", "email", "cre…", "plat…"]
        assert [row.split()[0] for row in rows] == ["corp_1"] * 2 + ["corp_2"] * 3
        assert main(["list", "corp_1", "--table"]) == 0
        assert "corp" not in capfd.readouterr().out.splitlines()[0]

    def test_messages_name_them(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Each message names its corporation."""

        class Miscount(faults.Fault):
            def change_listing(self, listing: Any, asked: str | None, again: str) -> Any:
                return {**listing, "total_customers": 7}

        serve({"corp_1": 0, "corp_2": 5}, faults=[Miscount(corporation_id="corp_2")])
        assert main(["list", "corp_1", "corp_2"]) == 0
        assert capfd.readouterr().err.splitlines() == [
            "corp_1: no customers match",
            "warning: corp_2: the server counted 7 customers, but sent 5",
        ]

    def test_a_failure_says_what_is_left(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """After a failure, one run resumes the list that failed. Another run reads the lists that had not begun."""
        server = serve(
            {"corp_1": 5, "corp_2": 25, "corp_3": 3, "corp_4": 4},
            faults=[faults.WrongEnvelope(corporation_id="corp_2", at=[2])],
        )
        assert main(["list", "corp_1", "corp_2", "corp_3", "corp_4", "--limit", "10"]) == 1
        printed, complained = capfd.readouterr()
        resume, unread = advice(complained)
        assert resume[0] == "corp_2"
        assert unread == ["corp_3", "corp_4"]
        for args in (resume, unread):
            assert main(["list", "--limit", "10", *args]) == 0
        assert ids_in(printed + capfd.readouterr().out) == ids_of(server, "corp_1", "corp_2", "corp_3", "corp_4")

    @pytest.mark.parametrize("status", [400, 403, 404])
    @pytest.mark.parametrize(
        ("failing", "unread"),
        [("corp_1", [["corp_2", "corp_3"]]), ("corp_2", [["corp_3"]]), ("corp_3", [])],
    )
    def test_a_refused_list_is_not_proposed_again(
        self, failing: str, unread: list[list[str]], status: int, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The hints leave out a list that the server has refused, and name the lists after it."""
        serve({"corp_1": 5, "corp_2": 5, "corp_3": 5}, faults=[faults.Status(status, corporation_id=failing)])
        assert main(["list", "corp_1", "corp_2", "corp_3"]) == 1
        assert advice(capfd.readouterr().err) == unread


class TestMax:
    """`commenda-customers list --max`."""

    @pytest.mark.parametrize(
        ("wanted", "requests", "repeated"),
        [
            (7, [7], 0),  # less than a page: a smaller page
            (10, [10], 0),
            (20, [10, 10], 0),
            (24, [10, 10, 10], 4),  # within a page: another run reads it again
        ],
    )
    def test_it_stops_and_says_how_to_resume(
        self,
        wanted: int,
        requests: list[int],
        repeated: int,
        serve: ServeEmulator,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """It prints this number of customers, requests no unneeded page, and proposes a run that prints all others."""
        server = serve({"corp_1": 50})
        assert main(["list", "corp_1", "--limit", "10", "--max", str(wanted)]) == 0
        printed, complained = capfd.readouterr()
        assert ids_in(printed) == ids_of(server, "corp_1")[:wanted]
        assert [int(request.params["limit"]) for request in server.requests] == requests
        again = f"; the next run prints the last {repeated} again" if repeated else ""
        assert complained.splitlines()[0] == f"stopped after {wanted} customers; there may be more{again}"
        (resume,) = advice(complained)
        assert main(["list", "corp_1", "--limit", "10", *resume]) == 0
        assert ids_in(capfd.readouterr().out) == ids_of(server, "corp_1")[wanted - repeated :]
        assert {request.params["limit"] for request in server.requests} == {str(requests[0])}

    @pytest.mark.parametrize("wanted", [25, 26])
    def test_it_is_quiet_at_the_end(self, wanted: int, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """If there are not more customers than this, there is no message."""
        serve({"corp_1": 25})
        assert main(["list", "corp_1", "--limit", "10", "--max", str(wanted)]) == 0
        printed, complained = capfd.readouterr()
        assert len(ids_in(printed)) == 25
        assert complained == ""

    @pytest.mark.parametrize(
        ("wanted", "lines"),
        [
            (5, ["stopped after 5 customers; there may be more", "not read yet: corp_2 corp_3"]),
            (
                8,
                [
                    "stopped after 8 customers; there may be more; the next run prints the last 3 again",
                    "not read yet: corp_2 corp_3",
                ],
            ),
            (15, ["stopped after 15 customers; there may be more", "to resume: corp_2 --cursor X", "not read yet: corp_3"]),
        ],
    )
    def test_it_counts_all_corporations(
        self, wanted: int, lines: list[str], serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The number applies to all corporations together. The command names those that have not begun."""
        server = serve({"corp_1": 5, "corp_2": 15, "corp_3": 5})
        limit = 5 if wanted == 5 else 10 if wanted == 15 else 8
        assert main(["list", "corp_1", "corp_2", "corp_3", "--max", str(wanted), "--limit", str(limit)]) == 0
        printed, complained = capfd.readouterr()
        assert ids_in(printed) == ids_of(server, "corp_1", "corp_2")[:wanted]
        assert re.sub(r"--cursor \S+", "--cursor X", complained).splitlines() == lines

    def test_a_server_may_send_more_than_was_asked_for(
        self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """If the first page is longer than its limit, the output is cut, and there is no cursor to propose."""

        class TooLong(faults.Fault):
            def change_listing(self, listing: Any, asked: str | None, again: str) -> Any:
                return {**listing, "customers": [{"id": str(n), "corporation_id": "corp_1"} for n in range(10)]}

        serve({"corp_1": 50}, faults=[TooLong()])
        assert main(["list", "corp_1", "--max", "3"]) == 0
        printed, complained = capfd.readouterr()
        assert ids_in(printed) == ["0", "1", "2"]
        assert complained == "stopped after 3 customers; there may be more\n"


class TestPatience:
    """`--timeout` and `--deadline`."""

    def test_the_timeout_of_an_attempt(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """`--timeout` ends an attempt that hangs. The next attempt succeeds."""
        serve({"corp_1": 5}, faults=[faults.Hang(at=[1])])
        assert main(["list", "corp_1", "--timeout", "1"]) == 0
        printed, complained = capfd.readouterr()
        assert len(ids_in(printed)) == 5
        assert complained.startswith("no complete response within the timeout of 1 s")

    def test_the_deadline_of_a_page(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """`--deadline` ends the retries of a page. The command says how to resume."""
        serve({"corp_1": 20}, faults=[faults.Status(pages=[2])])
        assert main(["list", "corp_1", "--limit", "10", "--deadline", "0.5"]) == 1
        printed, complained = capfd.readouterr()
        assert len(ids_in(printed)) == 10
        assert "the server answered 503" in error_of(complained)
        assert len(advice(complained)) == 1

    def test_a_host_that_refuses_connections(
        self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a short `--deadline`, an unreachable host is soon an error."""
        monkeypatch.setenv("COMMENDA_API_TOKEN", "token")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # not listening
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            assert main(["list", "corp_1", "--base-url", url, "--deadline", "0.5"]) == 1
        assert "the connection to 127.0.0.1" in error_of(capfd.readouterr().err)
