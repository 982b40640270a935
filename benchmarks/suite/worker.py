"""The process of a job: measures, and prints the result as JSON. It imports only what the job needs."""

import asyncio  # noqa: TID251 - a program for asyncio does not start with anyio
import importlib
import json
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from .jobs import Job
from .server import run_on_core


def main() -> None:
    run_on_core(0)
    job = Job(**json.loads(sys.argv[1]))
    file, _, function = job.measure.partition(":")
    measure = partial(getattr(importlib.import_module(f"suite.{file}"), function), job)
    print(json.dumps(run(measure, job.backend)))


def run(measure: Callable[[], Coroutine[Any, Any, dict[str, Any]]], backend: str) -> dict[str, Any]:
    """Run it in an event loop."""
    if backend == "asyncio":
        return asyncio.run(measure())
    if backend == "uvloop":
        import uvloop  # noqa: PLC0415 - may not be installed

        return uvloop.run(measure())

    import trio  # noqa: PLC0415 - may not be installed

    return trio.run(measure)


if __name__ == "__main__":
    main()
