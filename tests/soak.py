"""The server of a soak, which changes at random, and the checks of what it sends. The programs are in `soak_programs.py`."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import anyio

from commenda_customers import (
    Customer,
    Event,
    InvalidCustomerReceived,
    Token,
)
from commenda_customers.testing import Emulator, RateLimit, faults
from exports import is_valid

CORPORATIONS = 64
STATUSES = (302, 400, 401, 403, 404, 408, 410, 422, 425, 429, 500, 501, 502, 503, 504, 520)


class Boom(Exception):  # noqa: N818 - what happens, not what went wrong
    """Something outside of the SDK goes wrong: a hook, or the program itself."""


def make_lists(draw: random.Random, customers: int) -> dict[str, list[Any]]:
    """Return corporations of very different sizes, *customers* in all. About one row in a hundred is not valid."""
    shares = [draw.paretovariate(1) for _ in range(CORPORATIONS - 2)]
    sizes = [int(customers * share / sum(shares)) for share in shares]
    sizes[0] += customers - sum(sizes)
    lists: dict[str, list[Any]] = {}
    for index, size in enumerate([*sizes, 0, 0]):
        name = f"corp_{index}"
        rows: list[Any] = [
            {"id": f"{name}/{number}", "corporation_id": name, "name": f"Müller {number}"} for number in range(size)
        ]
        for number in range(size // 100):
            bad = draw.choice([None, {"corporation_id": name}, {"id": f"bad{number}", "corporation_id": name, "name": 5}])
            rows.insert(draw.randrange(len(rows)), bad)
        lists[name] = rows
    return lists


class Ledger:
    """Compares each customer that comes with the next one that the server has."""

    def __init__(self, lists: Mapping[str, list[Any]]) -> None:
        self.came = 0
        self.names = tuple(lists)
        self._ids = {name: [row["id"] for row in rows if is_valid(row)] for name, rows in lists.items()}
        self._invalid = {name: Counter(json.dumps(row) for row in rows if not is_valid(row)) for name, rows in lists.items()}
        self._next = dict.fromkeys(lists, 0)
        self._reported = {name: Counter[str]() for name in lists}

    def take(self, customer: Customer) -> None:
        """Take note of a customer, which must be the next one of its corporation."""
        name = customer.corporation_id
        number = self._next[name]
        assert (customer.id, customer.name) == (self._ids[name][number], f"Müller {number}"), f"customer {number}"
        self._next[name] += 1
        self.came += 1

    def note(self, event: Event) -> None:
        """Take note of an invalid row (a hook). It must not come more often than the server has it."""
        if isinstance(event, InvalidCustomerReceived) and event.corporation_id in self._next:
            reported = self._reported[event.corporation_id]
            reported[json.dumps(event.customer.raw)] += 1
            assert reported <= self._invalid[event.corporation_id], f"{event.customer} came twice"

    def restart(self, name: str) -> None:
        """Restart a corporation."""
        self._next[name] = 0
        self._reported[name].clear()

    def finish(self, names: Iterable[str]) -> None:
        """Check that some corporations are complete, and restart them."""
        for name in names:
            assert self._next[name] == len(self._ids[name]), f"{name} is not complete"
            assert self._reported[name] == self._invalid[name], name
            self.restart(name)


def _retry_after(draw: random.Random) -> str | None:
    return draw.choice([None, "0", "0.05", "soon", "1", format_datetime(datetime.now(UTC), usegmt=True)])


FAULTS: Mapping[str, Callable[[random.Random], faults.Fault]] = {
    "CutBody": lambda draw: faults.CutBody(probability=draw.uniform(0, 0.1)),
    "Drop": lambda draw: faults.Drop(probability=draw.uniform(0, 0.2)),
    "EmptyPage": lambda draw: faults.EmptyPage(probability=draw.uniform(0, 0.3)),
    "ExpiredCursor": lambda draw: faults.ExpiredCursor(after=draw.uniform(0.2, 2), status=draw.choice([400, 410, 422])),
    "ForeignCustomer": lambda draw: faults.ForeignCustomer(probability=draw.uniform(0, 0.1)),
    "Hang": lambda draw: faults.Hang(probability=draw.uniform(0, 0.03)),
    "NotJSON": lambda draw: faults.NotJSON(probability=draw.uniform(0, 0.1)),
    "RepeatedCursor": lambda draw: faults.RepeatedCursor(probability=draw.uniform(0, 0.05)),
    "Slow": lambda draw: faults.Slow(probability=draw.uniform(0, 0.1), delay=0.01, piece=2000),
    "Status": lambda draw: faults.Status(draw.choice(STATUSES), probability=draw.uniform(0, 0.2)),
    "TooManyRequests": lambda draw: faults.TooManyRequests(probability=draw.uniform(0, 0.1), retry_after=_retry_after(draw)),
    "WrongEnvelope": lambda draw: faults.WrongEnvelope(probability=draw.uniform(0, 0.05)),
}


class Trouble:
    """Changes the faults, the limit and the token of a server, again and again."""

    def __init__(self, server: Emulator, draw: random.Random) -> None:
        self.is_over = False
        self.server = server
        self._draw = draw
        self._coming = draw.sample(sorted(FAULTS), len(FAULTS))  # each kind at least once

    async def make(self, seconds: float) -> None:
        """Cause faults for a while. After that, the server works normally."""
        end = anyio.current_time() + seconds
        while anyio.current_time() < end:
            self._change()
            await anyio.sleep(min(self._draw.uniform(0, seconds / 30), 0.5))
        self.is_over = True
        self.server.faults.clear()
        self.server.rate_limit = None

    def _change(self) -> None:
        draw, plan = self._draw, self.server.faults
        if len(plan) > 3:
            plan.remove(draw.choice(list(plan)))
        kind = self._coming.pop() if self._coming else draw.choice(sorted(FAULTS))
        plan.add(FAULTS[kind](draw))
        if draw.random() < 0.2:
            forms = draw.choice([None, "fraction", "milliseconds", "fraction", "milliseconds", "seconds", "date"])
            limit = RateLimit(rate=10 ** draw.uniform(2, 3.5), burst=draw.randint(1, 100), retry_after=forms)
            self.server.rate_limit = draw.choice([None, limit])
        if draw.random() < 0.1:
            self.server.token = f"token-{draw.random()}"

    async def provide(self) -> Token:
        """Provide the token, and sometimes fail (a token provider)."""
        await anyio.sleep(0.001)
        if not self.is_over and self._draw.random() < 0.1:
            raise ConnectionResetError("the identity provider restarts")
        return Token(self.server.token, expires_in=self._draw.uniform(0.05, 5))

    def hook(self, _event: Event) -> None:
        """Fail sometimes (a hook)."""
        if not self.is_over and self._draw.random() < 0.0005:
            raise Boom("a hook")
