"""
Export the customers of many corporations on a Ray cluster: one rate limit for all machines.

    python ray_export.py ids.txt /shared/customers-2026-01-31   # one corporation id on each line

Before `ray start`, set COMMENDA_API_TOKEN and REDIS_URL on each machine: they must not go through Ray. All machines need the
extras `parquet` and `redis`, and the same folder on a file system whose locks hold between machines, such as NFS 4.

The corporations are split into shards. Each actor exports one shard after another, each into a folder of its own. If a
machine dies, other actors resume its shards after their last commit. `_manifest.json` lists the folders and what is missing.

If the exit code is not 0, run the same command again: it reads only what is missing. Another folder begins another copy.

Exit codes:
    0  Every corporation was read to its end.
    1  Something failed. All other shards are complete.
    2  The job ended early, for example because the server refused the token.
"""

import json
import os
import sys
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from commenda_customers import AsyncCustomersAPI, CustomersError
from commenda_customers.export import OutputError, OutputRefusedError, ParquetFolder, export
from commenda_customers.limits.redis import RedisLimiter

QUOTA = "prod"  # all programs with this token use the same name
SHARDS = 64  # many more than actors, so that all actors are busy until the end
ACTORS = 8  # those for which there is no room start later, or never
MOST_ATTEMPTS = 3  # perhaps the shard is what kills its actors

DEATHS = (RayActorError, OutOfMemoryError)
"""How an actor ends, or the machine that it runs on."""

Shard = tuple[Path, list[str]]
"""The folder of a shard, and its corporations."""


@ray.remote(num_cpus=0.2, scheduling_strategy="SPREAD")  # with a whole core, the others have no room if a machine dies
class Exporter:
    """Exports one shard after another with one client."""

    def __init__(self) -> None:
        self._is_open = anyio.Event()

    async def serve(self) -> None:
        """Keep the client open while the actor lives."""
        async with (
            RedisLimiter(os.environ["REDIS_URL"], quota=QUOTA) as limiter,
            AsyncCustomersAPI(rate_limit=limiter) as self._api,
        ):
            self._is_open.set()
            await anyio.sleep_forever()

    async def is_ready(self) -> None:
        """Wait until Ray has started the actor, and the client is open."""
        await self._is_open.wait()

    # After Ray has lost a machine, a process there may hold the lock of the folder for a while.
    @retry(retry=retry_if_exception_type(OutputRefusedError), wait=wait_fixed(5), stop=stop_after_delay(120), reraise=True)
    async def export(self, folder: Path, corporation_ids: list[str]) -> dict[str, Any]:
        """Export a shard, or resume it. Return its part of the manifest."""
        finished = folder.with_name(f"_{folder.name}.json")
        if finished.exists():
            return dict(json.loads(finished.read_text()))

        # Complete, but not finished? A process was killed in between. Read it again, to know what it lacks.
        is_complete = (folder / "_SUCCESS").exists() and not (folder / "_state.json").exists()
        summary = await export(self._api, corporation_ids, ParquetFolder(folder, fresh=is_complete))
        report = {
            "customers": summary.customers,
            "invalid_customers": summary.invalid_customers,
            "failures": {name: str(error) for name, error in summary.failures.items()},
            "shortfalls": dict(summary.shortfalls),
        }
        if summary.is_complete:
            write_json(finished, report)
        return report


class Job:
    """The shards that wait, and the reports of those that are done."""

    def __init__(self, shards: list[Shard]) -> None:
        self.reports: dict[str, dict[str, Any]] = {}
        self._shards = len(shards)
        self._waiting = deque(shards)
        self._attempts = Counter[Path]()

    async def run(self) -> None:
        """Export all shards."""
        async with anyio.create_task_group() as self._tasks:
            for _ in range(ACTORS):
                self._tasks.start_soon(self._employ)

    async def _employ(self) -> None:
        """Let an actor export shards until none waits. If it dies, start another one."""
        while self._waiting:
            actor = Exporter.remote()
            self._tasks.start_soon(self._serve, actor)
            try:
                await actor.is_ready.remote()  # an actor without room must not take a shard
                while self._waiting:
                    await self._export(actor, self._waiting.popleft())
            except DEATHS as exc:
                if getattr(exc, "actor_init_failed", False):
                    raise
                print(" ".join(str(exc).split()), file=sys.stderr)
            finally:
                ray.kill(actor)  # it may live where Ray cannot reach it

    async def _serve(self, actor: Any) -> None:
        with suppress(*DEATHS):  # `_employ` sees it too
            await actor.serve.remote()

    async def _export(self, actor: Any, shard: Shard) -> None:
        folder, _ = shard
        self._attempts[folder] += 1
        running = actor.export.remote(*shard)
        try:
            self._note(folder, await running)
        except OutputRefusedError as exc:
            self._note(folder, {"error": reason(exc)})
        except DEATHS:
            if self._attempts[folder] < MOST_ATTEMPTS:
                self._waiting.append(shard)
            else:
                self._note(folder, {"error": f"{MOST_ATTEMPTS} actors died"})
            raise
        except anyio.get_cancelled_exc_class():
            ray.cancel(running)  # the export commits what it has
            with anyio.move_on_after(30, shield=True), suppress(RayError):
                await running
            raise

    def _note(self, folder: Path, report: dict[str, Any]) -> None:
        self.reports[str(folder)] = report
        print(f"{folder}: {report.get('customers', 'failed')} ({len(self.reports)} of {self._shards})", flush=True)
        if len(self.reports) == self._shards:
            self._tasks.cancel_scope.cancel()


def split(corporation_ids: list[str], folder: Path) -> list[Shard]:
    """Return the shards of a copy, which are the same in each run."""
    copy, known = {"shards": SHARDS, "corporation_ids": corporation_ids}, folder / "_copy.json"
    folder.mkdir(exist_ok=True)
    if not known.exists():
        write_json(known, copy)
    if json.loads(known.read_text()) != copy:
        raise OutputRefusedError(f"{folder}: is a copy of other corporations, or has other shards; name another folder")

    shards: dict[int, list[str]] = {}
    for corporation_id in corporation_ids:
        shards.setdefault(crc32(corporation_id.encode()) % SHARDS, []).append(corporation_id)
    return [(folder / f"shard-{number:04}", shards[number]) for number in sorted(shards)]


def write_json(path: Path, content: Any) -> None:
    """Write a file in one step."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, indent=2))
    new.replace(path)


def reason(exc: BaseException) -> str:
    """Return the text of an error, without the traceback that Ray puts in front of it."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return str(exc.cause if isinstance(exc, RayTaskError) else exc)


def main() -> int:
    """Run the job. Return the exit code."""
    code, ids, folder = 2, Path(sys.argv[1]).read_text().split(), Path(sys.argv[2]).absolute()
    try:
        job = Job(split(sorted(set(ids)), folder))
        ray.init()
        anyio.run(job.run)
        is_complete = all(report.get("failures") == {} for report in job.reports.values())
        write_json(folder / "_manifest.json", {"is_complete": is_complete, "shards": dict(sorted(job.reports.items()))})
        code = 0 if is_complete else 1
    except* (CustomersError, OutputError, OSError, ValueError) as group:
        print(reason(group), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
