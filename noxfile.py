"""
What is done to the project. `nox` alone does all that must pass; `nox --list` shows the rest.

Everything a session needs it installs itself, in the versions that `requirements/` locks.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "typing", "unit", "system", "coverage", "docs", "demo"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
LOCKED = Path("requirements")


def installed_pythons() -> list[str]:
    """Return the versions of the classifiers that this machine has; a newer machine has none of them but its own."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    known = nox.project.python_versions(PROJECT)
    return [version for version in known if version == own or _runs(f"python{version}")] or [own]


def _runs(interpreter: str) -> bool:
    """Tell an interpreter from a stand-in that only says how to install one."""
    path = shutil.which(interpreter)
    return path is not None and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0


PYTHONS = installed_pythons()
# Python 3.11 loses track of where it is when a coroutine is cancelled, so that lines seem not to run.
MEASURED = PYTHONS[-1] if PYTHONS[-1] != "3.11" else None
"""The Python on which the coverage of branches is measured."""

SIDE_BY_SIDE = ("-n", "2", "--dist", "worksteal")
"""For pytest: half of the tests' time is waiting."""


@nox.session(python=PYTHONS, tags=["tests"])
def unit(session: nox.Session) -> None:
    """Run the fast tests: no network, no processes, virtual time. Takes the options of pytest."""
    run_tests(session, "unit", "tests/unit")


@nox.session(python=PYTHONS, tags=["tests"])
def system(session: nox.Session) -> None:
    """Run all other tests: real sockets, processes, terminals, the examples. Takes the options of pytest."""
    run_tests(session, "system", "tests/system")


def run_tests(session: nox.Session, name: str, *tests: str) -> None:
    """Test the installed package: on the oldest of several Pythons with the oldest libraries that are allowed."""
    is_oldest = session.python == PYTHONS[0] != PYTHONS[-1]
    session.install("-r", str(LOCKED / ("lowest.txt" if is_oldest else "tests.txt")))
    session.install("--no-deps", ".")
    if session.python != MEASURED or session.posargs:
        session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *tests, *session.posargs)
        return

    data = {"COVERAGE_FILE": f".coverage-{name}"}
    session.run("coverage", "erase", env=data)
    session.run("coverage", "run", "-m", "pytest", *SIDE_BY_SIDE, *tests, env=data)
    session.run("coverage", "combine", "--quiet", env=data)


@nox.session(python=PYTHONS[-1:], tags=["tests"])
def coverage(session: nox.Session) -> None:
    """Check the branches that `unit` and `system` together covered: 100 %."""
    if MEASURED is None:
        session.skip("no Python here can measure it")
    session.install("-c", str(LOCKED / "tests.txt"), "coverage")
    session.run("coverage", "combine", "--quiet", "--keep", ".coverage-unit", ".coverage-system")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and that imports point one way only."""
    session.install("-r", str(LOCKED / "lint.txt"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.install("--no-deps", "-e", ".")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types as mypy and pyright see them, of the source and of a program that uses it."""
    session.install("-r", str(LOCKED / "typing.txt"))
    session.install("--no-deps", "-e", ".")
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into `site/`. A broken link, a missing anchor or a missing reference fails."""
    session.install("-r", str(LOCKED / "docs.txt"))
    session.run("zensical", "build", "--strict", "--clean")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demonstration: the main job against the emulated API. Takes the options of `commenda-customers demo`."""
    session.install("-c", str(LOCKED / "tests.txt"), ".[cli]")
    session.run("commenda-customers", "demo", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure pages and streams beside what is written by hand, and how much of a rate limit is used."""
    session.install("-c", str(LOCKED / "tests.txt"), ".[cli]", "trio")
    session.run("python", "benchmarks/page.py")
    session.run("python", "benchmarks/stream.py")
    session.run("python", "benchmarks/limits.py", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Lock the development environment anew."""
    session.install("uv")
    options = ["--universal", "--quiet", "--no-emit-index-url", "--upgrade", "--custom-compile-command", "nox -s lock"]
    for name, wanted in {
        "tests": ["--extra", "cli", "--group", "test"],
        "lowest": ["--extra", "cli", "--group", "test", "--resolution", "lowest-direct"],
        "lint": ["--group", "lint"],
        "typing": ["--extra", "cli", "--group", "test", "--group", "typing"],
        "docs": ["--group", "docs"],
    }.items():
        session.run("uv", "pip", "compile", "pyproject.toml", *options, *wanted, "-o", str(LOCKED / f"{name}.txt"))
