"""
A virtual day of a program that reads all lists repeatedly: does it lose a customer, and how long does each outage cost?

The server changes its limit every hour, and its token every forty minutes or without notice. Cursors expire after a quarter
of an hour. The server sometimes fails, and is down for minutes, each time in another way. The program restarts every few
hours, and resumes from the bytes of its checkpoint. Every customer must come once in each round, in order.

    python benchmarks/day.py [--hours 24] [--seed 0] [--json]
"""

import argparse
import dataclasses
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import anyio
import httpx
import trio.testing

from commenda_customers import (
    AsyncCustomersAPI,
    Checkpoint,
    CursorRejectedError,
    Customer,
    CustomersError,
    Event,
    PageFetched,
    Token,
)
from commenda_customers.testing import Emulator, RateLimit, faults

HOUR, MINUTE = 3600.0, 60.0
CORPORATIONS, MEAN_SIZE, PAGE = 40, 300, 20
SLOWEST, FASTEST, BURST = 0.1, 0.3, 10
"""The server's limit: requests per second, and at once. It is low, because a request costs a millisecond of real time."""
BETWEEN_WINDOWS = 1.5 * HOUR
TOKEN_LIFE, CURSOR_LIFE = 40 * MINUTE, 15 * MINUTE
PROVIDER_FAILS = 0.05
AT_RANDOM = (
    faults.Status(500, probability=0.005),
    faults.NotJSON(probability=0.005),
    faults.EmptyPage(probability=0.01),
    faults.ExpiredCursor(after=CURSOR_LIFE),
)


@dataclasses.dataclass
class Window:
    """
    A time in which the server is down.

    Attributes:
        begins: Seconds since midnight.
        ends: The same.
        kind: What the server does instead of a response.
        requests: Requests that came in this time.
        lost: Seconds from its end to the next page; infinity if none came.
    """

    begins: float
    ends: float
    kind: str
    requests: int = 0
    lost: float = math.inf

    def answer(self, now: float) -> httpx.Response:
        """Respond instead of the server, or raise a connection error."""
        return KINDS[self.kind](self.ends - now)


def _refuse(_left: float) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def _html(status: int) -> httpx.Response:
    return httpx.Response(status, html="<html><body>We are down for maintenance.</body></html>")


KINDS: Mapping[str, Callable[[float], httpx.Response]] = {
    "503 that says when": lambda left: httpx.Response(503, headers={"Retry-After": str(math.ceil(left))}),
    "503": lambda _left: httpx.Response(503),
    "connection refused": _refuse,
    "page of HTML with 200": lambda _left: _html(200),
    "page of HTML with 502": lambda _left: _html(502),
}
"""The response in a window; the argument is the seconds that are left."""


