"""Exports of every kind that are killed again and again. `pytest --kills N` says how often; `nox -s kills` does it often."""

import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from commenda_customers.testing import faults
from emulated import ServeEmulator
from exports import KINDS, Kind, die_after, fork_export, held, invalid_held, make_lists

TROUBLE = [
    faults.Drop(probability=0.02),
    faults.CutBody(probability=0.02),
    faults.Status(probability=0.02),
    faults.TooManyRequests(probability=0.01, retry_after="0"),
]
COMMIT_EVERY, CONCURRENCY = 5, 4


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_export_is_exact_however_often_it_is_killed(kind: Kind, kills: int, serve: ServeEmulator, tmp_path: Path) -> None:
    """Killed at any moment and at any line, and run again, it has every customer and every invalid row once, and no more."""
    draw = random.Random(kind.name)
    lists = make_lists(draw)
    server = serve(lists, latency=0.002, faults=TROUBLE)
    folder = tmp_path / "out"
    folder.mkdir()
    options = {"limit": 20, "commit_every": COMMIT_EVERY, "concurrency": CONCURRENCY}
    killed, code = 0, None
    while killed < kills:
        fresh = code == 0  # it was faster than the kill
        if fresh:
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
        if killed % 2:
            process = fork_export(
                kind, folder, server, list(lists), partial(die_after, int(10 ** draw.uniform(0, 3.5))), **options
            )
        else:
            goal = len(server.requests) + draw.randrange(40)
            process = fork_export(kind, folder, server, list(lists), **options)
            while process.is_alive() and len(server.requests) < goal:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.005))
            process.kill()
        process.join(120)
        code = process.exitcode
        assert code in {0, -signal.SIGKILL}, (tmp_path / "errors").read_text()
        killed += code != 0

    process = fork_export(kind, folder, server, list(lists), **options)
    process.join(120)
    assert process.exitcode == 0, (tmp_path / "errors").read_text()
    assert kind.rows(folder) == held(server, *lists)
    assert kind.invalid(folder) == invalid_held(server, *lists)
    assert kind.left_behind(folder) == set()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kill_costs_few_pages(kind: Kind, serve: ServeEmulator, tmp_path: Path) -> None:
    """After a kill, at most the pages of one commit come again, and two pages of each corporation in flight."""
    draw = random.Random(kind.name)
    sizes = {"corp_1": 700, "corp_2": 150, "corp_3": 150, "corp_4": 400, "corp_5": 10}
    server = serve(sizes, latency=0.002)
    options = {"limit": 10, "commit_every": COMMIT_EVERY, "concurrency": CONCURRENCY}
    kills = 0
    for _ in range(3):
        goal = len(server.requests) + draw.randrange(20, 40)
        process = fork_export(kind, tmp_path, server, list(sizes), **options)
        while process.is_alive() and len(server.requests) < goal:
            time.sleep(0.001)
        process.kill()
        process.join(120)
        kills += process.exitcode != 0

    process = fork_export(kind, tmp_path, server, list(sizes), **options)
    process.join(120)
    assert process.exitcode == 0
    assert kills
    assert len(server.requests) <= sum(sizes.values()) / 10 + kills * (COMMIT_EVERY + 2 * CONCURRENCY)
