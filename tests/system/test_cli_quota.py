"""`--quota`: commands that share a limit."""

import gzip
import json
import logging
import os
import re
import subprocess
import sysconfig
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from redis import Redis
from test_cli_terminal import COMMAND, Terminal, shown

from commenda_customers import Permit
from commenda_customers.cli import main
from commenda_customers.limits.redis import RedisLimiter
from commenda_customers.testing import faults
from emulated import ServeEmulator
from gates import MakeGate
from redis_servers import working_redis

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = sysconfig.get_path("scripts")
BOTH = ["--corporation", "corp_1", "--corporation", "corp_2"]
SIZES = {"corp_1": 250, "corp_2": 3}
PASSWORD = "s3cr3t-of-redis"
AWAY = f"redis://:{PASSWORD}@127.0.0.1:1/0#prod"
LOGGER = logging.getLogger("commenda_customers.limits")


class Recorded(RedisLimiter):
    """A limiter that notes what happens to it."""

    all: ClassVar[list["Recorded"]] = []

    def __init__(self, url: str, *, quota: str) -> None:
        super().__init__(url, quota=quota)
        self.given = (url, quota)
        self.states: list[str] = []
        self.all.append(self)

    async def __aenter__(self) -> Self:
        self.states.append("entered")
        return await super().__aenter__()

    async def __aexit__(self, *exc_info: object) -> None:
        await super().__aexit__(*exc_info)
        self.states.append("left")

    async def acquire(self, **options: Any) -> Permit:
        self.states.append("request")
        return await super().acquire(**options)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def limiters(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """Return the limiters that commands make."""
    monkeypatch.setattr("commenda_customers.limits.redis.RedisLimiter", Recorded)
    monkeypatch.setattr(Recorded, "all", [])
    return Recorded.all


@pytest.mark.parametrize("args", [["export", *BOTH, "--output", "a.jsonl"], ["list", "corp_1", "corp_2"]])
@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_command_uses_the_quota(
    args: list[str], by: str, limiters: list[Recorded], serve: ServeEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limiter is entered before the first request, gets all of them, and is left at the end."""
    server = serve(SIZES)
    with working_redis() as url:
        quota = f"{url}#prod"
        if by == "environment":
            monkeypatch.setenv("COMMENDA_QUOTA", quota)
        assert main([*args, *(["--quota", quota] if by == "option" else [])]) == 0
    [limiter] = limiters
    assert limiter.given == (url, "prod")
    assert limiter.states == ["entered", *["request"] * len(server.requests), "left"]
    assert len(server.requests) == 4


def test_the_limiter_is_left_after_an_error(limiters: list[Recorded], serve: ServeEmulator) -> None:
    """The limiter is left however the command ends, so that its share goes to the others at once."""
    serve(SIZES, faults=[faults.Status(401)])
    with working_redis() as url:
        for args in (["list", "corp_1"], ["export", *BOTH, "--output", "a.db"]):
            assert main([*args, "--quota", f"{url}#prod"]) == 1
    assert [limiter.states[-1] for limiter in limiters] == ["left", "left"]


COMMANDS = [["export", *BOTH, "--output", "a.jsonl", "--quiet"], ["list", "corp_2"]]


@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: args[0])
def test_a_password_that_redis_refuses(args: list[str], serve: ServeEmulator) -> None:
    """It is a usage error before the first request. Not even the log shows the password."""
    server = serve(SIZES)
    with working_redis() as url:
        quota = url.replace("redis://", f"redis://:{PASSWORD}@") + "#prod"
        command = [*COMMAND, *args, "--debug", "--quota", quota]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: url: Redis at {url[8:]} refuses the user name or the password" in done.stderr
    assert PASSWORD not in done.stderr
    assert server.requests == []


@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: args[0])
def test_without_redis_the_command_goes_on(args: list[str], serve: ServeEmulator, capfd: pytest.CaptureFixture[str]) -> None:
    """If Redis is away, the command reads everything. It says so in one line without the password, also with `--quiet`."""
    serve(SIZES)
    assert main([*args, "--quota", AWAY]) == 0
    LOGGER.warning("the command has ended")
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert "127.0.0.1:1" in line
    assert PASSWORD not in line


def test_a_warning_is_not_repeated_if_the_log_is_shown(serve: ServeEmulator) -> None:
    """With `COMMENDA_LOG`, the log has the warning of the limiter, and nothing else repeats it."""
    serve(SIZES)
    env = {**os.environ, "COMMENDA_LOG": "warning", "COMMENDA_QUOTA": AWAY}
    done = subprocess.run([*COMMAND, *COMMANDS[1]], env=env, capture_output=True, text=True, check=True)
    [line] = done.stderr.splitlines()
    assert " WARNING commenda_customers" in line
    assert PASSWORD not in line


def test_a_warning_beside_the_progress(serve: ServeEmulator, make_gate: MakeGate) -> None:
    """On a terminal, the warning is a line above the progress. It stays, and the progress does not."""
    gate = make_gate(corporation_id="corp_2")
    serve(SIZES, faults=[gate])
    with Terminal([*COMMAND, "export", *BOTH, "--output", "a.jsonl", "--quota", AWAY], columns=200) as terminal:
        terminal.wait_for("1 of 2 corporations done")
        gate.is_open.set()
        code, written = terminal.finish()
    assert code == 0
    lines = [line for line in shown(written) if line]
    assert lines[0].startswith("warning: ")
    assert lines[1] == "253 customers written to a.jsonl; 2 corporations complete"
    assert len(lines) == 3


FLEETS = (ROOT / "docs" / "fleets.md").read_text(encoding="utf-8")


def script_of_kubernetes() -> str:
    """Return the script of the Job in the documentation."""
    found = re.search(r"(?m)^( +)- \|\n((?:\1  .*\n)+)", FLEETS)
    assert found is not None
    return textwrap.dedent(found[2])


def script_of_slurm() -> str:
    """Return the batch script in the documentation."""
    found = re.search(r'(?s)```sh title="customers.sbatch"\n(.*?)^```', FLEETS, re.MULTILINE)
    assert found is not None
    return found[1]


@dataclass(frozen=True)
class Scheduler:
    """What a scheduler does with a job of four shards: it starts a script for each, and tells it the number."""

    shell: list[str]
    script: str
    variable: str
    first: int
    has_secrets: bool


SCHEDULERS = {
    "Kubernetes": Scheduler(["sh", "-euc"], script_of_kubernetes(), "JOB_COMPLETION_INDEX", 0, has_secrets=True),
    "SLURM": Scheduler(["bash", "-c"], script_of_slurm(), "SLURM_ARRAY_TASK_ID", 1, has_secrets=False),
}


@pytest.mark.one_python
@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_job_on_a_scheduler(scheduler: Scheduler, serve: ServeEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The scripts of the documentation, once for each shard and side by side, write each corporation exactly once. Shards that
    failed are completed by running the same script again. Shards that are complete end at once.
    """
    sizes = {f"corp_{number}": 10 * number + 1 for number in range(12)}
    broken = faults.Status(403, corporation_id="corp_7")
    server = serve(sizes, faults=[broken])
    Path("corporations.txt").write_text("\n".join(sizes))
    monkeypatch.setenv("PATH", os.pathsep.join([SCRIPTS, os.environ["PATH"]]))

    def run() -> list[int]:
        tasks = [
            subprocess.Popen(
                [*scheduler.shell, scheduler.script],
                env={**os.environ, scheduler.variable: str(number)},
                stderr=subprocess.PIPE,
            )
            for number in range(scheduler.first, scheduler.first + 4)
        ]
        for task in tasks:
            task.communicate(timeout=120)
        return [task.returncode for task in tasks]

    with working_redis() as url:
        secrets = {"COMMENDA_API_TOKEN": server.token, "COMMENDA_QUOTA": f"{url}#prod"}
        Path("commenda.env").write_text("".join(f"{name}='{value}'\n" for name, value in secrets.items()))
        for name, value in secrets.items():
            monkeypatch.setenv(name, value if scheduler.has_secrets else "")
        assert sorted(run()) == [0, 0, 0, 3]
        server.faults.remove(broken)
        asked = len(server.requests)
        assert run() == [0, 0, 0, 0]
        assert {request.params["corporation_id"] for request in server.requests[asked:]} == {"corp_7"}
        with Redis.from_url(url, decode_responses=True) as redis:
            assert redis.keys("*{prod}*")
    lines = b"".join(gzip.decompress(path.read_bytes()) for path in Path().glob("shard-*.jsonl.gz")).splitlines()
    ids = [(customer["corporation_id"], customer["id"]) for customer in map(json.loads, lines)]
    assert sorted(ids) == sorted((name, customer["id"]) for name in sizes for customer in server.customers(name))