class Server(httpx.AsyncBaseTransport):
    """The emulated API behind a schedule."""

    def __init__(self, hours: float, seed: int) -> None:
        self.draw = random.Random(seed)
        self.windows = self._make_windows(hours)
        self.rates = [math.exp(self.draw.uniform(math.log(SLOWEST), math.log(FASTEST))) for _ in range(math.ceil(hours))]
        self.without_notice = sorted(self.draw.uniform(0, hours * HOUR) for _ in range(round(hours / 3)))
        sizes = {f"corp_{number}": int(MEAN_SIZE * self.draw.uniform(0, 2)) for number in range(CORPORATIONS)}
        self.emulator = Emulator({name: _rows(name, size) for name, size in sizes.items()}, seed=seed, faults=AT_RANDOM)
        self.statuses: Counter[str] = Counter()
        self._hour = -1
        self._inner = httpx.ASGITransport(self.emulator)

    def _make_windows(self, hours: float) -> list[Window]:
        """Return windows of each kind in turn."""
        windows: list[Window] = []
        for number, kind in zip(range(int(hours * HOUR / BETWEEN_WINDOWS)), cycle(KINDS), strict=False):
            begins = BETWEEN_WINDOWS * (number + self.draw.uniform(0, 0.5))
            length = MINUTE * math.exp(self.draw.uniform(math.log(1), math.log(40)))
            windows.append(Window(begins, begins + length, kind))
        return windows

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request (a transport of httpx)."""
        await anyio.sleep(self.draw.uniform(0.05, 0.3))
        self._keep_time()
        now = anyio.current_time()
        window = next((window for window in self.windows if window.begins <= now < window.ends), None)
        if window is not None:
            window.requests += 1
            return window.answer(now)

        response = await self._inner.handle_async_request(request)
        self.statuses[str(response.status_code)] += 1
        return response

    def _keep_time(self) -> None:
        hour = min(int(anyio.current_time() / HOUR), len(self.rates) - 1)
        if hour != self._hour:
            self._hour = hour
            form: Any = ("seconds", "fraction", "milliseconds", None)[hour % 4]
            self.emulator.rate_limit = RateLimit(rate=self.rates[hour], burst=BURST, retry_after=form)
        self.emulator.token = self.token()

    def token(self) -> str:
        """Return the token that is valid now."""
        now = anyio.current_time()
        return f"token-{int(now / TOKEN_LIFE)}-{sum(now >= moment for moment in self.without_notice)}"

    def allows(self, hours: float) -> float:
        """Return how many requests the limits allow in so many hours, outside of the windows."""
        total = 0.0
        for hour, rate in enumerate(self.rates):
            begin, end = hour * HOUR, min(hour + 1, hours) * HOUR
            down = sum(max(0.0, min(end, window.ends) - max(begin, window.begins)) for window in self.windows)
            total += rate * (end - begin - down)
        return total


def _rows(name: str, size: int) -> list[Any]:
    return [{"id": f"{name}/{number}", "corporation_id": name, "name": f"Customer {number}"} for number in range(size)]


class Program:
    """Reads all lists again and again, and keeps its checkpoint as bytes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sizes = server.emulator.corporations
        self.came = self.rounds = self.restarts = self.errors = self.refused_cursors = self.tokens = 0
        self.wrong: list[str] = []
        self._next = dict.fromkeys(self.sizes, 0)
        self._checkpoint: bytes | None = None

    async def live(self, hours: float) -> None:
        """Run until the end of the day, and restart every few hours."""
        while anyio.current_time() < hours * HOUR:
            leaves_at = min(hours * HOUR, anyio.current_time() + HOUR * self.server.draw.uniform(0.5, 4))
            client = httpx.AsyncClient(transport=self.server)
            api = AsyncCustomersAPI(
                self._provide, http_client=client, base_url="http://127.0.0.1/api/v1", hooks=[self._note]
            )
            async with client, api:
                with anyio.CancelScope(deadline=leaves_at):
                    while True:
                        await self._read(api)
            self.restarts += 1

    async def _read(self, api: AsyncCustomersAPI) -> None:
        """Read until an error. Then wait as long as the server says, and let the caller call again."""
        resume = None if self._checkpoint is None else Checkpoint.model_validate_json(self._checkpoint)
        stream = api.stream(self.sizes, limit=PAGE, resume=resume)
        try:
            async with stream:
                async for customer in stream:
                    self._take(customer)
            self._finish()
        except CustomersError as error:
            self._save(stream.checkpoint(), error)
            await anyio.sleep(error.retry_after or 1.0)
        except BaseException:
            self._save(stream.checkpoint())
            raise

    def _save(self, checkpoint: Checkpoint, error: CustomersError | None = None) -> None:
        """Save the checkpoint. A list whose cursor is refused restarts."""
        self.errors += error is not None
        if isinstance(error, CursorRejectedError) and error.corporation_id:
            self.refused_cursors += 1
            self._next[error.corporation_id] = 0
            checkpoint = checkpoint.without(error.corporation_id)
        self._checkpoint = checkpoint.model_dump_json().encode()

    def _take(self, customer: Customer) -> None:
        name = customer.corporation_id
        if customer.id != f"{name}/{self._next[name]}":
            self.wrong.append(f"{customer.id} came in place of {name}/{self._next[name]}")
        self._next[name] += 1
        self.came += 1

    def _finish(self) -> None:
        """Check that a round is complete, and begin the next."""
        self.wrong += [f"{name} ended after {came}" for name, came in self._next.items() if came != self.sizes[name]]
        self._next = dict.fromkeys(self.sizes, 0)
        self._checkpoint = None
        self.rounds += 1

    async def _provide(self) -> Token:
        """Provide the token (a token provider)."""
        await anyio.sleep(0.5)
        if self.server.draw.random() < PROVIDER_FAILS:
            raise TimeoutError("the identity provider is slow")
        self.tokens += 1
        return Token(self.server.token(), expires_in=TOKEN_LIFE - anyio.current_time() % TOKEN_LIFE)

    def _note(self, event: Event) -> None:
        """Take note of the first page after a window (a hook)."""
        if isinstance(event, PageFetched):
            now = anyio.current_time()
            for window in self.server.windows:
                if window.ends <= now:
                    window.lost = min(window.lost, now - window.ends)


def live(hours: float, seed: int) -> dict[str, Any]:
    """Run a day, and return its results."""
    random.seed(seed)
    server = Server(hours, seed)
    program = Program(server)
    began = time.monotonic()
    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(program.live, hours, backend="trio", backend_options={"clock": clock})
    requests = server.statuses.total()
    return {
        "hours": hours,
        "seed": seed,
        "seconds": time.monotonic() - began,
        "is_exact": not program.wrong,
        "wrong": program.wrong[:10],
        **{name: getattr(program, name) for name in ("came", "rounds", "restarts", "errors", "refused_cursors", "tokens")},
        "customers": sum(program.sizes.values()),
        "requests": requests,
        "statuses": server.statuses,
        "used": server.statuses["200"] / server.allows(hours),
        "refused": server.statuses["429"] / requests,
        "windows": [dataclasses.asdict(window) for window in server.windows],
    }


def show(day: Mapping[str, Any]) -> None:
    """Print a report."""
    rounds = f"{day['rounds']} whole rounds over {day['customers']:,} customers"
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(day["statuses"].items()))
    print(f"{day['hours']:g} hours in {day['seconds']:.0f} seconds, seed {day['seed']}")
    print(f"customers   {day['came']:,}, {rounds}: {'each once, in order' if day['is_exact'] else 'WRONG'}")
    print(f"program     {day['restarts']} starts, {day['errors']} errors, {day['refused_cursors']} lists restarted")
    print(f"requests    {day['requests']:,} outside of the windows: {statuses}; {day['tokens']} tokens")
    print(f"limit       {day['used']:.1%} used, {day['refused']:.1%} of the requests refused\n")
    print("| begins | minutes | the server is down | requests | next page after |\n| --- | --: | --- | --: | --: |")
    for window in day["windows"]:
        hour, minute = divmod(int(window["begins"] / MINUTE), 60)
        minutes = (window["ends"] - window["begins"]) / MINUTE
        print(
            f"| {hour:02}:{minute:02} | {minutes:.0f} | {window['kind']} | {window['requests']} | {window['lost']:.1f} s |"
        )
    print(*day["wrong"], sep="\n", end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    options = parser.parse_args()
    day = live(options.hours, options.seed)
    if options.json:
        print(json.dumps(day))
    else:
        show(day)
    sys.exit(0 if day["is_exact"] else 1)


if __name__ == "__main__":
    main()
