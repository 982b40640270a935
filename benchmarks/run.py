"""
Compare what a page of 100 customers costs the SDK and other clients: CPU time over real HTTP on loopback.

The server has a process of its own, and a core of its own if there are two. Contenders take turns in each round, each time
in a fresh process. A result is the median of the ratios to the baseline of the same round. Contenders that are not
installed are left out.

    python benchmarks/run.py                        # everything: about an hour
    python benchmarks/run.py --quick                # the most important: about two minutes
    python benchmarks/run.py --only one,many --contenders "customers$,raw" --rounds 5
    python benchmarks/run.py --from .benchmarks/results.json --write-docs
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from suite import docs
from suite.others import Other, others
from suite.races import Race, races
from suite.server import Server, serving
from suite.versions import sentence, versions

BUSY = 0.5
QUICK = ("one", "many", "imports", "steps", "memory")


def main() -> int:
    options = parse()
    if options.read is not None:
        results = json.loads(options.read.read_text(encoding="utf-8"))
    else:
        compared = {race.name: race for race in races(is_quick=options.quick, is_full=options.full)}
        measured = others(is_quick=options.quick)
        names = options.only or (QUICK if options.quick else [*compared, *measured])
        if unknown := set(names) - compared.keys() - measured.keys():
            known = ", ".join([*compared, *measured])
            print(f"no measurement is named {', '.join(sorted(unknown))}; there are {known}", file=sys.stderr)
            return 2
        chosen = [compared[name].of(options.contenders) if name in compared else measured[name] for name in names]
        results = measure(chosen, options.rounds or (3 if options.quick else 9), options.output)
    if options.write_docs:
        docs.write(results)
    return 0


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the main contenders, few rounds")
    parser.add_argument("--full", action="store_true", help="also a list of a million customers")
    parser.add_argument("--rounds", type=int, help="9, or 3 with --quick")
    parser.add_argument("--only", type=words, default=[], help="measurements, by name and separated by commas")
    parser.add_argument("--contenders", type=words, default=[], help="regular expressions of names, separated by commas")
    parser.add_argument(
        "--output", type=Path, default=Path(".benchmarks"), help="a folder for results (default: %(default)s)"
    )
    parser.add_argument("--from", dest="read", type=Path, help="measure nothing, take these results")
    parser.add_argument("--write-docs", action="store_true", help="write tables and plots into docs/")
    return parser.parse_args()


def words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",")]


def measure(chosen: Sequence[Race | Other], rounds: int, output: Path) -> dict[str, Any]:
    """Run the measurements. After each, print its table, and write all results so far."""
    results: dict[str, Any] = {"versions": versions(), "rounds": rounds, "races": {}}
    written: list[Path] = []
    print(sentence(results["versions"]), end="\n\n", flush=True)
    with suppress(AttributeError):  # Windows
        results["load"] = load = round(os.getloadavg()[0], 1)
        if load > BUSY:
            print(f"Other programs are running (load {load}): the quartiles will be far apart.", file=sys.stderr)
    with serving() as server:
        for each in chosen:
            if isinstance(each, Race):
                found = results["races"][each.name] = run_race(each, server, rounds)
            else:
                found = results[each.name] = each.run(server, rounds, note)
            note("")
            print(each.table(found), end="\n\n", flush=True)
            written = save(results, output)
    print(f"written: {', '.join(map(str, written))}")
    return results


def run_race(race: Race, server: Server, rounds: int) -> dict[str, Any]:
    """Run a race, and measure the server meanwhile."""
    before = server.usage()
    entries = race.run(server, rounds, note)
    after = server.usage()
    cost = 1e6 * (after.seconds - before.seconds) / (after.served - before.served)
    baselines = {entry.label: entry.baseline for entry in race.entries}
    return {"title": race.title, "baselines": baselines, "server": round(cost, 1), "entries": entries}


def note(text: str) -> None:
    """Show what runs now."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def save(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write the results, and plots of them if matplotlib is installed; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    with suppress(ImportError):
        from suite.plots import plot_all  # noqa: PLC0415

        return [path, *plot_all(results, folder)]
    return [path]


if __name__ == "__main__":
    sys.exit(main())
