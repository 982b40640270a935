"""
Changes the code in many small ways, one at a time. A change that no test notices shows what is not tested.

    python tests/mutation.py [FILE ...]   # such as retry.py or limits/_breaker.py; by default all of `TESTS`

It needs mutmut, which `nox -s mutation` installs. It prints the score of each file, and the changes that survived, and fails
below 90 %. For each file it works in a copy of the project, in `.nox/mutation/`. A second run skips what was noticed.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIES = ROOT / ".nox" / "mutation"
LEAST = 0.9
MUTMUT = (sys.executable, "-m", "mutmut")

_RESUME = ("resume", "resume_after_a_hook", "resume_changed_list", "resume_cursor_loop", "resume_other_limit")
_CONTROLLER = ("limits_lessons", "limits_controller", "limits_pacing")
TESTS: Mapping[str, Sequence[str]] = {
    "checkpoint.py": ("checkpoint", "stream_progress", *_RESUME, "expired_cursors", "fuzzing"),
    "retry.py": ("retry_policy", "retry_calls", "statuses", "request_retries", "request_limiter", "with_options"),
    "_pages.py": (*_RESUME, "resume_invalid_rows", "expired_cursors", "iteration", "stream"),
    "_fan_out.py": ("stream", "stream_ending", "stream_failures", "stream_ids", "stream_leaving"),
    "_wire/errors.py": ("wire", "wire_errors", "statuses"),
    "_wire/page.py": ("wire", "wire_errors", "wire_pieces", "statuses", "fuzzing"),
    "_wire/pieces.py": ("wire_pieces",),
    "_wire/rows.py": ("wire", "wire_errors", "deep_json", "fuzzing"),
    "_wire/throttling.py": ("throttling", "statuses", "fuzzing"),
    "limits/_breaker.py": ("limits_breaker", *_CONTROLLER),
    "limits/_controller.py": _CONTROLLER,
    "limits/_outcomes.py": _CONTROLLER,
    "limits/_pacing.py": (*_CONTROLLER, "limits_queue"),
    "limits/_queue.py": ("limits_queue", "limits_max_wait", "limits_event_loops"),
    "limits/adaptive.py": ("limits_adaptive", "limits_queue", "limits_max_wait"),
    "limits/fixed_rate.py": ("limits_fixed_rate", "limits_queue", "limits_max_wait"),
}
"""By file, the tests that should detect a change: `checkpoint` is `tests/unit/test_checkpoint.py`."""

_SKIPPED = (
    "trio",
    "do_not_cripple",
    "never_enforced_is_ignored",
    "million_bad_items",
    "any_depth",
    "cost_is_linear",
    "times_work",
)
CHOSEN = " and ".join(f"not {name}" for name in _SKIPPED)
"""One event loop is enough, without the tests that take seconds: each change that survives runs all tests."""

CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/commenda_customers/{file}"]
do_not_mutate_patterns = ["assert "]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile", "mutation", "-k", "{chosen}"]
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false
timeout_multiplier = 2.0
timeout_constant = 10.0
"""


def copy_project(file: str) -> Path:
    """Return a copy of the project in which mutmut is told what to do. What it has found out before stays there."""
    folder = COPIES / file.replace("/", "-").removesuffix(".py")
    shutil.rmtree(folder / "mutants" / "tests", ignore_errors=True)  # mutmut never removes a file there
    for name in ("src", "tests"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    tests = [f"tests/unit/test_{name}.py" for name in TESTS[file]]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        text + CONFIG.format(file=file, tests=json.dumps(tests), chosen=CHOSEN), encoding="utf-8"
    )
    return folder


def survivors(folder: Path) -> list[str]:
    """Return the names of the changes that no test has detected so far."""
    if not (folder / "mutants").exists():
        return []
    results = subprocess.run([*MUTMUT, "results"], cwd=folder, check=True, capture_output=True, text=True).stdout
    return [line.split(":")[0].strip() for line in results.splitlines() if line.endswith((": survived", ": no tests"))]


def run_mutmut(folder: Path, *names: str) -> None:
    """Try the changes of these names, by default all that are not known."""
    with (folder / "mutmut.log").open("w", encoding="utf-8") as log:
        subprocess.run([*MUTMUT, "run", "--max-children", "1", *names], cwd=folder, stdout=log, stderr=log, check=True)


def mutate(file: str) -> float:
    """Change a file in all ways. Print what survived, and return the part that was noticed."""
    folder = copy_project(file)
    survived_before = set(survivors(folder))
    run_mutmut(folder)
    if again := survived_before.intersection(survivors(folder)):
        run_mutmut(folder, *sorted(again))
    subprocess.run([*MUTMUT, "export-cicd-stats"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    numbers = json.loads((folder / "mutants" / "mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    survived = numbers["survived"] + numbers["no_tests"]
    noticed = numbers["total"] - survived - numbers["skipped"]
    score = noticed / (noticed + survived)
    print(f"{file}: {noticed} of {noticed + survived} changes were noticed, {score:.1%}", flush=True)  # noqa: T201
    subprocess.run([*MUTMUT, "results"], cwd=folder, check=True)
    return score


def main() -> None:
    files = sys.argv[1:] or list(TESTS)
    unknown = [file for file in files if file not in TESTS]
    if unknown:
        sys.exit(f"no tests are known for {', '.join(unknown)}; choose of {', '.join(TESTS)}")
    scores = [mutate(file) for file in files]
    sys.exit(0 if min(scores) >= LEAST else 1)


if __name__ == "__main__":
    main()
