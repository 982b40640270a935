"""
The tasks of the project. `nox` runs all checks and tests; `nox --list` shows the other sessions.

Each session installs what it needs, in the versions that `requirements/` locks.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "typing", "unit", "system", "coverage", "docs", "build", "demo"]
nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "uv|virtualenv"  # uv installs in a second what takes pip half a minute
os.environ.setdefault("UV_NATIVE_TLS", "1")  # uv trusts the certificates of the system, as pip does

PROJECT = nox.project.load_toml("pyproject.toml")
LOCKED = Path("requirements")


def installed_pythons() -> list[str]:
    """Return the Python versions of the classifiers that are installed here; if there is none, the one that runs nox."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    known = nox.project.python_versions(PROJECT)
    return [version for version in known if version == own or _runs(f"python{version}")] or [own]


def _runs(interpreter: str) -> bool:
    """Return whether *interpreter* runs: on some systems it is a stub that only says how to install it."""
    path = shutil.which(interpreter)
    return path is not None and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0


PYTHONS = installed_pythons()
# On Python 3.11 coverage is wrong: after a coroutine is cancelled, lines that ran are reported as not run.
MEASURED = PYTHONS[-1] if PYTHONS[-1] != "3.11" else None
"""The Python on which the coverage of branches is measured."""

SIDE_BY_SIDE = ("-n", "2", "--dist", "worksteal")
"""Options of pytest that run tests in two processes."""
WAITING = ("-n", "4", "--dist", "worksteal")
"""The same for tests that wait half of the time, for sockets and processes."""


@nox.session(python=PYTHONS, tags=["tests"])
def unit(session: nox.Session) -> None:
    """Run the fast tests: no network, no processes, virtual time. Takes the options of pytest."""
    run_tests(session, "unit", *SIDE_BY_SIDE, "tests/unit")


@nox.session(python=sorted({PYTHONS[0], PYTHONS[-1]}, key=PYTHONS.index), tags=["tests"])
def system(session: nox.Session) -> None:
    """Run all other tests: real sockets, processes, terminals, the examples. On the oldest and the newest Python."""
    run_tests(session, "system", *WAITING, "tests/system")


def run_tests(session: nox.Session, name: str, *options: str) -> None:
    """Test the installed package. If there are several Pythons, the oldest gets the oldest libraries that are allowed."""
    is_oldest = session.python == PYTHONS[0] != PYTHONS[-1]
    install_tested(session, "lowest.txt" if is_oldest else "tests.txt")
    if session.python != PYTHONS[-1]:
        options = ("-m", "not one_python", *options)
    if session.python != MEASURED or session.posargs:
        session.run("python", "-m", "pytest", *options, *session.posargs)
        return

    data = {"COVERAGE_FILE": f".coverage-{name}"}
    session.run("coverage", "erase", env=data)
    session.run("coverage", "run", "-m", "pytest", "-m", "not one_python", *options, env=data)
    session.run("coverage", "combine", "--quiet", env=data)
    session.run("python", "-m", "pytest", "-m", "one_python", *options)  # would take twice as long if it was measured


def install_tested(session: nox.Session, locked: str = "tests.txt") -> None:
    """Install the package as users do, and what its tests need."""
    session.install("-r", str(LOCKED / locked))
    session.install("--no-deps", ".")


@nox.session(python=PYTHONS[-1:], tags=["tests"])
def coverage(session: nox.Session) -> None:
    """Check that `unit` and `system` together cover 100 % of the branches."""
    if MEASURED is None:
        session.skip("coverage needs a Python newer than 3.11")
    session.install("-c", str(LOCKED / "tests.txt"), "coverage")
    session.run("coverage", "combine", "--quiet", "--keep", ".coverage-unit", ".coverage-system")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and that a file imports only from lower layers."""
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
def build(session: nox.Session) -> None:
    """Build wheel and sdist twice, compare them byte for byte, and check what is in them. The results are in `dist/`."""
    session.install("-r", str(LOCKED / "build.txt"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", silent=True)
    wheel, sdist = next(Path("dist").glob("*.whl")), next(Path("dist").glob("*.tar.gz"))

    # Build again from the sdist: in another folder, with other file times, and without files that only the clone has.
    unpacked = Path(session.create_tmp()) / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    session.run("python", "-m", "tarfile", "--extract", str(sdist), str(unpacked))
    source = unpacked / sdist.name.removesuffix(".tar.gz")
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(unpacked), str(source), silent=True)

    different = [built.name for built in (wheel, sdist) if built.read_bytes() != (unpacked / built.name).read_bytes()]
    problems = [*(f"a second build of {name} is different" for name in different), *wrong_contents(wheel, sdist)]
    if problems:
        session.error("; ".join(problems))
    session.log(f"{wheel.name} and {sdist.name} can be reproduced")


def wrong_contents(wheel: Path, sdist: Path) -> list[str]:
    """Return what is missing in a wheel and an sdist, and what should not be there."""
    own = {path.relative_to("src").as_posix() for path in Path("src").rglob("*.py")} | {"commenda_customers/py.typed"}
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    own |= {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        delivered = {name.partition("/")[2] for name in archive.getnames()}

    # Files for users to read, and for packagers to run the tests.
    needed = {"LICENSE", "README.md", "SECURITY.md", "CHANGELOG.md", "pyproject.toml", "noxfile.py"}
    needed |= {path.as_posix() for folder in ("src", "tests", "requirements") for path in Path(folder).rglob("*.py")}
    return [
        *(f"the wheel lacks {name}" for name in sorted(own - packed)),
        *(f"the wheel has {name}" for name in sorted(packed - own)),
        *(f"the sdist lacks {name}" for name in sorted(needed - delivered)),
    ]


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities of the locked versions, at osv.dev. Needs the internet."""
    service = "https://api.osv.dev/v1/query"
    # Without this check, pip-audit would print a traceback of a hundred lines.
    if problem := unreachable(service):
        session.error(f"nothing was audited: cannot reach {service}, which knows the vulnerabilities: {problem}")

    session.install("-r", str(LOCKED / "audit.txt"))
    # The oldest versions that are allowed, in lowest.txt, are for tests only.
    locked = sorted(path for path in LOCKED.glob("*.txt") if path.name != "lowest.txt")
    files = [option for path in locked for option in ("--requirement", str(path))]
    # The files are complete and exact, so there is nothing to resolve. Strict: a package that is not audited fails.
    options = ["--vulnerability-service", "osv", "--no-deps", "--disable-pip", "--strict", "--progress-spinner", "off"]
    session.run("pip-audit", *options, *files, *session.posargs)


