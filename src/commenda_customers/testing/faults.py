"""
Faults of the server and of the network, for `Emulator(faults=[...])` and for `emulator.faults.add()`.

Every fault says when it strikes. First, which requests concern it: those of `corporation_id` and of `pages`, or all. Then,
which of these it strikes: the ones whose number is in `at`, and any other with `probability`; without `at` and
`probability`, all of them. At most one fault strikes a request: the first that was added and strikes it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from ._asgi import Exchange, RefusedError, Reply
from ._filters import is_object

__all__ = [
    "CutBody",
    "Drop",
    "EmptyPage",
    "ExpiredCursor",
    "Fault",
    "ForeignCustomer",
    "Hang",
    "NotJSON",
    "RepeatedCursor",
    "Slow",
    "Status",
    "TooManyRequests",
    "WrongEnvelope",
]

Listing = dict[str, Any]
"""`customers`, `total_customers` and `cursor` of a page, before they go into an envelope."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    Base class of all faults. A subclass changes the listing, the reply, or how the reply is delivered.

    Attributes:
        corporation_id: The corporation whose requests concern it. `None`: those of all corporations.
        pages: Numbers of the pages that concern it. The page without a cursor is 1, the one that its cursor leads to is 2,
            and so on, in each list. `None`: all requests, also those with an invalid cursor.
        at: Numbers of the requests that it strikes, among those that concern it, since it was added; the first is 1. A
            retry is another request.
        probability: Chance, from 0 to 1, that it strikes any other request that concerns it. It is drawn from the
            emulator's seed. `None`: 1 if there is no `at`, otherwise 0.
    """

    corporation_id: str | None = None
    pages: Collection[int] | None = None
    at: Collection[int] | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        for name in ("pages", "at"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Collection):
                raise TypeError(f"{name}: expected a collection of numbers, got {type(value).__name__}")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"probability: must be from 0 to 1, got {self.probability}")

    @property
    def chance(self) -> float:
        """The probability, also where none is given."""
        if self.probability is not None:
            return self.probability

        return 1.0 if self.at is None else 0.0

    def concerns(self, corporation_id: str | None, page: int | None) -> bool:
        """Return whether a request for this page of this corporation concerns it; `None` if the request does not say."""
        if self.corporation_id is not None and corporation_id != self.corporation_id:
            return False

        return self.pages is None or page in self.pages

    def change_listing(self, listing: Listing, asked: str | None, again: str) -> Listing:
        """
        Return the listing to send in place of *listing*.

        Args:
            listing: The correct listing.
            asked: The cursor of the request.
            again: Another cursor for the same page.
        """
        return listing

    def note(self, listing: Listing) -> None:
        """Take note of a listing that is sent, also if this fault does not strike the request."""

    def change(self, reply: Reply) -> Reply:
        """Return the reply to deliver in place of *reply*."""
        return reply

    async def deliver(self, exchange: Exchange, reply: Reply) -> None:
        """Deliver *reply*, or fail to do so."""
        await exchange.send(reply)


@dataclass(frozen=True, kw_only=True)
class Status(Fault):
    """The server responds with an error status, and `headers`. The status may be given by position: `Status(503)`."""

    status: int = field(default=503, kw_only=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def change(self, reply: Reply) -> Reply:
        return Reply.error(self.status, f"scripted fault: status {self.status}", self.headers)


@dataclass(frozen=True, kw_only=True)
class TooManyRequests(Fault):
    """429 with the two headers as given: seconds, a fraction, a date, or an invalid value. `None` leaves a header out."""

    retry_after: str | None = None
    retry_after_ms: str | None = None

    def change(self, reply: Reply) -> Reply:
        headers = {"Retry-After": self.retry_after, "Retry-After-Ms": self.retry_after_ms}
        return Reply.error(
            429, "scripted fault: too many requests", {name: value for name, value in headers.items() if value is not None}
        )


@dataclass(frozen=True, kw_only=True)
class Drop(Fault):
    """The connection breaks before any response. In memory, without a connection, it is a `ConnectionAbortedError`."""

    async def deliver(self, exchange: Exchange, reply: Reply) -> None:
        await exchange.abort()


@dataclass(frozen=True, kw_only=True)
class CutBody(Fault):
    """The connection breaks in the middle of the body. In memory it is a `ConnectionAbortedError`."""

    async def deliver(self, exchange: Exchange, reply: Reply) -> None:
        await exchange.start(reply)
        await exchange.send_part(reply.body[: len(reply.body) // 2])
        await exchange.abort()


@dataclass(frozen=True, kw_only=True)
class Slow(Fault):
    """The body is sent slowly: `piece` bytes every `delay` seconds."""

    delay: float = 0.2
    piece: int = 1

    async def deliver(self, exchange: Exchange, reply: Reply) -> None:
        await exchange.start(reply)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._drip, exchange, reply.body)
            await exchange.wait_until_gone()
            tasks.cancel_scope.cancel()

    async def _drip(self, exchange: Exchange, body: bytes) -> None:
        for begin in range(0, len(body), self.piece):
            await exchange.send_part(body[begin : begin + self.piece])
            await anyio.sleep(self.delay)
        await exchange.finish()


@dataclass(frozen=True, kw_only=True)
class Hang(Fault):
    """No response comes for as long as the client waits."""

    async def deliver(self, exchange: Exchange, reply: Reply) -> None:
        await exchange.wait_until_gone()


@dataclass(frozen=True, kw_only=True)
class NotJSON(Fault):
    """Status 200 and a page of HTML, as from a proxy."""

    def change(self, reply: Reply) -> Reply:
        return Reply(200, {"Content-Type": "text/html"}, b"<html><body>Please log in</body></html>")


@dataclass(frozen=True, kw_only=True)
class WrongEnvelope(Fault):
    """Status 200 and JSON in neither of the documented envelopes."""

    def change(self, reply: Reply) -> Reply:
        return Reply.json(200, {"result": "ok"})


@dataclass(frozen=True, kw_only=True)
class RepeatedCursor(Fault):
    """The page is correct, but its cursor is that of the request. The first page is left as it is."""

    def change_listing(self, listing: Listing, asked: str | None, again: str) -> Listing:
        return listing if asked is None else {**listing, "cursor": asked}


@dataclass(frozen=True, kw_only=True)
class EmptyPage(Fault):
    """A page without customers, whose cursor leads to the page that was asked for. Servers that filter send such pages."""

    def change_listing(self, listing: Listing, asked: str | None, again: str) -> Listing:
        return {**listing, "customers": [], "cursor": again}


@dataclass(frozen=True, kw_only=True)
class ExpiredCursor(Fault):
    """
    A cursor that was given more than `after` seconds ago is refused, with `status`. All other requests are served.

    It strikes every request, unless `at` or `probability` says otherwise. So faults after it in the list strike none.
    """

    after: float = 300.0
    status: int = 400
    _given_at: dict[str, float] = field(default_factory=dict[str, float], init=False, repr=False, compare=False)

    def change_listing(self, listing: Listing, asked: str | None, again: str) -> Listing:
        now = anyio.current_time()
        if asked is not None and now - self._given_at.get(asked, now) > self.after:
            raise RefusedError(self.status, "scripted fault: the cursor has expired")

        return listing

    def note(self, listing: Listing) -> None:
        if listing["cursor"] is not None:
            self._given_at[listing["cursor"]] = anyio.current_time()


@dataclass(frozen=True, kw_only=True)
class ForeignCustomer(Fault):
    """The first customer of the page belongs to another corporation: `belongs_to`."""

    belongs_to: str = "corp_foreign"

    def change_listing(self, listing: Listing, asked: str | None, again: str) -> Listing:
        customers = list(listing["customers"])
        first = next((index for index, customer in enumerate(customers) if is_object(customer)), None)
        if first is not None:
            customers[first] = {**customers[first], "corporation_id": self.belongs_to}
        return {**listing, "customers": customers}
