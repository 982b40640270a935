"""`commenda-customers demo` and `emulate`."""

import pytest

from commenda_customers.cli import main
from commenda_customers.testing import Emulator, faults
from emulated import ServeEmulator


class TestDemo:
    """`commenda-customers demo`."""

    def test_it_reads_every_customer(self, capfd: pytest.CaptureFixture[str]) -> None:
        """The demo reads all customers despite faults and a rate limit, and prints its progress."""
        rate, printed = 10.0, ""
        while "limit learned: " not in printed:  # a machine may be too busy for a rate
            assert main(["demo", "--corporations", "3", "--customers", "1200", "--rate", str(rate), "--seed", "7"]) == 0
            printed = capfd.readouterr().out
            assert " pages, " in printed
            assert "Stopped after 1,8" in printed
            assert "3,600 of 3 corporations" in printed
            assert f"the server allows {rate:g}" in printed
            assert "yes: every customer once, in the server's order" in printed
            rate /= 2

    def test_a_failure_is_one_line(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """If the API fails for good, the command prints one line, and ends with exit code 1."""
        monkeypatch.setattr("commenda_customers.cli._demo._FAULTS", [faults.WrongEnvelope(probability=1)])
        assert main(["demo", "--corporations", "3"]) == 1
        assert capfd.readouterr().err.startswith("error: the response has neither documented envelope")

    def test_it_detects_missing_customers(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """If customers are missing, the demo names their corporation, and fails."""
        truth = Emulator.customers
        monkeypatch.setattr(
            Emulator, "customers", lambda self, name, **params: list(truth(self, name, **params))[name == "corp_2" :]
        )
        assert main(["demo", "--corporations", "2", "--customers", "50"]) == 1
        assert "NO: corp_2 differ" in capfd.readouterr().out


class TestEmulate:
    """`commenda-customers emulate`."""

    def test_a_taken_port_is_a_usage_error(self, serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
        """If the port is in use, this is a usage error."""
        port = serve().base_url.rpartition(":")[2].partition("/")[0]
        assert main(["emulate", "--port", port]) == 2
        assert "error: --port: Address already in use" in capfd.readouterr().err
