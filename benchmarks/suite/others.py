"""What is measured besides races: the import, the longest step of the event loop, memory, and what fetching ahead gains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .contenders import CONTENDERS, HAND, OURS, OURS_PYREQWEST
from .jobs import Job, run_python
from .races import Note
from .server import Server
from .tables import quartiles, table

Results = dict[str, Any]

DEPENDENCIES = "import httpx, pydantic, tenacity, anyio"
IMPORTS = (
    DEPENDENCIES,
    # pydantic imports the rest of itself for the first model.
    f"{DEPENDENCIES}; from pydantic import BaseModel, TypeAdapter, ValidationError",
    f"{DEPENDENCIES}; import commenda_customers",
    f"{DEPENDENCIES}; from commenda_customers import AsyncCustomersAPI",
)
_TIMED = (
    "import time; wall, cpu = time.perf_counter(), time.process_time(); {}; import json; "
    "print(json.dumps(dict(wall=1e3 * (time.perf_counter() - wall), cpu=1e3 * (time.process_time() - cpu))))"
)

STEPS: dict[str, tuple[str, Job]] = {
    "construction and first use": ("commenda", Job("steps:steps", is_first_use=True)),
    "pages of 100 customers": ("commenda", Job("steps:steps", pages=50)),
    "a stream of 64 corporations": ("commenda", Job("steps:steps", corporations=64, pages=10, in_flight=64)),
    "pages of 1,000 customers": ("thousand", Job("steps:steps", pages=5)),
    "pages of 4 MiB": ("4MiB", Job("steps:steps", pages=3)),
}
"""What is read: the kind of pages, and the job."""

MILLION = Job("memory:growth", corporations=200, pages=50)
READ_AHEAD = {"`api.stream`": Job("read_ahead:ahead"), "`api.list`": Job("read_ahead:in_a_loop")}


def run_imports(_server: Server, rounds: int, note: Note) -> Results:
    """Return the milliseconds of each import, in fresh processes that alternate."""
    results: dict[str, list[Any]] = {statement: [] for statement in IMPORTS}
    for number in range(2 * rounds + 1):
        note(f"imports, {number} of {2 * rounds}")
        for statement in IMPORTS:
            result = run_python(["-c", _TIMED.format(statement)])
            if number:  # the first ones may compile
                results[statement].append(result)
    return results


def imports_table(results: Results) -> str:
    """Return what each import costs, and by how much more than the dependencies of the same round."""
    rows = []
    for statement, own in results.items():
        more = [each["cpu"] - other["cpu"] for each, other in zip(own, results[DEPENDENCIES], strict=True)]
        low, median, high = quartiles(more)
        cpu, wall = (f"{quartiles([each[what] for each in own])[1]:.0f}" for what in ("cpu", "wall"))
        rows.append([f"`{statement}`", cpu, wall, f"{median:.0f}", f"{low:.0f} to {high:.0f}"])
    return table(["", "CPU time, ms", "wall time, ms", "more CPU time, ms", "quartiles"], rows)


def run_steps(server: Server, rounds: int, note: Note, names: Sequence[str] = (OURS, OURS_PYREQWEST, HAND)) -> Results:
    """Return the longest step of each round, by contender and case."""
    results: Results = {}
    for number in range(rounds):
        for name in names:
            if not CONTENDERS[name].is_installed:
                continue
            for case, (kind, job) in STEPS.items():
                for is_frozen in (False, True):
                    note(f"steps, round {number + 1} of {rounds}: {name}, {case}")
                    run = replace(job, url=server.url(kind), contender=name, is_frozen=is_frozen)
                    found = results.setdefault(name, {}).setdefault(case, {"plain": [], "frozen": []})
                    found["frozen" if is_frozen else "plain"].append(run.run())
    return results


def steps_table(results: Results) -> str:
    """Return the medians of the longest steps."""
    rows = []
    for name, cases in results.items():
        for case, found in cases.items():
            cells = [
                _spread([each[what] for each in found[how]]) for what in ("step", "iteration") for how in ("plain", "frozen")
            ]
            rows.append([name, case, *cells])
    return table(["", "read", "longest step, ms", "with `gc.freeze()`", "longest iteration, ms", "with `gc.freeze()`"], rows)


def _spread(values: list[float]) -> str:
    low, median, high = quartiles(values)
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def run_memory(server: Server, _rounds: int, note: Note, job: Job = MILLION) -> Results:
    """Return the growth of memory, by the number of requests in flight."""
    results: Results = {}
    for in_flight in (16, 64):
        note(f"memory, {in_flight} in flight: {100 * job.all_pages:,} customers")
        results[str(in_flight)] = replace(job, url=server.url("commenda"), in_flight=in_flight).run()
    return results


def memory_table(results: Results) -> str:
    """Return by how much memory grew."""
    rows = [[in_flight, f"{found['customers']:,}", f"{found['mib']:.1f}"] for in_flight, found in results.items()]
    return table(["in flight", "customers", "MiB more at the peak than after the first thousand"], rows)


def run_ahead(server: Server, _rounds: int, note: Note, pages: int = 20) -> Results:
    """Return the seconds of a stream and of a loop, for pages that take the server as long as the program."""
    results: Results = {}
    for name, job in READ_AHEAD.items():
        note(f"ahead: {pages} pages, {name}")
        results[name] = replace(job, url=server.url("slow"), pages=pages).run() | {"pages": pages}
    return results


def ahead_table(results: Results) -> str:
    """Return the seconds as a table."""
    rows = [[name, str(found["pages"]), f"{found['seconds']:.2f}"] for name, found in results.items()]
    return table(["", "pages", "seconds"], rows)


@dataclass(frozen=True)
class Other:
    """
    A measurement that is not a race.

    Attributes:
        name: For `--only`.
        title: For its table.
        run: Measures. It gets the server, the number of rounds, and a function that is told what runs.
        rows: Shows the results.
    """

    name: str
    title: str
    run: Callable[[Server, int, Note], Results]
    rows: Callable[[Results], str]

    def table(self, results: Results) -> str:
        """Return the results as Markdown."""
        return f"### {self.title}\n\n{self.rows(results)}"


def others(*, is_quick: bool) -> dict[str, Other]:
    """Return these measurements by name."""
    memory = partial(run_memory, job=replace(MILLION, pages=5)) if is_quick else run_memory
    steps = partial(run_steps, names=[OURS]) if is_quick else run_steps
    ahead = partial(run_ahead, pages=5) if is_quick else run_ahead
    found = (
        Other("imports", "Import", run_imports, imports_table),
        Other("steps", "The longest step of the event loop", steps, steps_table),
        Other("memory", "Memory of a stream", memory, memory_table),
        Other("ahead", "Pages that need 50 ms of the server, and 50 ms of the program", ahead, ahead_table),
    )
    return {each.name: each for each in found}
