"""
How does the client do behind real proxies? The emulated API behind nginx and HAProxy, all on loopback.

It makes two tables. The first one compares, customer for customer, what the client reads while things go wrong
(`loopback/faults.py`); the second one measures how much of a limit it uses (`loopback/limits.py`). `--only` takes a part of
the names of the rows.

It takes about four minutes, and says what was left open. The exit code is 0 if the client with its limiter read everything
exactly; 1 if it did not, or if any error came instead; 2 if a program is missing. It needs the packages h2 and trustme.

    python benchmarks/proxies.py [--only nginx] [--part faults] [--backend trio] [--details] [--times 1]
"""

import argparse
import signal
import sys
import warnings

import anyio
from loopback import fault_setups, faults, limit_setups, limits
from loopback.processes import find_programs, kill_all


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows with this text in their name")
    parser.add_argument("--part", choices=["faults", "limits"], help="only one of the tables")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="the event loop")
    parser.add_argument("--details", action="store_true", help="say why requests failed")
    parser.add_argument("--times", type=int, default=1, help="limits: jobs so many times as long, and so much more time")
    parser.add_argument("--also", default="/usr/sbin", help="a folder with programs, beside PATH (default: /usr/sbin)")
    options = parser.parse_args()
    warnings.simplefilter("error", ResourceWarning)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # so that all processes end, as at Ctrl-C
    try:
        return anyio.run(run, options, backend=options.backend)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        kill_all()


async def run(options: argparse.Namespace) -> int:
    """Run the parts, and print their tables."""
    troubles = [setup for setup in fault_setups.SETUPS if options.only in setup.name and options.part != "limits"]
    measured = [setup for setup in limit_setups.SETUPS if options.only in setup.name and options.part != "faults"]
    if not troubles and not measured:
        print(f"no row has {options.only!r} in its name", file=sys.stderr)
        return 2
    if not find_programs(
        {setup.name.partition(" ")[0].rstrip(":").lower() for setup in [*troubles, *measured]}, options.also
    ):
        return 2

    is_right = True
    if troubles:
        result, is_right = await faults.compare(troubles, details=options.details)
        print(result, end="\n\n", flush=True)
    if measured:
        result, is_exact = await limits.measure(measured, options.times)
        print(result, flush=True)
        is_right = is_right and is_exact
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
