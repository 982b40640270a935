"""The README keeps its promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from commenda_customers.testing import Emulator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_the_programs_run(program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each program in the README runs as it stands, against the emulated API."""
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Emulator()) as server:
        monkeypatch.setenv("COMMENDA_BASE_URL", server.base_url)
        monkeypatch.setenv("COMMENDA_API_TOKEN", server.token)
        command = [sys.executable, "-W", "error", script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("asyncio.run" in program) == bool(done.stdout)


def test_code_is_in_the_first_screen() -> None:
    """Whoever opens the README sees code at once."""
    assert README[: README.index("```python")].count("\n") < 12


def test_ci_runs_the_command_of_the_readme() -> None:
    """What CI runs is, to the letter, what the README tells a newcomer to run."""
    demo, check, _emulate = (command.strip() for command in COMMANDS)
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == check
    assert demo == f"{check} -s demo"


def test_the_sdk_of_the_readme_is_the_sdk() -> None:
    """Every public error and every parameter is named in the README."""
    from commenda_customers import errors
    from commenda_customers.query import CustomerFilters

    for name in [*errors.__all__, *CustomerFilters.__annotations__]:
        assert f"`{name}`" in README, name
