"""
Meets a server that has one fault, as a user's program does: once while the fault passes, once while it lasts.

The list has two pages. The fault strikes the request for the second one, when customers of the first were already yielded:
so each run shows that nothing is lost and nothing comes twice.
"""

import math
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import anyio
import httpx2

from commenda_customers import (
    APIConnectionError,
    AsyncCustomersAPI,
    Checkpoint,
    CustomersError,
    Event,
    Feedback,
    Hook,
    LimiterSnapshot,
    Permit,
    RequestFailed,
    RetryPolicy,
    RetryScheduled,
    Throttled,
)
from raw_server import TOKEN, Connection, RawServer, listing, ok

Way = Literal["list", "stream", "pyreqwest"]
WAYS: dict[str, tuple[Way, Way]] = {"asyncio": ("list", "stream"), "trio": ("stream", "list")}
"""
How a fault is met on each event loop: while it passes, and while it lasts.

So each two of list or stream, asyncio or trio, and passing or lasting come together once. The way `pyreqwest` reads a list,
through that transport.
"""

QUICK = {"initial_wait": 0.001, "max_wait": 0.002}

FIRST, SECOND = listing("a", cursor="1"), listing("b", "c")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    What a server does wrong.

    Attributes:
        strike: What it does instead of an answer. It gets the connection, with the request unread; with HTTP/2, also the
            request.
        at: What it strikes: the request for the second page, a new connection, or the attempt to open one.
        after_first: Sent right after the first page, on a connection that is kept.
        keeps: Whether the first page leaves its connection open.
        times: How often it strikes before it passes.
        lasts: Whether it can last.
        second: The customers of the second page, if it is read in the end.
        attempts: The most attempts of a run in which the fault lasts.
        timeout: Of an attempt, in seconds.
        options: Of the client.
        serve: Serves a connection in another protocol; it gets the site too.
        base_url: The address of the API, from that of the server.
        client: Opens an HTTP client of the user's, from the address of the server. `None`: see `meet`.
    """

    strike: Callable[..., None] = lambda *_: None
    at: Literal["request", "connection", "port"] = "request"
    after_first: bytes = b""
    keeps: bool = False
    times: float = 1
    lasts: bool = True
    second: tuple[str, ...] = ("b", "c")
    attempts: int = 3
    timeout: float = 60
    options: dict[str, Any] = field(default_factory=dict)
    serve: Callable[["Site", Connection], None] | None = None
    base_url: Callable[[str], str] = str
    client: Callable[[str], AbstractAsyncContextManager[Any]] | None = None

    @property
    def is_timed(self) -> bool:
        """Whether attempts end by their timeout. Then a good attempt may do so too, on a busy machine."""
        return self.timeout < 1


class Site:
    """A server with a fault."""

    def __init__(self, fault: Fault, server: RawServer, *, times: float) -> None:
        self.fault = fault
        self.server = server
        self.times = times
        self.struck = 0
        server.behave(partial(fault.serve, self) if fault.serve else self.serve)

    def heal(self) -> None:
        """Be a server without faults from now on."""
        self.times = 0
        if self.fault.at == "port":
            self.server.listen()

    def note(self, event: Event) -> None:
        """Count the connections that were refused, and listen when the fault has passed."""
        if self.fault.at == "port" and isinstance(event, RequestFailed):
            self.struck += 1
            if self.struck == self.times:
                self.server.listen()

    def strikes(self) -> bool:
        """Return whether the fault strikes now, and count it."""
        self.struck += 1
        return self.struck <= self.times

    def serve(self, connection: Connection) -> None:
        """Serve a connection."""
        if self.fault.at == "connection" and self.strikes():
            self.fault.strike(connection)
        else:
            self.serve_requests(connection)

    def serve_requests(self, connection: Connection) -> None:
        """Serve the requests of a connection."""
        while head := connection.read_request():
            if b"cursor=" not in head:
                headers = [] if self.fault.keeps else ["Connection: close"]
                connection.send(ok(FIRST, headers=headers) + self.fault.after_first)
                if not self.fault.keeps:
                    return
            elif self.fault.at == "request" and self.strikes():
                connection.unread(head)
                self.fault.strike(connection)
                return
            else:
                connection.send(ok(SECOND))


class Witness:
    """A limiter that never waits, and a hook. It records the outcome of each attempt."""

    def __init__(self) -> None:
        self.failures: list[CustomersError] = []
        self.waits: list[float] = []
        self.throttled: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        if isinstance(event, RequestFailed):
            self.failures.append(event.error)
        if isinstance(event, RetryScheduled):
            self.waits.append(event.wait)
        if isinstance(event, Throttled):
            self.throttled.add(event.corporation_id)

    async def acquire(self, *, again: bool = False, max_wait: float | None = None) -> Permit:
        """Wait for nothing."""
        return Permit(sent=0.0, in_flight=1)

    def release(self, permit: Permit, feedback: Feedback) -> None:
        """Learn nothing."""

    def estimate_wait(self) -> float:
        """Return 0: no request waits."""
        return 0.0

    def snapshot(self) -> LimiterSnapshot:
        """Return the state of a limiter that knows no limit."""
        return LimiterSnapshot(rate=None, in_flight=0, max_in_flight=100, waiting=0, paused_for=0.0)


async def read(
    api: AsyncCustomersAPI, way: Way, resume: Checkpoint | None = None
) -> tuple[list[str], CustomersError | None]:
    """Read the list as far as it goes. Return the ids of its customers, and the error at which it ended."""
    ids: list[str] = []
    try:
        if way != "stream":
            async for customer in api.list("corp_1", resume=resume):
                ids.append(customer.id)
        else:
            async with api.stream(["corp_1"], resume=resume) as stream:
                async for customer in stream:
                    ids.append(customer.id)
    except CustomersError as error:
        return ids, error

    return ids, None


def _user_client(way: Way) -> AbstractAsyncContextManager[Any]:
    """Read streams with a client of httpx2, and all else with the connections that the SDK opens itself."""
    return nullcontext() if way != "stream" else httpx2.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@asynccontextmanager
async def meet(
    fault: Fault, way: Way, *, times: float, hooks: Sequence[Hook] = (), **options: Any
) -> AsyncGenerator[tuple[AsyncCustomersAPI, Site]]:
    """Serve with a fault, and open a client."""
    with RawServer(listens=fault.at != "port") as server:
        site = Site(fault, server, times=times)
        options = {**fault.options, **options, "timeout": fault.timeout, "hooks": [*hooks, site.note]}
        if way == "pyreqwest":
            options["transport"] = way
        async with (
            _user_client(way) if fault.client is None else fault.client(server.url) as client,
            AsyncCustomersAPI(TOKEN, base_url=fault.base_url(server.url), http_client=client, **options) as api,
        ):
            yield api, site


async def while_it_passes(fault: Fault, way: Way) -> tuple[str, str]:
    """Read a list while the fault strikes for a time. Return the outcome and the error."""
    witness = Witness()
    policy = RetryPolicy(max_attempts=None, deadline=20 if fault.is_timed else 120, **QUICK)
    async with meet(fault, way, times=fault.times, retry=policy, rate_limit=witness, hooks=[witness]) as (api, site):
        ids, error = await read(api, way)
        assert site.struck or not fault.times, "the fault struck no request"
        if error is not None:
            assert error.attempts <= 1, error
            assert not error.transient, error
            await _check_the_end(site, api, way, ids, error)
            return "final", type(error).__name__

    assert ids == ["a", *fault.second], witness.failures
    if not witness.failures:
        return "read as usual" if fault.second else "an empty page", ""

    # After a fault the server closes the connection. The client may just have sent its next attempt on it, and resends it.
    counted = [failure for failure in witness.failures if not _is_resent(failure)]
    assert fault.is_timed or len(counted) <= fault.times, witness.failures
    failure = witness.failures[0]
    if _is_resent(failure):
        assert witness.waits[0] == 0
        return "resent immediately", type(failure).__name__
    return "throttled" if witness.throttled else "retried", type(failure).__name__


def _is_resent(failure: CustomersError) -> bool:
    return isinstance(failure, APIConnectionError) and (failure.is_stale_connection or failure.is_unprocessed)


async def while_it_lasts(fault: Fault, way: Way) -> tuple[str, str]:
    """Read a list while the fault strikes each time. Return the outcome, and the error."""
    policy = RetryPolicy(max_attempts=fault.attempts, **QUICK)
    async with meet(fault, way, times=math.inf, retry=policy, rate_limit=None) as (api, site):
        ids, error = await read(api, way)
        if error is None:
            return "read as usual", ""
        await _check_the_end(site, api, way, ids, error)
        if error.attempts <= 1:
            return "final", type(error).__name__
        # A request that is sent again at once uses up no attempt.
        assert error.transient == (error.attempts >= fault.attempts), error
        return "retried" if error.transient else "retried once", type(error).__name__


async def _check_the_end(site: Site, api: AsyncCustomersAPI, way: Way, ids: list[str], error: CustomersError) -> None:
    """Check that the error says where the list ended, shows no token, and that another run reads the rest."""
    assert error.corporation_id == "corp_1"
    assert error.checkpoint is not None
    assert error.cursor is not None or site.fault.at != "request" or site.fault.is_timed
    link: BaseException | None = error
    while link is not None:
        assert TOKEN not in f"{link!r} {link} {vars(link)}"
        link = link.__cause__

    site.heal()
    rest, failure = await read(api.with_options(timeout=60), way, resume=error.checkpoint)
    assert failure is None, failure
    assert ids + rest == ["a", "b", "c"]


async def outcome_of(fault: Fault, ways: tuple[Way, Way]) -> tuple[str, str]:
    """Meet a fault while it passes in the first of two ways, and while it lasts in the second. Return outcome and error."""
    passing, lasting = ("", ""), ("", "")

    async def pass_by() -> None:
        nonlocal passing
        passing = await while_it_passes(fault, ways[0])

    async def last() -> None:
        nonlocal lasting
        lasting = await while_it_lasts(fault, ways[1])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pass_by)
        if fault.lasts:
            tasks.start_soon(last)

    return _together(*passing, *lasting)


def _together(passing: str, error: str, lasting: str, last_error: str) -> tuple[str, str]:
    """Return one outcome for both runs."""
    match passing, lasting:
        case "resent immediately", "":
            return passing, ""
        case _, "":
            return passing, error
        case "read as usual", "retried":  # the HTTP library sent it again
            return "resent immediately", last_error
        case (("final" | "read as usual"), _):
            assert (lasting, last_error) == (passing, error), f"{lasting} {last_error} when it lasts"
            return passing, error
        case "retried", _:
            return lasting, last_error
        case _:
            return passing, last_error
