"""Unit tests: no network, no processes, time that jumps to whatever is waited for, and the same random numbers each time."""

import random
import secrets
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis.internal.entropy import deterministic_PRNG

import virtual_time

_FORBIDDEN = {"subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.system"}
_is_unit_test = False
_violations: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    """Refuse sockets and processes in a unit test (an audit hook: nothing gets round it, and it cannot be removed)."""
    if not _is_unit_test:
        return
    if event in _FORBIDDEN or (event == "socket.__new__" and args[1] in {socket.AF_INET, socket.AF_INET6}):
        _violations.append(event)
        pytest.fail(f"a unit test must not use {event}; move it to tests/system")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def _no_sockets_and_no_processes() -> Iterator[None]:
    """Fail a test that opens a socket or starts a process, even where the code under test swallows the exception."""
    global _is_unit_test  # noqa: PLW0603 - an audit hook has no other state
    _is_unit_test = True
    _violations.clear()
    try:
        yield
    finally:
        _is_unit_test = False
    assert _violations == []


@pytest.fixture(autouse=True)
def _same_random_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Seed all that is random, and with it the order in which trio runs tasks: chance is in `--seed` alone."""
    monkeypatch.setattr(secrets, "token_hex", lambda size: random.randbytes(size).hex())
    with deterministic_PRNG(request.config.getoption("--seed")):
        yield


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run on both backends, in virtual time."""
    return virtual_time.virtual_backend(request.param)
