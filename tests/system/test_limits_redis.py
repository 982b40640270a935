"""The log in Redis, on real sockets: what it keeps, and what happens if Redis cannot be used."""

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from redis import Redis as Client

from commenda_customers.limits import _redis_calls, _redis_log
from commenda_customers.limits._log import LogUnavailableError, Snapshot
from commenda_customers.limits._redis_log import RedisLog
from commenda_customers.limits._redis_url import RedisURL
from commenda_customers.limits.redis import RedisLimiter
from leaks import TOKEN, reported, see
from raw_server import Connection, RawServer
from redis_servers import Redis, says, working_redis
from waiting import until

pytestmark = pytest.mark.anyio

LOG, STATE, NOTICES = (f"commenda-customers:1:{{prod}}:{name}" for name in ("log", "state", "notices"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with working_redis() as url:
        yield url


@pytest.fixture
def client(server: str) -> Iterator[Any]:
    """Another program's client of an empty Redis."""
    with Client.from_url(server, decode_responses=True, protocol=2) as client:
        client.flushall()
        yield client


def make_log(url: str, quota: str = "prod") -> RedisLog:
    return RedisLog(RedisURL(url), quota=quota)


def url_of(server: RawServer, login: str = "") -> str:
    return server.url.replace("http://", f"redis://{login}")


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "(run)" in thread.name]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for longer than a busy machine needs."""
    monkeypatch.setattr(_redis_calls, "TIMEOUT", 60)
    monkeypatch.setattr(_redis_calls, "_PATIENCE", 120)


class TestWhatItKeeps:
    async def test_all_see_the_same_entries_in_the_same_order(self, server: str, client: Any) -> None:
        """An exchange returns the own entry and those of the others, from a given one on."""
        one, other = make_log(server), make_log(server)
        await one.open()
        await other.open()
        assert await one.read() == (None, (pytest.approx(client.time()[0], abs=30), []))
        first = await one.exchange("a", "0-0")
        second = await other.exchange("b {} é\n", first.entries[-1].id)
        third = await one.exchange("c", second.entries[-1].id)
        assert [entry.text for entry in second.entries] == ["a", "b {} é\n"]
        assert [entry.text for entry in third.entries] == ["b {} é\n", "c"]
        assert (await other.read())[1].entries == [*first.entries, *third.entries]
        assert third.entries[-1].time == pytest.approx(third.time, abs=30)
        await one.aclose()
        await other.aclose()

    async def test_who_comes_later_reads_from_the_snapshot_on(self, server: str, client: Any) -> None:
        """A snapshot has any text. With it come the entry at its position, and all later ones."""
        log = make_log(server)
        ids = [(await log.exchange(text, "0-0")).entries[-1].id for text in "abc"]
        await log.save(Snapshot(ids[0], "old"))
        await log.save(Snapshot(ids[1], 'new {"é": 1}'))
        snapshot, reading = await log.read()
        assert snapshot == (ids[1], 'new {"é": 1}')
        assert [entry.text for entry in reading.entries] == ["b", "c"]
        await log.aclose()

    async def test_it_is_forgotten_when_nobody_uses_it(self, server: str, client: Any) -> None:
        """Both keys of a log expire minutes after the last exchange, and at once when the log is cleared."""
        log = make_log(server)
        reading = await log.exchange("a", "0-0")
        await log.save(Snapshot(reading.entries[-1].id, "s"))
        assert set(client.keys()) == {LOG, STATE}
        client.persist(LOG)
        client.expire(STATE, 5)
        await log.exchange("b", "0-0")
        assert all(60 < client.ttl(key) <= 300 for key in (LOG, STATE))
        await log.clear()
        assert client.keys() == []
        assert await log.read() == (None, (pytest.approx(client.time()[0], abs=30), []))
        await log.aclose()

    async def test_quotas_have_logs_of_their_own(self, server: str, client: Any) -> None:
        """The same Redis has several quotas, by name."""
        one, other = make_log(server), make_log(server, "other")
        await one.exchange("a", "0-0")
        assert [entry.text for entry in (await other.exchange("b", "0-0")).entries] == ["b"]
        await one.aclose()
        await other.aclose()

    async def test_old_entries_are_dropped(self, server: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The log does not grow for ever."""
        monkeypatch.setattr(_redis_log, "_KEPT", 10)
        for number in range(300):
            client.xadd(LOG, {"text": number})
        log = make_log(server)
        entries = (await log.exchange("last", "0-0")).entries
        assert 10 <= len(entries) < 200
        assert entries[-1].text == "last"
        await log.aclose()

    async def test_fewer_long_entries_are_kept(self, server: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process with many requests writes long entries, which must not fill Redis."""
        monkeypatch.setattr(_redis_log, "_SPACE", 10_000)
        monkeypatch.setattr(_redis_log, "_FEWEST_KEPT", 10)
        log = make_log(server)
        for number in range(300):
            client.xadd(LOG, {"text": number})
        assert len((await log.exchange("short", "0-0")).entries) == 301
        assert 10 <= len((await log.exchange("x" * 2_000, "0-0")).entries) < 200
        await log.aclose()

    async def test_what_another_program_wrote_does_no_harm(self, server: str, client: Any) -> None:
        """Entries without a text are empty, other bytes are replaced, and a snapshot without a position is none."""
        client.xadd(LOG, {"other": "x"})
        client.xadd(LOG, {"text": b"\xff"})
        client.set(STATE, "nonsense")
        log = make_log(server)
        snapshot, reading = await log.read()
        assert snapshot is None
        assert [entry.text for entry in reading.entries] == ["", "�"]
        await log.aclose()


class TestNotices:
    async def test_they_wake_all_that_wait(self, server: str, client: Any) -> None:
        """A notice ends the waiting of each process. One that came in between is not lost, and none comes twice."""
        one, other = make_log(server), make_log(server)
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.wait_for_notice)
                tasks.start_soon(other.wait_for_notice)
                await one.notify()
        await one.notify()
        await one.notify()
        seen = client.xrange(NOTICES)
        await other.wait_for_notice()
        assert other._noticed == seen[-1][0]
        await other.wait_for_notice()  # for nothing
        assert client.xrange(NOTICES) == seen
        assert (len(seen), 60 < client.ttl(NOTICES) <= 300) == (1, True)
        await one.clear()
        assert client.keys() == []
        await one.aclose()
        await other.aclose()

    async def test_they_come_after_the_clock_of_redis_was_set_back(self, server: str, client: Any) -> None:
        """The ids of later notices are smaller. One wait may end for nothing, and the next one hears of them."""
        one, other = make_log(server), make_log(server)
        client.xadd(NOTICES, {"text": ""}, id="9000000000000-0")
        await other.wait_for_notice()
        await one.clear()
        await other.wait_for_notice()  # for nothing
        await one.notify()
        await other.wait_for_notice()
        assert other._noticed == client.xrange(NOTICES)[-1][0]
        await one.notify()
        client.xadd(NOTICES, {"text": ""}, id="9000000000000-0")
        await other.wait_for_notice()
        await one.clear()
        await one.notify()
        await other.wait_for_notice()  # this notice is missed, but not the next one
        await one.notify()
        await other.wait_for_notice()
        assert other._noticed == client.xrange(NOTICES)[-1][0]
        await one.aclose()
        await other.aclose()

    async def test_who_waits_can_be_cancelled(self, raw_server: RawServer) -> None:
        """The wait has a connection of its own, so that no other call waits. Cancelled or closed, it ends at once."""
        raw_server.behave(Connection.wait_for_end, Redis(), Connection.wait_for_end)
        log = make_log(url_of(raw_server))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.wait_for_notice)
            await until(lambda: raw_server.connections == 1)
            assert (await log.exchange("a", "0-0")).time == 5.5
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:

            async def fail() -> None:
                with pytest.raises(LogUnavailableError):
                    await log.wait_for_notice()

            tasks.start_soon(fail)
            await until(lambda: raw_server.connections == 3)
            await log.aclose()
            await until(lambda: not workers())  # long before the time is up


class TestOpen:
    async def test_it_changes_nothing(self, server: str, client: Any) -> None:
        """All commands are tried, and Redis is as before."""
        log = make_log(server)
        await log.open()
        assert client.keys() == []
        for key in (LOG, STATE):
            client.hset(key, "of", "somebody else")
            with pytest.raises(
                ValueError, match=r"^quota: Redis at 127\S+ has something else under the name commenda-\S+:\*$"
            ):
                await log.open()
            assert client.ttl(key) == -1
            client.delete(key)
        await log.aclose()

    @pytest.mark.parametrize(
        ("said", "text"),
        [
            ({"AUTH": "-WRONGPASS invalid username-password pair"}, "refuses the user name or the password: invalid"),
            (
                {"MULTI": "-NOAUTH Authentication required."},
                "refuses the user name or the password: Authentication required",
            ),
            ({"XADD": "-NOPERM this user may not run 'xadd'"}, "does not permit what the limiter needs: this user may not"),
            ({"XADD": "-ERR unknown command 'XADD'"}, "Redis 6.0 or newer has: unknown command 'XADD'"),
            ({"SELECT": "-ERR DB index is out of range"}, "Redis 6.0 or newer has: DB index is out of range"),
            ({"MULTI": "-DENIED Redis is running in protected mode"}, "has: DENIED Redis is running in protected mode"),
            ({"EXEC": "+OK"}, "Redis 6.0 or newer has: Wrong number of response items"),
            ({"EXEC": "*7\r\n+\r\n+\r\n+\r\n+\r\n*0\r\n*0\r\n*0"}, "does not answer as Redis does"),
            ({"CLIENT": "HTTP/1.1 400 Bad Request\r\n"}, "does not answer as Redis does"),
        ],
    )
    async def test_what_will_never_work_is_an_error(self, raw_server: RawServer, said: dict[str, str], text: str) -> None:
        """A password, a permission, a database, an old or another server: `ValueError`, and the same later is none."""
        raw_server.behave(Redis(**said))
        log = make_log(url_of(raw_server, "user:hunter22@") + "/9")
        with pytest.raises(ValueError, match=r"^url: Redis at 127\.0\.0\.1:\d+ ") as caught:
            await log.open()
        assert text in str(caught.value)
        assert caught.value.__cause__ is not None
        if "EXEC" not in said:
            with pytest.raises(LogUnavailableError):
                await log.exchange("a", "0-0")

    async def test_tls(self, raw_server: RawServer, tmp_path: Path) -> None:
        """It works if the certificate is trusted. Otherwise, or if the server speaks no TLS, it is an error."""
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        url = url_of(raw_server).replace("redis://127.0.0.1", "rediss://localhost")
        trusting = f"{url}?ssl_ca_certs={tmp_path}/ca.pem"
        raw_server.use_tls(context)
        raw_server.behave(Redis(), Redis(), says(b"-ERR unknown command\r\n"))
        log = make_log(trusting)
        await log.open()
        await log.aclose()
        with pytest.raises(
            ValueError, match=r"^url: there is no TLS with Redis at localhost:\d+: .*CERTIFICATE_VERIFY_FAILED"
        ):
            await make_log(url).open()
        with pytest.raises(ValueError, match="^url: there is no TLS with Redis at .*: No such file or directory$"):
            await make_log(f"{trusting}.missing").open()
        raw_server.use_tls(None)
        with pytest.raises(ValueError, match="^url: there is no TLS with Redis at"):
            await make_log(trusting).open()
        raw_server.behave(lambda connection: connection.receive() and connection.close())
        with pytest.raises(LogUnavailableError, match="cannot be used now: "):
            await make_log(trusting).open()


class TestWhenItCannotBeUsed:
    @pytest.mark.parametrize(
        ("said", "text"),
        [
            (
                {"MULTI": "-LOADING Redis is loading the dataset in memory"},
                "cannot be used now: Redis is loading the dataset",
            ),
            ({"XADD": "-OOM command not allowed when used memory > 'maxmemory'."}, "command not allowed when used memory"),
            ({"XADD": "-READONLY You can't write against a read only replica."}, "You can't write against a read only"),
            ({"XADD": "-MISCONF Redis is configured to save RDB snapshots"}, "MISCONF Redis is configured to save"),
            ({"XADD": "-CLUSTERDOWN Hash slot not served"}, "cannot be used now: .*Hash slot not served"),
            ({"XADD": "-MOVED 42 10.0.0.7:6381"}, r"is a node of a cluster, and 10\.0\.0\.7:6381 has this quota"),
            ({"XADD": "-ASK 42 10.0.0.7:6381"}, r"is a node of a cluster, and 10\.0\.0\.7:6381 has this quota"),
            ({"CLIENT": "-ERR max number of clients reached"}, "cannot be used now: max number of clients reached"),
        ],
    )
    @pytest.mark.parametrize("is_open", [False, True], ids=["as it opens", "later"])
    async def test_what_may_pass(self, raw_server: RawServer, said: dict[str, str], text: str, is_open: bool) -> None:
        """`LogUnavailableError`, as it opens and later; it works again when Redis does."""
        raw_server.behave(Redis(**said), Redis())
        log = make_log(url_of(raw_server))
        with pytest.raises(LogUnavailableError, match=rf"^Redis at 127\.0\.0\.1:\d+ .*{text}") as caught:
            await (log.exchange("a", "0-0") if is_open else log.open())
        assert caught.value.__cause__ is not None
        assert (await log.exchange("a", "0-0")).time == 5.5
        await log.aclose()

    async def test_there_is_no_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error has the text of the system: connection refused, unknown host, or no such socket."""
        with RawServer(listens=False) as server, pytest.raises(LogUnavailableError, match="used now: Connection refused"):
            await make_log(url_of(server)).open()

        def fail(*args: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", fail)
            with pytest.raises(LogUnavailableError, match="nowhere:6379 cannot be used now: Name or service not known"):
                await make_log("redis://nowhere").open()
        with pytest.raises(LogUnavailableError, match="Redis at /no/such.sock cannot be used now: No such file"):
            await make_log("unix:///no/such.sock").open()

    async def test_a_connection_that_the_server_closed_is_made_again(self, raw_server: RawServer) -> None:
        """Redis may close idle connections: the next call makes a new one, without an error."""
        ended = threading.Event()

        def serve_one(connection: Connection) -> None:
            redis, received = Redis(), connection.receive
            # Only this connection ends after its first transaction.
            connection.receive = lambda: b"" if b"EXEC" in redis.commands else received()  # type: ignore[method-assign]
            redis(connection)
            connection.end_writing()
            ended.set()

        raw_server.behave(serve_one, Redis())
        log = make_log(url_of(raw_server))
        await log.open()
        await until(ended.is_set)
        assert (await log.exchange("a", "0-0")).time == 5.5
        await log.aclose()

    async def test_a_server_that_hangs(self, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call ends soon. A late reply is not taken for that to the next call."""
        late = threading.Event()

        def reply_late(connection: Connection) -> None:
            connection.receive()
            late.wait(60)
            connection.send(b"-ERR too late\r\n" * 20)

        raw_server.behave(reply_late, Redis())
        log = make_log(url_of(raw_server))
        with monkeypatch.context() as patch:
            patch.setattr(_redis_calls, "TIMEOUT", 0.2)
            with pytest.raises(LogUnavailableError, match=r"^Redis at 127\.0\.0\.1:\d+ did not answer in time$"):
                await log.open()
        late.set()
        await log.open()
        assert (await log.exchange("a", "0-0")).time == 5.5
        assert raw_server.connections == 2
        await log.aclose()

    async def test_a_server_that_drips(self, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call ends soon even if there is always a byte more, and so does its thread."""
        monkeypatch.setattr(_redis_calls, "_PATIENCE", 0.3)
        raw_server.behave(lambda connection: connection.drip(b"+" + b"x" * 10_000, every=0.02))
        with pytest.raises(LogUnavailableError, match="did not answer in time"):
            await make_log(url_of(raw_server)).open()
        await until(lambda: not workers())

    async def test_a_cancelled_call_waits_for_nobody(self, raw_server: RawServer) -> None:
        """It ends at once, and so do its connection and its thread. The next call has another connection."""
        raw_server.behave(lambda connection: connection.wait_for_end(), Redis())
        log = make_log(url_of(raw_server))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.exchange, "a", "0-0")
            await until(lambda: raw_server.connections == 1)
            tasks.cancel_scope.cancel()
        assert (await log.exchange("b", "0-0")).time == 5.5
        await until(lambda: not workers())
        await log.aclose()

    async def test_closing_ends_a_call(self, raw_server: RawServer) -> None:
        """`aclose` does not wait. A call at work fails, and after that the log can be opened again."""
        raw_server.behave(lambda connection: connection.wait_for_end(), Redis())
        log = make_log(url_of(raw_server))
        await log.aclose()
        async with anyio.create_task_group() as tasks:

            async def fail() -> None:
                with pytest.raises(LogUnavailableError):
                    await log.exchange("a", "0-0")

            tasks.start_soon(fail)
            await until(lambda: raw_server.connections == 1)
            await log.aclose()
        await log.open()
        await log.aclose()
        await log.aclose()
        await until(lambda: not workers())

    async def test_threads_do_not_pile_up(self, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing can end the search for an address. So there are never more than three calls that search."""
        found, searching, resolve = threading.Event(), [], socket.getaddrinfo

        def search(*args: Any) -> Any:
            searching.append(args)
            found.wait(60)
            return resolve(*args)

        monkeypatch.setattr(_redis_calls, "_PATIENCE", 0.01)
        monkeypatch.setattr(socket, "getaddrinfo", search)
        raw_server.behave(Redis())
        log = make_log(url_of(raw_server))
        for number in (1, 2, 3):
            with pytest.raises(LogUnavailableError, match="did not answer in time"):
                await log.exchange("a", "0-0")
            await until(lambda number=number: len(searching) == number)
        assert len(workers()) == 3
        with pytest.raises(LogUnavailableError, match="has not answered earlier calls"):
            await log.exchange("a", "0-0")
        found.set()
        await until(lambda: not workers())
        monkeypatch.setattr(_redis_calls, "_PATIENCE", 120)
        assert (await log.exchange("a", "0-0")).time == 5.5
        await log.aclose()


async def test_a_call_that_was_given_up_sends_nothing(raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is cancelled while it connects sends no command."""
    may_connect, redis, connect = threading.Event(), Redis(), socket.socket.connect

    def connect_late(*args: Any) -> None:
        may_connect.wait(60)
        connect(*args)

    monkeypatch.setattr(socket.socket, "connect", connect_late)
    raw_server.behave(redis)
    log = make_log(url_of(raw_server))
    for call in (log.wait_for_notice, partial(log.exchange, "a", "0-0")):
        with anyio.move_on_after(0.01):
            await call()
    may_connect.set()
    await until(lambda: not workers())
    await until(lambda: raw_server.connections == 2)
    assert redis.commands == b""


async def test_ids_that_redis_does_not_give(raw_server: RawServer) -> None:
    """A server whose entries have no ids as those of Redis cannot be used."""
    entries, time = "*1\r\n*2\r\n$3\r\nodd\r\n*0", "*2\r\n$1\r\n5\r\n$1\r\n0"
    raw_server.behave(Redis(EXEC=f"*2\r\n{entries}\r\n{time}"))
    log = make_log(url_of(raw_server))
    with pytest.raises(LogUnavailableError, match="the ids of its entries are not those of Redis"):
        await log.read()
    await log.aclose()


class TestThePassword:
    async def test_it_is_sent_and_shown_nowhere(self, raw_server: RawServer, caplog: pytest.LogCaptureFixture) -> None:
        """No repr, `vars`, log or error shows it, also if the server repeats it."""
        caplog.set_level(logging.DEBUG)
        redis = Redis()
        raw_server.behave(redis, Redis(AUTH=f"-ERR unknown command 'AUTH', with args beginning with: '{TOKEN}'"))
        log = make_log(url_of(raw_server, f"user:{TOKEN}@"))
        await log.open()
        assert f"$4\r\nuser\r\n${len(TOKEN)}\r\n{TOKEN}\r\n".encode() in redis.commands
        assert TOKEN not in see(log, depth=12)
        await log.aclose()
        with pytest.raises(ValueError, match="unknown command 'AUTH', with args beginning with: '<password>'$") as caught:
            await log.open()
        assert caught.value.__cause__ is None
        with pytest.raises(LogUnavailableError) as later:
            await log.exchange("a", "0-0")
        assert TOKEN not in reported(caught.value) + reported(later.value) + see(log, depth=12) + caplog.text

    async def test_causes_keep_no_frames(self, raw_server: RawServer) -> None:
        """The error has its cause, without the frames of redis-py, whose variables hold the password."""
        raw_server.behave(Redis(AUTH="-WRONGPASS invalid username-password pair"))
        log = make_log(url_of(raw_server, f"user:{TOKEN}@"))
        with pytest.raises(ValueError, match="^url: ") as caught:
            await log.open()
        assert caught.value.__cause__ is not None
        assert caught.value.__cause__.__traceback__ is None
        assert TOKEN not in reported(caught.value)


async def test_a_limiter_for_several_processes(server: str, client: Any) -> None:
    """Two limiters find each other, and nothing is in Redis but numbers and random names."""
    async with (
        RedisLimiter(server, quota="prod") as one,
        RedisLimiter(server, quota="prod", max_in_flight=7) as other,
    ):
        await until(lambda: "shared with 1 other process" in repr(one) and "shared with 1 other process" in repr(other))
        assert other.max_in_flight == 7
