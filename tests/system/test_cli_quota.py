"""`--quota`: commands that share a limit."""

import gzip
import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import pytest

from commenda_customers import AdaptiveLimiter
from commenda_customers.cli import main
from commenda_customers.testing import faults
from emulated import ServeEmulator
from fake_redis import fake_redis

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = sysconfig.get_path("scripts")
BOTH = ["--corporation", "corp_1", "--corporation", "corp_2"]
SIZES = {"corp_1": 250, "corp_2": 3}
PASSWORD = "s3cr3t-of-redis"
URL = f"redis://:{PASSWORD}@127.0.0.1:6379/0"
QUOTA = f"{URL}#prod"

LOGGER = logging.getLogger("commenda_customers.limits")


class Shared(AdaptiveLimiter):
    """A limiter that is entered, as one that is connected to a server."""

    used: ClassVar[list["Shared"]] = []
    fails: ValueError | None = None
    warns: str | None = None

    def __init__(self, url: str, *, quota: str) -> None:
        super().__init__()
        self.given = (url, quota)
        self.states: list[str] = []
        self.used.append(self)

    async def __aenter__(self) -> Self:
        if self.fails is not None:
            raise self.fails
        self.states.append("entered")
        if self.warns:
            LOGGER.warning(self.warns)
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        self.states.append("left")

    async def acquire(self, **options: Any) -> Any:
        self.states.append("request")
        return await super().acquire(**options)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> type[Shared]:
    """Put a limiter in memory in the place of the one of Redis."""
    module = ModuleType("commenda_customers.limits.redis")
    module.RedisLimiter = Shared  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name, value in {"used": [], "fails": None, "warns": None}.items():
        monkeypatch.setattr(Shared, name, value)
    return Shared


@pytest.mark.parametrize("args", [["export", *BOTH, "--output", "a.jsonl"], ["list", "corp_1", "corp_2"]])
@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_command_uses_the_quota(
    args: list[str],
    by: str,
    shared: type[Shared],
    serve: ServeEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limiter is entered before the first request, gets all of them, and is left at the end."""
    server = serve(SIZES)
    if by == "environment":
        monkeypatch.setenv("COMMENDA_QUOTA", QUOTA)
        assert main(args) == 0
    else:
        assert main([*args, "--quota", QUOTA]) == 0
    [limiter] = shared.used
    assert limiter.given == (URL, "prod")
    assert limiter.states == ["entered", *["request"] * len(server.requests), "left"]
    assert len(server.requests) == 4


@pytest.mark.parametrize("args", [["export", *BOTH, "--output", "a.jsonl"], ["list", "corp_1"]])
def test_a_limiter_that_cannot_work_is_a_usage_error(
    args: list[str], shared: type[Shared], serve: ServeEmulator, capfd: pytest.CaptureFixture[str]
) -> None:
    """If Redis refuses the password, the command says so before any request, and ends with exit code 2."""
    server = serve(SIZES)
    shared.fails = ValueError("url: Redis refused the password")
    assert main([*args, "--quota", QUOTA]) == 2
    command = f"commenda-customers {args[0]}"
    expected = f"error: url: Redis refused the password\nTry '{command} --help' for help.\n"
    assert capfd.readouterr() == ("", expected)
    assert server.requests == []


def test_the_limiter_is_left_after_an_error(shared: type[Shared], serve: ServeEmulator) -> None:
    """The limiter is left however the command ends, so that its share goes to the others at once."""
    serve(SIZES, faults=[faults.Status(401)])
    assert main(["list", "corp_1", "--quota", QUOTA]) == main(["export", *BOTH, "--output", "a.db", "--quota", QUOTA]) == 1
    assert [limiter.states[-1] for limiter in shared.used] == ["left", "left"]


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("log", ["", "warning"])
@pytest.mark.parametrize("args", [["export", *BOTH, "--output", "a.jsonl", "--quiet"], ["list", "corp_2"]])
def test_a_warning_of_the_limiter_is_one_line(
    args: list[str],
    log: str,
    serve: ServeEmulator,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A warning of the limiter is a line on standard error, also with `--quiet`, but not twice: the log may be shown."""
    serve(SIZES)
    monkeypatch.setenv("COMMENDA_LOG", log)
    monkeypatch.setattr(Shared, "warns", "Redis is away")
    assert main([*args, "--quota", QUOTA]) == 0
    LOGGER.warning("later")
    assert capfd.readouterr().err == ("" if log else "warning: Redis is away\n")
    assert LOGGER.handlers == []


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
    """What a scheduler does with a job of four shares: it starts a script for each, and tells it the number."""

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
    The scripts of the documentation, once for each share and side by side, write each corporation exactly once. Shares that
    failed are completed by running the same script again. Shares that are complete end at once.
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

    with fake_redis() as url:
        secrets = {"COMMENDA_API_TOKEN": server.token, "COMMENDA_QUOTA": f"{url}#prod"}
        Path("commenda.env").write_text("".join(f"{name}='{value}'\n" for name, value in secrets.items()))
        for name, value in secrets.items():
            monkeypatch.setenv(name, value if scheduler.has_secrets else "")
        assert sorted(run()) == [0, 0, 0, 3]
        server.faults.remove(broken)
        asked = len(server.requests)
        assert run() == [0, 0, 0, 0]
        assert {request.params["corporation_id"] for request in server.requests[asked:]} == {"corp_7"}
    lines = b"".join(gzip.decompress(path.read_bytes()) for path in Path().glob("share-*.jsonl.gz")).splitlines()
    ids = [(customer["corporation_id"], customer["id"]) for customer in map(json.loads, lines)]
    assert sorted(ids) == sorted((name, customer["id"]) for name in sizes for customer in server.customers(name))
