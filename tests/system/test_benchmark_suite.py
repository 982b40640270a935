"""The suite that measures the cost of a page: the smallest races, over real HTTP. No test depends on a measured time."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.one_python

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def suite() -> Iterator[Any]:
    """Return a function that imports a file of the suite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield lambda name: importlib.import_module(f"suite.{name}")


@pytest.fixture(scope="module")
def server(suite: Any) -> Iterator[Any]:
    with suite("server").serving() as server:
        yield server


def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "run.py", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("shape", "job", "is_compressed"),
    [
        ("one", {"pages": 3}, True),
        ("many", {"corporations": 3, "pages": 2, "in_flight": 2, "backend": "trio"}, False),
    ],
    ids=["one, gzip", "many, trio"],
)
def test_all_contenders_read_the_same(shape: str, job: dict[str, Any], is_compressed: bool, suite: Any, server: Any) -> None:
    """Every contender that is installed reads every customer, alone and with others in flight."""
    races, contenders, todo = suite("races"), suite("contenders"), suite("jobs").Job("cost:cpu", **job)
    race = races.Race("tiny", "Tiny", races.of_shape(shape, todo, contenders.CONTENDERS), is_compressed=is_compressed)
    results = race.of([]).run(server, 1, lambda _: None)
    assert {contenders.HAND, contenders.OURS, "httpx2 by hand"} <= results.keys()
    assert {each["customers"] for rounds in results.values() for each in rounds} == {100 * todo.all_pages}


def test_a_race_has_its_baseline_and_who_is_wanted(suite: Any) -> None:
    """`--contenders` chooses by a pattern. The baseline always runs, because the others are divided by it."""
    race = suite("races").races(is_quick=False, is_full=False)[0].of(["customers$"])
    assert [entry.label for entry in race.entries] == ["httpx by hand", "commenda-customers"]


def test_steps_of_the_event_loop_are_measured(suite: Any, server: Any) -> None:
    """The longest step is a part of the longest iteration of the loop."""
    job = suite("jobs").Job("steps:steps", server.url("thousand"), "commenda-customers", is_frozen=True)
    found = job.run()
    assert 0 < found["step"] <= found["iteration"]


def test_growth_of_memory_is_measured(suite: Any, server: Any) -> None:
    """A stream reads all customers while its memory is measured."""
    job = suite("jobs").Job("memory:growth", server.url("commenda"), corporations=4, pages=5, in_flight=2)
    assert job.run()["customers"] == 2000


def test_a_run_prints_tables_and_writes_results(tmp_path: Path) -> None:
    """A run prints the table of its results, and writes the results to a file."""
    done = run("--quick", "--only", "ahead", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["ahead"].keys() == {"`api.stream`", "`api.list`"}
    assert results["versions"]["Python"] in done.stdout
    assert f"{results['ahead']['`api.list`']['seconds']:.2f}" in done.stdout


def test_a_name_that_is_no_measurement_is_an_error() -> None:
    """A misspelled `--only` is an error that names what there is."""
    done = run("--only", "speed")
    assert (done.returncode, done.stdout) == (2, "")
    assert "named speed; there are one, many, " in done.stderr


def test_the_page_shows_what_was_measured(suite: Any) -> None:
    """The tables of docs/performance.md are those of the results beside it, without a change by hand."""
    docs = suite("docs")
    results = json.loads(docs.RESULTS.read_text(encoding="utf-8"))
    assert docs.section(results) in docs.PAGE.read_text(encoding="utf-8")
