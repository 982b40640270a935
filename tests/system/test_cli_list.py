"""`commenda-customers list`: what it prints, where, and with which exit code."""

import json
import shlex
from typing import Any

import pytest

from commenda_customers import Customer
from commenda_customers.cli import main
from commenda_customers.query import CustomerFilters
from commenda_customers.testing import faults
from emulated import ServeEmulator


class TestList:
    """`commenda-customers list`."""

    def test_json_lines_where_there_is_no_terminal(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """A pipe receives one JSON object per line for each customer, which the model reads back."""
        server = serve({"corp_1": 250}, faults=[faults.EmptyPage(at=[2])])
        assert main(["list", "corp_1", "--extend", "shipping_address,exemption_metadata"]) == 0
        printed, complained = capfd.readouterr()
        customers = [Customer.model_validate_json(line) for line in printed.splitlines()]
        expected = server.customers("corp_1", extend="shipping_address,exemption_metadata")
        assert customers == [Customer.model_validate(customer) for customer in expected]
        assert complained == ""

    def test_invalid_rows_can_be_skipped(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """By default an invalid row is an error; with `--skip-invalid` the others are printed, and the row is named."""
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
            "not valid: row 1 of a page, id 'b': name: Input should be a valid string",
            "not valid: row 2 of a page, id None: the row is not an object",
        ]

    def test_missing_customers_are_a_warning(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """If the server counts more customers than it sends, a warning says so; a list from a cursor is no whole list."""

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
        """`--json` and `--table` choose the format, whatever the output is."""
        serve({"corp_1": 1})
        assert main(["list", "corp_1", flag]) == 0
        assert capfd.readouterr().out.startswith("{") == is_json

    def test_a_name_cannot_control_the_terminal(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """A table shows neither control characters nor markup of the server's data."""

        class Hostile(faults.Fault):
            def change_listing(self, listing: Any, asked: str | None, again: str) -> Any:
                return {**listing, "customers": [{**c, "name": "\x1b[2J[red]x\r\n"} for c in listing["customers"]]}

        serve({"corp_1": 1}, faults=[Hostile(probability=1)])
        assert main(["list", "corp_1", "--table"]) == 0
        printed = capfd.readouterr().out
        assert "\x1b" not in printed
        assert "[2J[red]x" in printed

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

    def test_retries_are_reported_on_standard_error(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """Each retry is one line on standard error."""
        serve({"corp_1": 20}, faults=[faults.Status(at=[1])])
        assert main(["list", "corp_1"]) == 0
        printed, complained = capfd.readouterr()
        assert len(printed.splitlines()) == 20
        assert complained.startswith("the server answered 503 Service Unavailable: ")
        assert "; trying again in 0." in complained
        assert complained.count("\n") == 1

    def test_a_refused_cursor_is_not_proposed_again(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """The command does not propose a cursor that the server has just refused."""
        serve({"corp_1": 20})
        assert main(["list", "corp_1", "--cursor", "garbage"]) == 1
        assert "to resume" not in capfd.readouterr().err

    def test_an_error_prints_the_cursor_to_resume_from(
        self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A failure of the API is exit code 1 and two lines: the error, and the option that resumes."""
        server = serve({"corp_1": 20}, faults=[faults.WrongEnvelope(at=[2])])
        assert main(["list", "corp_1", "--limit", "10"]) == 1
        printed, complained = capfd.readouterr()
        assert complained.startswith("error: the response has neither documented envelope")
        assert complained.splitlines()[1].startswith("to resume: --cursor ")
        option = shlex.split(complained.splitlines()[1].partition(": ")[2])
        assert main(["list", "corp_1", "--limit", "10", *option]) == 0
        ids = [json.loads(line)["id"] for line in (printed + capfd.readouterr().out).splitlines()]
        assert ids == [customer["id"] for customer in server.customers("corp_1")]
