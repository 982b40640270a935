"""
Export the customers of many corporations on a Ray cluster: one rate limit for all machines.

    python ray_export.py ids.txt /shared/customers-2026-01-31   # one corporation id on each line

Before `ray start`, set COMMENDA_API_TOKEN and REDIS_URL on each machine: they must not go through Ray. All machines need the
extras `parquet` and `redis`, and the same folder on a file system whose locks hold between machines, such as NFS 4.

The corporations are split into shards. A process of its own exports each shard, into a folder of its own. If a machine dies,
Ray starts its shards on another one, and they resume after their last commit. `_manifest.json` lists the shards, what is in
them and what is missing.

The exit code is 0 if every corporation was read to its end. If not, run the same command again: it reads only what is
missing. Another folder begins another copy.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from commenda_customers import AsyncCustomersAPI, CustomersError
from commenda_customers.export import OutputError, OutputRefusedError, ParquetFolder, export, shard
from commenda_customers.limits.redis import RedisLimiter

QUOTA = "prod"  # all programs with this token use the same name
SHARDS = 16  # at most so many processes run at the same time; they share one limit, so more are not faster

Manifest = dict[str, dict[str, Any]]
"""What is known of each shard, by the name of its folder."""


@ray.remote(num_cpus=0.2, max_retries=3, scheduling_strategy="SPREAD")  # they mostly wait, so five fit on a core
def export_shard(folder: Path, corporation_ids: list[str]) -> dict[str, Any]:
    """Export a shard, or resume it. If its process or its machine dies, Ray calls this again elsewhere."""
    try:
        return anyio.run(read_all, folder, corporation_ids)
    except OutputRefusedError as exc:
        return {"is_complete": False, "error": str(exc)}


# A machine that Ray has lost may still hold the lock of the folder for a while. Then the folder is refused.
@retry(retry=retry_if_exception_type(OutputRefusedError), wait=wait_fixed(5), stop=stop_after_delay(120), reraise=True)
async def read_all(folder: Path, corporation_ids: list[str]) -> dict[str, Any]:
    """Read all that is missing in a shard. Return what the manifest says of it."""
    # Complete, but not in the manifest? The program was killed in between. Read it again, to know what it lacks.
    is_complete = (folder / "_SUCCESS").exists() and not (folder / "_state.json").exists()
    async with (
        RedisLimiter(os.environ["REDIS_URL"], quota=QUOTA) as limiter,
        AsyncCustomersAPI(rate_limit=limiter) as api,
    ):
        summary = await export(api, corporation_ids, ParquetFolder(folder, fresh=is_complete))
    return {
        "is_complete": summary.is_complete,
        "customers": summary.customers,
        "invalid_customers": summary.invalid_customers,
        "failures": {name: str(error) for name, error in summary.failures.items()},
        "shortfalls": dict(summary.shortfalls),
    }


def export_all(manifest: Manifest, folder: Path) -> None:
    """Export all shards that are not complete. Write the manifest after each."""
    ray.init()
    running = {
        export_shard.remote(folder / name, each["corporation_ids"]): name
        for name, each in manifest.items()
        if not each["is_complete"]
    }

    def note(task: Any) -> None:
        name = running[task]
        manifest[name] = {"corporation_ids": manifest[name]["corporation_ids"], **result(task)}
        write(manifest, folder)
        del running[task]
        print(f"{name}: {manifest[name].get('customers', 'failed')}; {len(running)} shards left", flush=True)

    try:
        while running:
            [done], _ = ray.wait(list(running))
            note(done)
    except BaseException:
        for task in running:
            ray.cancel(task)  # its export commits what it has
        ended, _ = ray.wait(list(running), num_returns=len(running), timeout=30)
        for task in ended:
            with suppress(RayError):  # it was cancelled, or is the one that failed
                note(task)
        raise


def result(task: Any) -> dict[str, Any]:
    """Return what the manifest says of a shard whose task has ended."""
    try:
        return dict(ray.get(task))
    except (RayTaskError, TaskCancelledError):  # it ended itself, for example because the server refused the token
        raise
    except RayError as exc:  # its process died again and again
        return {"is_complete": False, "error": str(exc)}


def plan(corporation_ids: list[str], folder: Path) -> Manifest:
    """Return the manifest of a copy: that of an earlier run, or a new one."""
    shards = {f"shard-{number:02}": shard(corporation_ids, number, of=SHARDS) for number in range(1, SHARDS + 1)}
    manifest: Manifest = {name: {"corporation_ids": ids, "is_complete": False} for name, ids in shards.items() if ids}
    if (folder / "_manifest.json").exists():
        known: Manifest = json.loads((folder / "_manifest.json").read_text())
        if [each["corporation_ids"] for each in known.values()] != [each["corporation_ids"] for each in manifest.values()]:
            raise OutputRefusedError(f"{folder}: has other corporations, or other shards; name another folder")
        return known

    folder.mkdir(exist_ok=True)
    write(manifest, folder)
    return manifest


def write(manifest: Manifest, folder: Path) -> None:
    """Write the manifest in one step."""
    new = folder / "_manifest.json.new"
    new.write_text(json.dumps(manifest, indent=2))
    new.replace(folder / "_manifest.json")


def main() -> None:
    """Export, and end with the exit code."""
    ids, folder = sorted(set(Path(sys.argv[1]).read_text().split())), Path(sys.argv[2]).absolute()
    try:
        manifest = plan(ids, folder)
        export_all(manifest, folder)
    except (CustomersError, OutputError, OSError, ValueError) as exc:
        sys.exit(str(exc.cause if isinstance(exc, RayTaskError) else exc))
    if missing := [name for name, each in manifest.items() if not each["is_complete"]]:
        sys.exit(f"not complete, see {folder / '_manifest.json'}: {', '.join(missing)}")


if __name__ == "__main__":
    main()
