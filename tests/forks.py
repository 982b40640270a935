"""Runs an example in a forked process. Starting Python takes longer than a kill, and these tests kill again and again."""

import multiprocessing
import os
import runpy
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# The processes are forked from one that has imported everything.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["anyio._backends._asyncio", "commenda_customers", "httpx", "pyarrow.compute", "pyarrow.parquet", "pytest"]
)


def fork(program: Path, *args: str, folder: Path, errors: Path, prepare: Callable[[], object]) -> Any:
    """Start a program in *folder*, with standard error in the file *errors*. *prepare* is called before, in its process."""
    environment = {name: os.environ[name] for name in ("COMMENDA_BASE_URL", "COMMENDA_API_TOKEN")}
    options = {"folder": folder, "errors": errors, "prepare": prepare}
    process = FORKS.Process(target=_run, args=(program, args, environment), kwargs=options)
    process.start()
    return process


def _run(
    program: Path,
    args: tuple[str, ...],
    environment: Mapping[str, str],
    *,
    folder: Path,
    errors: Path,
    prepare: Callable[[], object],
) -> None:
    warnings.simplefilter("error")
    sys.stderr = errors.open("w")
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = [str(program), *args]
    prepare()
    runpy.run_path(str(program), run_name="__main__")
