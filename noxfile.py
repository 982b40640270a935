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
nox.options.sessions = ["lint", "typing", "tests", "docs", "demo"]
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
SIDE_BY_SIDE = ("-n", "2", "--dist", "worksteal")
"""For pytest: half of the tests' time is waiting."""


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """
    Test the installed package.

    On the newest Python also measure the coverage of branches, which must be 100 %; on the oldest of several, with the
    oldest libraries that `pyproject.toml` allows.
    """
    is_oldest = session.python == PYTHONS[0] != PYTHONS[-1]
    session.install("-r", str(LOCKED / ("lowest.txt" if is_oldest else "tests.txt")))
    session.install("--no-deps", ".")
    # Python 3.11 loses track of where it is when a coroutine is cancelled, so that lines seem not to run.
    if session.python != PYTHONS[-1] or session.python == "3.11" or session.posargs:
        session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *session.posargs)
        return

    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *SIDE_BY_SIDE)
    session.run("coverage", "combine", "--quiet")
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
