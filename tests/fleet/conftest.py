"""Fixtures for the fleets. All processes end with their test, whatever ends it. The figures are a table at the end."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fleets import Fleet, Report, StartFleet
from processes import RedisServer, find_redis

# So that all processes end, as at Ctrl-C.
signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

_FIGURES = pytest.StashKey[dict[str, dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the fleets run for longer, for figures with less of the beginning in them, and compare them."""
    parser.addoption("--seconds", type=float, default=20, help="for how long a fleet runs whose shares are measured")
    parser.addoption("--compare", action="store_true", help="measure processes that do not share their quota too")


@pytest.fixture(scope="session")
def redis_program() -> str:
    """Return the program of Redis or Valkey. Without it, end the tests."""
    program = find_redis()
    if program is None:
        pytest.exit("not installed: redis-server. On Debian and Ubuntu: apt-get install redis-server (or valkey)", 2)
    return program


@pytest.fixture
def redis_server(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """Return a Redis server that has been started."""
    server = RedisServer(redis_program, tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def start_fleet(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[StartFleet]:
    """Return a function that starts a fleet, whose workers are ready when it returns."""
    with ExitStack() as stack:

        def start(size: int, url: str | None, **options: Any) -> Fleet:
            options = {"seconds": pytestconfig.getoption("--seconds"), **options}
            return stack.enter_context(Fleet(size, url, tmp_path, **options))

        yield start


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Return a function that adds figures to the table."""
    rows = request.config.stash.setdefault(_FIGURES, {})

    def add(**figures: Any) -> None:
        rows.setdefault(request.node.name, {}).update({name: _shown(figure) for name, figure in figures.items()})

    return add


def _shown(figure: Any) -> str:
    return f"{figure:.3g}" if isinstance(figure, float) else str(figure)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures of all tests."""
    rows = config.stash.get(_FIGURES, {})
    if rows:
        terminalreporter.section("figures")
    for name, figures in rows.items():
        terminalreporter.line(name.removeprefix("test_"))
        for figure, value in figures.items():
            terminalreporter.line(f"    {figure.replace('_', ' '):<40} {value:>8}")
