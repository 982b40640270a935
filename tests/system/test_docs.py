"""README and documentation keep their promises: every code block is run, as a reader would run it."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

import commenda_customers
from commenda_customers import errors, events
from commenda_customers.cli._emulate import FAULT_KINDS
from commenda_customers.cli._group import commands
from commenda_customers.query import CustomerFilters
from commenda_customers.testing import Emulator, faults
from redis_servers import working_redis

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = sysconfig.get_path("scripts")

FENCE = re.compile(r'(?ms)^(?P<indent> *)```(?P<kind>\w+)(?: title="(?P<title>[^"\n]*)")?\n(?P<code>.*?)^(?P=indent)```$')
NOT_RUN = {
    "sh": {"set up", "until Ctrl-C", "customers.sbatch"},
    "console": {None},
    "text": {None, "output"},
    "sql": {None},
    "yaml": {None},
}

ASK_THE_APP = """
import asyncio as _asyncio
import httpx as _httpx

async def _ask() -> None:
    _transport = _httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), _httpx.AsyncClient(transport=_transport, base_url="http://app") as _client:
        for _path, _methods in app.openapi()["paths"].items():
            if "get" in _methods:
                _response = await _client.get(_path.format(corporation_id="corp_123"))
                print(_path, _response.status_code)
                assert _response.status_code == 200, _response.text
                if "{corporation_id}" in _path:
                    assert (await _client.get(_path.format(corporation_id="unknown"))).status_code == 404, _path

_asyncio.run(_ask())
"""

RUN_CELLS = """
import ast, asyncio, sys
with open(sys.argv[1], encoding="utf-8") as cells:
    code = compile(cells.read(), "cells", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(eval(code, {"__name__": "__main__"}))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `output` is what the page says that it prints."""

    page: Path
    line: int
    kind: str
    title: str | None
    code: str
    output: str | None = None

    @property
    def is_run(self) -> bool:
        return self.title not in NOT_RUN.get(self.kind, ())

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def needs(self) -> list[str]:
        found = re.match(r"# needs: (.+)\n", self.code)
        return re.split(r"[ ,]+", found[1]) if found else []

    def command(self, folder: Path) -> list[str | Path]:
        """Write the block into *folder*; return what runs it."""
        if self.kind == "sh":
            return ["bash", "-eu", "-c", self.code]

        cells = ["-c", RUN_CELLS] if self.kind == "py" else []
        is_test = re.search(r"^(async )?def test_", self.code, re.MULTILINE)
        is_app = re.search(r"^app = FastAPI", self.code, re.MULTILINE)
        program = folder / ("test_program.py" if is_test else "program.py")
        program.write_text(self.code + ASK_THE_APP * bool(is_app), encoding="utf-8")
        pytest_here = ["-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder, "-p", "no:cacheprovider"]
        return [sys.executable, *(pytest_here if is_test else []), "-W", "error", *cells, program]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page, text.count("\n", 0, match.start()) + 1, match["kind"], match["title"], textwrap.dedent(match["code"]))
        for match in FENCE.finditer(text)
    ]
    assert len(found) * 2 == len(re.findall(r"^ *```", text, re.MULTILINE)), f"{page}: a code block is not understood"
    if cells := [block for block in found if block.kind == "py"]:
        yield replace(cells[0], code="".join(cell.code for cell in cells))
    for block, after in pairwise([*found, None]):
        if block.kind != "py":
            yield replace(block, output=after.code) if after and after.title == "output" else block


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [block for block in BLOCKS if block.is_run]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The terminal of a reader: the environment is active, and the lines that the emulator prints are pasted."""
    with Emulator({"corp_123": 1000, "corp_456": 500}) as server, working_redis() as redis_url:
        yield {
            **os.environ,
            "PATH": os.pathsep.join([SCRIPTS, os.environ["PATH"]]),
            "COMMENDA_BASE_URL": server.base_url,
            "COMMENDA_API_TOKEN": server.token,
            "REDIS_URL": redis_url,
        }


@pytest.mark.parametrize("block", [block for block in RUN if block.kind != "sh"], ids=lambda block: block.name)
def test_code_blocks_have_the_syntax_of_every_python(block: Block) -> None:
    """Each block compiles, also on the Pythons on which it is not run."""
    compile(block.code, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.one_python
@pytest.mark.parametrize("block", RUN, ids=lambda block: block.name)
def test_code_blocks_run(block: Block, environment: dict[str, str], tmp_path: Path) -> None:
    """Each block runs as it stands, without a warning, and prints what the page says."""
    assert block.kind in {"python", "py", "sh"}, "a code block is of these kinds, or says why it is not run"
    done = subprocess.run(
        block.command(tmp_path), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout or not re.search(r"print\((?!.*file=sys\.stderr)", block.code), "it defines what it never runs"
    if block.output is not None:
        assert done.stdout == block.output


def test_what_blocks_need_is_installed_for_tests() -> None:
    """What a block says that it needs is in the dependency group of the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    group = {re.split(r"[\[<>=~!]", wanted)[0] for wanted in project["dependency-groups"]["test"]}
    needed = {name for block in BLOCKS for name in block.needs}
    assert needed <= group


def test_what_the_emulator_prints_can_be_pasted(tmp_path: Path) -> None:
    """The lines that `commenda-customers emulate` prints work in another terminal, as they are."""
    command = [Path(SCRIPTS) / "commenda-customers", "emulate", "--port", "0", "--corporation", "corp 1=3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = [server.stdout.readline() for _ in range(5)]
            pasted = "".join(line for line in lines if line.startswith("  "))
            terminal = {"PATH": os.pathsep.join([SCRIPTS, os.environ["PATH"]])}
            done = subprocess.run(
                ["bash", "-eu", "-c", pasted], env=terminal, cwd=tmp_path, capture_output=True, text=True, check=False
            )
        finally:
            server.terminate()
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 3)


def test_the_readme_is_short_and_begins_with_code() -> None:
    """The README has at most 130 lines, and its first twelve lines show code."""
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 130
    assert text[: text.index("```python")].count("\n") < 12


def test_ci_runs_the_command_of_the_readme() -> None:
    """What CI runs is, to the letter, what the README tells a newcomer to run."""
    commands = [line for block in BLOCKS if block.page == README and block.kind == "sh" for line in block.code.splitlines()]
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert commands.count(last) == commands.count(f"{last} -s demo") == 1


def test_links_lead_somewhere() -> None:
    """Each relative link and picture leads to a file. The build of the site does not check pictures, nor the README."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def test_what_one_looks_up_is_documented() -> None:
    """Each error, event, filter and fault, and each command with its faults, is on a page."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = [*errors.__all__, *events.__all__, *CustomerFilters.__annotations__, *faults.__all__, *FAULT_KINDS]
    assert [name for name in names if not re.search(rf"`{name}\b", text)] == []
    assert [name for name in commands.commands if f"\n## {name}\n" not in text] == []


def test_the_reference_has_every_public_name() -> None:
    """Each name that the package exports is in the API reference, once."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = sorted(re.findall(r"^::: commenda_customers\.(\w+)$", text, re.MULTILINE))
    assert names == sorted({*commenda_customers.__all__} - {"__version__"})


def test_every_page_is_in_the_navigation() -> None:
    """Each page of `docs/` is in the navigation of the site."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"- ([\w-]+\.md)$", config, re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in PAGES[2:])