def unreachable(url: str) -> OSError | None:
    """Return why *url* cannot be reached, also through a proxy of the environment; `None` if it can."""
    try:
        urllib.request.urlopen(url, timeout=10).close()  # noqa: S310 - an https URL of this file
    except urllib.error.HTTPError as response:
        response.close()  # the server responds, so it is reachable
    except OSError as exc:
        return exc
    return None


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demonstration: the main job against the emulated API. Takes the options of `commenda-customers demo`."""
    session.install("-c", str(LOCKED / "tests.txt"), ".[cli]")
    session.run("commenda-customers", "demo", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """
    Compare the cost of a page with other clients, run a virtual day, and measure how much of a limit the client uses.

    With options of `benchmarks/run.py`, such as `--quick`, it only compares the cost.
    """
    session.install("-r", str(LOCKED / "benchmarks.txt"))
    session.install("--no-deps", ".")
    session.run("python", "benchmarks/run.py", *session.posargs)
    if not session.posargs:
        for name in ("export", "day", "limits", "fleets"):
            session.run("python", f"benchmarks/{name}.py")


@nox.session
def kills(session: nox.Session) -> None:
    """Kill an export of each kind fifty times, and compare what it has written. Takes a few minutes."""
    install_tested(session)
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, "tests/system/test_export_kills.py", "--kills", "50")


@nox.session
def soak(session: nox.Session) -> None:
    """Read for two minutes from a server that changes at random, on asyncio and on trio. Takes the options of pytest."""
    install_tested(session)
    options = ["--soak", "120", "--soak-seed", str(secrets.randbelow(10**6))]
    session.run("python", "-m", "pytest", "-s", "-p", "no:xdist", "tests/system/test_soak.py", *options, *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Run Hypothesis for minutes, to find an input that breaks a rule. Takes the options of pytest."""
    install_tested(session)
    profile = ["--hypothesis-profile", "fuzz", "--hypothesis-seed", str(secrets.randbelow(10**6))]
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, "tests/unit/test_fuzzing.py", *profile, *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Run mutation tests: change the code in thousands of small ways, and count what the tests detect. Takes hours."""
    session.install("-r", str(LOCKED / "tests.txt"), "mutmut>=3.8,<4")
    session.run("python", "tests/mutation.py", *session.posargs)


@nox.session
def proxies(session: nox.Session) -> None:
    """Run the client behind nginx and HAProxy, which must be installed: faults and limits. Takes about four minutes."""
    session.install("-c", str(LOCKED / "tests.txt"), ".[cli]", "h2", "trio", "trustme")
    # After Ctrl-C it ends the proxies. Without a timeout, nox would kill it before it has done so.
    session.run("python", "benchmarks/proxies.py", *session.posargs, interrupt_timeout=10.0)


@nox.session
def fleet(session: nox.Session) -> None:
    """Run 4 and 16 processes with one quota in a real Redis; kill and freeze them, and Redis. Takes about ten minutes."""
    if not (shutil.which("redis-server") or shutil.which("valkey-server")):
        session.error("not installed: redis-server. On Debian and Ubuntu: apt-get install redis-server (or valkey)")

    install_tested(session)
    try:
        session.install("-c", str(LOCKED / "tests.txt"), "--only-binary", "ray", "ray>=2.40")
    except CommandFailed:
        session.warn("no wheel of Ray for this Python: its tests are skipped")
    else:
        session.install("-c", str(LOCKED / "typing.txt"), "mypy")
        session.run("mypy", "examples/ray_export.py")  # the session `typing` has no Ray
    options = ["-p", "no:xdist", "tests/fleet", *session.posargs]
    # After Ctrl-C it ends all processes. Without a timeout, nox would kill it before it has done so.
    session.run("python", "-m", "pytest", *options, interrupt_timeout=10.0)


@nox.session
def lock(session: nox.Session) -> None:
    """Update the locked versions in `requirements/`: all of them, or `nox -s lock -- docs lint`."""
    session.install("uv")
    options = ["--universal", "--quiet", "--no-emit-index-url", "--upgrade", "--custom-compile-command", "nox -s lock"]
    extras = ["--extra", "cli", "--extra", "parquet", "--extra", "zstd", "--extra", "redis"]
    for name, wanted in {
        "tests": [*extras, "--group", "test"],
        "lowest": [*extras, "--group", "test", "--resolution", "lowest-direct"],
        "benchmarks": [*extras, "--group", "benchmarks"],
        "lint": ["--group", "lint"],
        "typing": [*extras, "--group", "test", "--group", "typing"],
        "docs": ["--group", "docs"],
        "build": ["--group", "build"],
        "audit": ["--group", "audit"],
    }.items():
        if not session.posargs or name in session.posargs:
            session.run("uv", "pip", "compile", "pyproject.toml", *options, *wanted, "-o", str(LOCKED / f"{name}.txt"))
