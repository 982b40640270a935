"""The example for Ray, on a cluster of several nodes on this machine: nodes that are killed, and drivers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
from fleets import Report
from processes import RedisServer, wait_until

from commenda_customers.testing import Emulator, RateLimit
from exports import Rows, held, read_parquet

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None or not Path("/proc/self/fd").exists(), reason="needs Ray (pip install ray), and Linux"
)

PROGRAM = Path(__file__).parent.parent.parent / "examples" / "ray_export.py"
CLUSTER = Path(__file__).with_name("ray_cluster.py")
NODES, SHARDS = 3, 6
CORPORATIONS = {f"corp_{number}": 2000 for number in range(40)}
PAGES = sum(CORPORATIONS.values()) // 100
QUICKLY = {
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""How soon Ray sees that a node is dead."""

Pages = Counter[tuple[str, str | None]]
"""How often each page was sent: its corporation and its cursor."""


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have started."""
    with suppress(FileNotFoundError, ProcessLookupError):
        direct = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [found for child in direct for found in (child, *children(child))]
    return []


def opened(pid: int) -> Iterator[Path]:
    """Yield the files that a process has open."""
    with suppress(OSError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield each.readlink()


class Node:
    """A node of the cluster: its raylet, and the processes of the raylet."""

    def __init__(self, raylet: int) -> None:
        self._raylet = raylet

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes."""
        for pid in [self._raylet, *children(self._raylet)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def shards(self, folder: Path) -> set[Path]:
        """Return the shards that its processes write: they hold the locks."""
        files = [file for pid in children(self._raylet) for file in opened(pid)]
        return {file.parent for file in files if file.name == "_lock" and file.is_relative_to(folder)}


class RayCluster:
    """A cluster in a process of its own. Nodes have the environment with the token; drivers do not."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        self._errors = Path(self._folder, "errors.txt")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, CLUSTER, self._folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **environment, **QUICKLY},
                start_new_session=True,
            )
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        self.address = self._read()
        return self

    def add_nodes(self) -> None:
        """Start nodes until there are enough."""
        assert self._process.stdin is not None
        while len(self.nodes) < NODES:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            self.nodes.append(Node(int(self._read())))

    def logs(self) -> dict[Path, bytes]:
        """Return all that Ray has written into files."""
        return {path: path.read_bytes() for path in Path(self._folder).rglob("*") if path.is_file()}

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._errors.read_text()
        return line.strip()

    def __exit__(self, *_: object) -> None:
        pids = [self._process.pid, *children(self._process.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator(CORPORATIONS, token="token-0f-the-ray-test", rate_limit=RateLimit(rate=60, burst=10)) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(server: Emulator, redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    redis = RedisServer(redis_program, tmp_path_factory.mktemp("redis"))
    try:
        redis.start()
        variables = {"COMMENDA_API_TOKEN": server.token, "COMMENDA_BASE_URL": server.base_url, "REDIS_URL": redis.url}
        with RayCluster(variables) as cluster:
            yield cluster
    finally:
        redis.stop()


class Run:
    """The program, with fewer shards, and what the server received since."""

    def __init__(
        self, cluster: RayCluster, server: Emulator, folder: Path, ids: Sequence[str] = tuple(CORPORATIONS)
    ) -> None:
        text = PROGRAM.read_text(encoding="utf-8")
        assert "\nSHARDS = " in text
        text = text.replace("\nSHARDS = ", f"\nSHARDS = {SHARDS}  # ")
        program, given = folder / "ray_export.py", folder / "ids.txt"
        program.write_text(text, encoding="utf-8")
        given.write_text("\n".join(ids), encoding="utf-8")
        self.output = folder / "customers"
        self._server = server
        self._first = len(server.requests)
        self._said = folder / "said.txt"
        settings = {"RAY_ADDRESS": cluster.address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONFAULTHANDLER": "1"}
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, program, given, self.output], stdout=said, stderr=said, env={**os.environ, **settings}
            )

    @property
    def said(self) -> str:
        return self._said.read_text(encoding="utf-8")

    def wait(self) -> int:
        """Wait for the exit code. If it hangs, let it write where."""
        try:
            return self.process.wait(timeout=180)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            pytest.fail(f"it hangs:\n{self.said}")

    def fetched(self) -> Pages:
        """Return the pages that were sent, and how often."""
        requests = self._server.requests[self._first :]
        return Counter((one.params["corporation_id"], one.params.get("cursor")) for one in requests if one.status == 200)

    def finished(self) -> set[str]:
        """Return the shards that are complete."""
        return {name for name, shard in self.manifest().items() if shard["is_complete"]}

    def manifest(self) -> dict[str, Any]:
        """Return what the program has written about its shards; nothing if it has just begun."""
        with suppress(FileNotFoundError):
            return dict(json.loads((self.output / "_manifest.json").read_text()))
        return {}

    def check(self) -> None:
        """Check that all customers are there once, and that the manifest says so."""
        manifest = self.manifest()
        assert all(shard["is_complete"] for shard in manifest.values())
        assert sum(shard["customers"] for shard in manifest.values()) == sum(CORPORATIONS.values())
        assert self.customers() == held(self._server, *CORPORATIONS)

    def customers(self) -> Rows:
        """Return all customers of the folders that the manifest names."""
        rows: Rows = Counter()
        for name in self.manifest():
            rows += read_parquet(self.output / name)
        return rows


def committed(shard: Path) -> int:
    """Return how many pages of a shard are committed."""
    with suppress(FileNotFoundError):
        return int(json.loads((shard / "_state.json").read_text())["data"]["rows"]) // 100
    return 0


def corporations_of(shard: Path) -> set[str]:
    """Return the corporations of a complete shard."""
    return {row[0] for row in read_parquet(shard)}


def check_repeated(before: Pages, after: Pages, kept: Mapping[Path, int]) -> None:
    """
    Check which pages were fetched twice: those that were not committed.

    For each corporation there may be two more: one on its way at the end, and one to compare when it resumes.
    """
    for shard, pages in kept.items():
        names = corporations_of(shard)
        lost = sum(number for (name, _), number in before.items() if name in names) - pages
        again = sum(number - 1 for (name, _), number in after.items() if name in names)
        assert again <= lost + 2 * len(names), shard


def freeze_a_busy_node(cluster: RayCluster, run: Run) -> tuple[Node, dict[Path, int]]:
    """Freeze a node in the middle of a shard. Return its shards, and how many pages of each are committed."""
    while True:
        assert run.process.poll() is None, run.said
        time.sleep(0.01)
        for node in cluster.nodes:
            if not any(map(committed, node.shards(run.output))):
                continue
            node.signal(signal.SIGSTOP)
            shards = {shard: committed(shard) for shard in node.shards(run.output)}
            if any(shards.values()):
                cluster.nodes.remove(node)
                return node, shards
            node.signal(signal.SIGCONT)  # it has just ended the shard


def test_a_node_is_killed_while_it_is_busy(cluster: RayCluster, server: Emulator, tmp_path: Path, report: Report) -> None:
    """Other nodes resume the shards of a node that was killed. Every customer is there once."""
    cluster.add_nodes()
    run = Run(cluster, server, tmp_path)
    node, shards = freeze_a_busy_node(cluster, run)
    node.signal(signal.SIGKILL)
    before, killed_at = run.fetched(), time.monotonic()
    assert run.wait() == 0, run.said
    seconds = time.monotonic() - killed_at
    run.check()

    after = run.fetched()
    report(
        shards_of_the_node=len(shards),
        pages_committed_of_them=sum(shards.values()),
        pages=PAGES,
        pages_fetched_twice=after.total() - len(after),
        seconds_from_the_kill_to_the_end=seconds,
    )
    check_repeated(before, after, shards)
    assert not [path for path, log in cluster.logs().items() if server.token.encode() in log]


def test_a_node_that_freezes_spoils_nothing(cluster: RayCluster, server: Emulator, tmp_path: Path, report: Report) -> None:
    """If Ray believes that a node is dead, and its processes still hold a shard, no other process writes to the shard."""
    cluster.add_nodes()
    run = Run(cluster, server, tmp_path)
    node, shards = freeze_a_busy_node(cluster, run)
    wait_until(lambda: len(run.finished()) == SHARDS - len(shards), "the others have nothing else to do")
    wait_until(lambda: "has been marked dead" in run.said, "Ray believes that the node is dead")
    kept = {shard: committed(shard) for shard in shards}
    node.signal(signal.SIGCONT)
    assert run.wait() == 0, run.said
    run.check()
    assert kept == shards
    report(pages=PAGES, pages_fetched_twice=run.fetched().total() - len(run.fetched()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_the_program_ends_early(
    number: signal.Signals, cluster: RayCluster, server: Emulator, tmp_path: Path, report: Report
) -> None:
    """Run again after a kill or Ctrl-C, it reads only what is missing. Ctrl-C saves every page."""
    cluster.add_nodes()
    first = Run(cluster, server, tmp_path)
    wait_until(lambda: bool(first.finished()), "a shard is complete")
    first.process.send_signal(number)
    first.process.wait(timeout=60)
    wait_until(lambda: not any(node.shards(first.output) for node in cluster.nodes), "the exports have ended")
    before = first.fetched()
    finished = first.finished()
    kept = {path: committed(path) for path in first.output.glob("shard-*") if path.name not in finished}
    assert any(kept.values())

    second = Run(cluster, server, tmp_path)
    assert second.wait() == 0, second.said
    second.check()
    after = before + second.fetched()
    report(pages=PAGES, pages_fetched_twice=after.total() - len(after), shards_complete_before=len(finished))
    check_repeated(before, after, kept)
    of_finished = {name for shard in finished for name in corporations_of(second.output / shard)}
    assert not {name for name, _ in second.fetched()} & of_finished
    if number == signal.SIGINT:
        assert after.total() - len(after) <= len(CORPORATIONS)  # the page with the last customer of each


def test_what_it_refuses(cluster: RayCluster, server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused token ends the job with one line. A complete copy is not read again, nor mixed with another one."""
    cluster.add_nodes()
    few = list(CORPORATIONS)[:3]
    with monkeypatch.context() as patch:
        patch.setattr(server, "token", "another")
        refused = Run(cluster, server, tmp_path, few)
        assert refused.wait() == 1
    lines = refused.said.splitlines()  # Ray writes there too, at the end as well
    assert sum(line.startswith("the server answered 401") for line in lines) == 1, refused.said

    complete = Run(cluster, server, tmp_path, few)
    assert complete.wait() == 0, complete.said
    again = Run(cluster, server, tmp_path, few)
    assert again.wait() == 0, again.said
    assert not again.fetched()
    assert again.manifest() == complete.manifest()
    assert again.customers() == held(server, *few)
    other = Run(cluster, server, tmp_path, list(CORPORATIONS)[:4])
    assert other.wait() == 1
    assert "name another folder" in other.said
