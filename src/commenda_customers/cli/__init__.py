"""The command `commenda-customers`. It needs the extra `cli`: click, rich and uvicorn."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """
    Run the command line and return its exit code.

    0: done. 1: the API, the connection or the output failed. 2: usage error, or `export` refused the output. 3: `export` did
    not get everything. 130 or 143: interrupted.

    Args:
        args: The arguments. `None`: the arguments of the process.
    """
    if sys.stdout is None:
        print("error: standard output is closed", file=sys.stderr)
        return 1
    try:
        from ._group import run

        return run(args)
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich", "uvicorn"):
            raise
        print("error: the command line needs the extra 'cli': pip install '/path/to/clone[cli]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
