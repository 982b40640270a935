"""Jobs: one measurement each, in a process of its own."""

import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .server import environment

LONGEST = 600.0
"""Seconds after which a job is ended."""


@dataclass(frozen=True)
class Job:
    """
    What one process measures.

    Attributes:
        measure: The function that measures, as `file:function`.
        url: The address of the API.
        contender: Who reads.
        corporations: How many.
        pages: Of each corporation.
        in_flight: How many requests at once.
        times: How often everything is read.
        backend: The event loop.
        is_frozen: The program calls `gc.freeze()` after its imports.
        is_first_use: The client is new: there is no warm-up.
    """

    measure: str
    url: str = ""
    contender: str = ""
    corporations: int = 1
    pages: int = 1
    in_flight: int = 1
    times: int = 1
    backend: str = "asyncio"
    is_frozen: bool = False
    is_first_use: bool = False

    @property
    def all_pages(self) -> int:
        """How many pages are read."""
        return self.corporations * self.pages * self.times

    def freeze(self) -> None:
        """Freeze what was imported, if the job wants it."""
        if self.is_frozen:
            gc.collect()
            gc.freeze()

    def run(self) -> dict[str, Any]:
        """Run it in a process of its own; return what it measured."""
        return run_python(["-m", "suite.worker", json.dumps(asdict(self))])


def run_python(arguments: Sequence[str]) -> dict[str, Any]:
    """Run Python; return what it prints as JSON. What it writes to stderr is shown."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=LONGEST, env=environment())
    result: dict[str, Any] = json.loads(done.stdout)
    return result
