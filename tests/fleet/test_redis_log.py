"""The log in a real Redis: what it needs to be permitted, and what it does when Redis is frozen, killed or full."""

import os
import signal
import statistics
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from redis import Redis

from commenda_customers.limits._log import LogUnavailableError, Snapshot
from commenda_customers.limits._redis_log import RedisLog
from commenda_customers.limits._redis_url import RedisURL
from waiting import until

pytestmark = pytest.mark.anyio

NEEDED = ["xadd", "xrange", "xread", "time", "get", "set", "expire", "multi", "exec"]
KEYS = "~commenda-customers:*"


@pytest.fixture
def client(redis_server: Any) -> Iterator[Any]:
    with Redis(port=redis_server.port, decode_responses=True) as client:
        yield client


def make_log(port: int, login: str = "") -> RedisLog:
    return RedisLog(RedisURL(f"redis://{login}127.0.0.1:{port}"), quota="prod")


async def test_it_needs_few_permissions(redis_server: Any, client: Any) -> None:
    """Nine commands on its own keys are enough. The last one that is missing is named when the log is opened."""
    client.execute_command("ACL", "SETUSER", "few", "on", ">pass", KEYS, *(f"+{name}" for name in NEEDED))
    log = make_log(redis_server.port, "few:pass@")
    await log.open()
    assert client.keys() == []
    reading = await log.exchange("a", "0-0")
    await log.save(Snapshot(reading.entries[-1].id, "s"))
    snapshot, reading = await log.read()
    assert snapshot is not None
    assert [entry.text for entry in reading.entries] == ["a"]
    await log.notify()
    await log.wait_for_notice()
    await log.clear()
    assert client.keys() == []
    await log.aclose()


async def test_a_notice(redis_server: Any, client: Any) -> None:
    """It comes within milliseconds. Who stops waiting leaves no connection behind."""
    one, other = make_log(redis_server.port), make_log(redis_server.port)
    waited = list[float]()
    for _ in range(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.wait_for_notice)
            await anyio.sleep(0.02)
            began = anyio.current_time()
            await one.notify()
        waited.append(anyio.current_time() - began)
    assert statistics.median(waited) < 0.1
    with anyio.move_on_after(0.1):
        await other.wait_for_notice()
    await one.aclose()
    await other.aclose()
    await until(lambda: len(client.client_list()) == 1)


async def test_no_notice(redis_server: Any, client: Any) -> None:
    """If none comes, a wait ends without an error after some seconds. It keeps its connection."""
    log = make_log(redis_server.port)
    for _ in range(2):
        began = anyio.current_time()
        await log.wait_for_notice()
        assert anyio.current_time() - began > 4
    assert len(client.client_list()) == 2
    await log.aclose()


@pytest.mark.parametrize("name", ["log", "state", "notices"])
async def test_a_name_that_is_taken(redis_server: Any, client: Any, name: str) -> None:
    """If another program uses one of the keys for something else, opening fails, and the error shows where they are."""
    client.sadd(f"commenda-customers:1:{{prod}}:{name}", "of somebody else")
    with pytest.raises(ValueError, match=r"something else under the name commenda-customers:1:{prod}:\*$"):
        await make_log(redis_server.port).open()


@pytest.mark.parametrize("missing", [*NEEDED, KEYS])
async def test_a_missing_permission_is_an_error(redis_server: Any, client: Any, missing: str) -> None:
    """Whatever is missing, opening fails, and changes nothing."""
    permitted = [KEYS, *(f"+{name}" for name in NEEDED)]
    permitted = [rule for rule in permitted if rule.removeprefix("+") != missing]
    client.execute_command("ACL", "SETUSER", "fewer", "on", ">pass", *permitted)
    with pytest.raises(
        ValueError, match=r"^url: Redis at 127\.0\.0\.1:\d+ (does not permit|refuses) what the limiter needs"
    ):
        await make_log(redis_server.port, "fewer:pass@").open()
    assert client.keys() == []


async def test_a_password(redis_server: Any, client: Any) -> None:
    """A wrong one, a missing one, and one that is not needed are errors when the log is opened, and may pass later."""
    log = make_log(redis_server.port)
    await log.open()
    with pytest.raises(ValueError, match="^url: .* refuses the user name or the password: AUTH <password> called without"):
        await make_log(redis_server.port, ":secret@").open()
    client.config_set("requirepass", "secret")
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(LogUnavailableError, match="Authentication required"):
        await log.exchange("a", "0-0")
    with pytest.raises(ValueError, match="^url: .* refuses the user name or the password: Authentication required$"):
        await log.open()
    with pytest.raises(ValueError, match="^url: .* refuses the user name or the password: invalid"):
        await make_log(redis_server.port, ":wrong@").open()
    right = make_log(redis_server.port, ":secret@")
    await right.open()
    await right.aclose()


async def test_a_frozen_server(redis_server: Any) -> None:
    """A call fails, and the log works again when the server does. What was sent meanwhile may be in the log."""
    log = make_log(redis_server.port)
    await log.open()
    os.kill(redis_server.process.pid, signal.SIGSTOP)
    try:
        for call in (log.exchange("lost", "0-0"), log.open(), log.read()):
            with pytest.raises(LogUnavailableError, match="did not answer in time$"):
                await call
    finally:
        os.kill(redis_server.process.pid, signal.SIGCONT)
    reading = await log.exchange("a", "0-0")
    assert [entry.text for entry in reading.entries if entry.text != "lost"] == ["a"]
    await log.aclose()


async def test_a_killed_server(redis_server: Any) -> None:
    """The open connection and new ones fail at once."""
    log = make_log(redis_server.port)
    await log.open()
    redis_server.process.kill()
    redis_server.process.wait()
    for call in (log.exchange("a", "0-0"), log.open()):
        with pytest.raises(LogUnavailableError, match="cannot be used now: "):
            await call
    await log.aclose()


async def test_a_server_that_writes_nothing(redis_server: Any, client: Any) -> None:
    """Out of memory, or a replica: that may pass, and does. A connection that Redis has closed is made again."""
    log = make_log(redis_server.port)
    client.config_set("maxmemory", 1)
    for call in (log.open(), log.exchange("a", "0-0"), log.save(Snapshot("1-0", "s"))):
        with pytest.raises(LogUnavailableError, match="command not allowed when used memory"):
            await call
    client.config_set("maxmemory", 0)
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    for call in (log.open(), log.exchange("a", "0-0")):
        with pytest.raises(LogUnavailableError, match="You can't write against a read only replica"):
            await call
    client.execute_command("REPLICAOF", "NO", "ONE")
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert [entry.text for entry in (await log.exchange("a", "0-0")).entries] == ["a"]
    await log.aclose()


async def test_old_entries_are_dropped(redis_server: Any, client: Any) -> None:
    """Thousands of entries are kept, and not many more."""
    log = make_log(redis_server.port)
    with client.pipeline(transaction=False) as pipe:
        for number in range(12_000):
            pipe.xadd("commenda-customers:1:{prod}:log", {"text": number})
        pipe.execute()
    entries = (await log.exchange("last", "0-0")).entries
    assert 8_000 <= len(entries) <= 8_200
    assert entries[-1].text == "last"
    await log.aclose()
