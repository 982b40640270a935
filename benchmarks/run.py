"""
What does a page of 100 customers cost the client, beside other clients? CPU time over real HTTP on loopback.

The server has a process, and if there are two, a core of its own. Contenders alternate in rounds, each time in a fresh process. A
result is the median of the ratios to the baseline of the same round.

    python benchmarks/run.py                        # everything
    python benchmarks/run.py --quick                # about two minutes
    python benchmarks/run.py --only one,many --contenders commenda,raw --rounds 5
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.jobs import Job
from suite.races import Race, races
from suite.server import Server, serving
from suite.tables import race_table


def main() -> int:
    options = parse()
    found = races(is_quick=options.quick, is_full=options.full)
    wanted = set(options.only) or {race.name for race in (found[:2] if options.quick else found)}
    if unknown := wanted - {race.name for race in found}:
        print(f"no measurement is named {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2

    rounds = options.rounds or (3 if options.quick else 9)
    results: dict[str, Any] = {"races": {}}
    with serving() as server:
        for race in found:
            if race.name in wanted:
                results["races"][race.name] = run_race(race.of(options.contenders), server, rounds)
                print(race_table(results["races"][race.name]), end="\n\n", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the main contenders, few rounds")
    parser.add_argument("--full", action="store_true", help="also a list of a million customers")
    parser.add_argument("--rounds", type=int, help="9, or 3 with --quick")
    parser.add_argument("--only", type=words, default=[], help="measurements, by name and separated by commas")
    parser.add_argument("--contenders", type=words, default=[], help="parts of names, separated by commas")
    parser.add_argument("--json", type=Path, default=Path(".benchmarks/results.json"), help="default: %(default)s")
    return parser.parse_args()


def words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",")]


def run_race(race: Race, server: Server, rounds: int) -> dict[str, Any]:
    """Run a race, and measure the server meanwhile."""
    before = server.usage()
    entries = race.run(server, rounds, note)
    note("")
    after = server.usage()
    cost = 1e6 * (after.seconds - before.seconds) / (after.served - before.served)
    return {"title": race.title, "baseline": race.baseline, "server": cost, "entries": entries}


def note(text: str) -> None:
    """Show what runs now."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
