"""The emulated API: `GET /customers` as its page documents it, as an ASGI application that can serve itself."""

import hmac
import time
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread

from ._asgi import Exchange, Receive, RefusedError, Reply, Scope, Send
from ._cursors import Cursor
from ._limits import RateLimit, TokenBucket
from ._lists import CustomerRows, GivenRows, MadeRows
from ._parameters import check, filters_of, unique
from ._plan import FaultPlan
from .faults import Fault, Listing

DEFAULT_TOKEN = "emulator-token"  # noqa: S105 - opens nothing but the emulator
_PATH = "/api/v1/customers"
_MOST_KEPT = 10_000
_ADDRESS_KEYS = {
    "line": dict[str, str](),
    "address_line": {"line1": "address_line_1", "line2": "address_line_2", "line3": "address_line_3"},
}


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """
    A request that the emulator received.

    Attributes:
        number: Its number, from 1.
        at: When it came, in seconds of the event loop's clock.
        params: Its query parameters.
        status: The status of its reply. A fault may have prevented the delivery.
    """

    number: int
    at: float
    params: Mapping[str, str]
    status: int


class Emulator:
    """
    The customers API on this machine, for tests and to try things without an account.

        async with Emulator({"corp_123": 2500}) as server:
            api = AsyncCustomersAPI(token=server.token, base_url=server.base_url)

    As a context manager it serves on a real loopback socket, in a thread, for clients on any event loop or without one:
    both `with` and `async with` work. If the emulator fails, for example because a fault of yours raises an error, the
    request gets a 500, and leaving the context raises that error. It is also an ASGI application, for transports in memory.

    Attributes:
        token: The only token that is accepted. May be changed while it serves, to let a token expire.
        faults: The faults that strike some requests. May be changed while it serves.
    """

    def __init__(
        self,
        corporations: Mapping[str, int | Sequence[Any]] | None = None,
        *,
        seed: int = 0,
        token: str = DEFAULT_TOKEN,
        envelope: Literal["wrapped", "bare"] = "wrapped",
        address_spelling: Literal["line", "address_line"] = "address_line",
        end_of_list: Literal["null", "absent", "empty"] = "null",
        faults: Sequence[Fault] = (),
        rate_limit: RateLimit | None = None,
        latency: float = 0.0,
        port: int = 0,
    ) -> None:
        """
        Nothing is served before it is entered as a context manager.

        Args:
            corporations: By corporation, the number of customers, which are made from the seed; or a list of records,
                which are served as they are. A record is what JSON can express, in any shape. Nothing is added to it or
                left out, whatever the request asks for in `extend`. The list is yours: a change is served from the next
                request on. `None`: 1,000 customers of `corp_123`.
            seed: Random seed of the customers and the faults. The same seed gives the same ones on every machine.
            token: The token that is accepted; `emulator-token` by default.
            envelope: `wrapped` in `data` beside a `message`, or `bare`. The API's pages show both.
            address_spelling: `line` for `line1`, `address_line` for `address_line_1`. The API's pages show both.
            end_of_list: The cursor of the last page: `null`, `absent` or `empty`.
            faults: The first faults; see `commenda_customers.testing.faults`.
            rate_limit: Requests beyond it get a 429. `None`: no limit.
            latency: Seconds before each response.
            port: Port to serve on; 0 takes a free one.

        Raises:
            ValueError: A number is negative, or a word is not one of those above.
            TypeError: A corporation has neither a number nor a list, or a fault is none.
        """
        if latency < 0:
            raise ValueError("latency: must not be negative")
        _check_word("envelope", envelope, ("wrapped", "bare"))
        _check_word("address_spelling", address_spelling, _ADDRESS_KEYS)
        _check_word("end_of_list", end_of_list, ("null", "absent", "empty"))

        self.token = token
        self.faults = FaultPlan(faults, seed=seed)
        self.rate_limit = rate_limit
        self._corporations = {
            corporation_id: _rows(corporation_id, given, seed, _ADDRESS_KEYS[address_spelling])
            for corporation_id, given in ({"corp_123": 1000} if corporations is None else corporations).items()
        }
        self._envelope = envelope
        self._end_of_list = end_of_list
        self._latency = latency
        self._port = port
        self._requests = deque[ReceivedRequest](maxlen=_MOST_KEPT)
        self._numbers = count(1)
        self._nonces = count(1)
        self._server: Any = None

    def __enter__(self) -> Self:
        # In memory, the emulator needs no uvicorn.
        try:
            from ._server import LoopbackServer
        except ModuleNotFoundError as exc:
            message = "serving the emulator needs the extra 'testing': pip install '/path/to/clone[testing]'"
            raise ModuleNotFoundError(message, name=exc.name) from exc

        if self._server is not None:
            raise RuntimeError("this Emulator is serving already")

        self._server = LoopbackServer(self, port=self._port)
        self._server.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        server.stop()
        _raise_failure(server, exc)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.stop)
        _raise_failure(server, exc)

    @property
    def base_url(self) -> str:
        """The `base_url` for the client."""
        origin = "http://127.0.0.1" if self._server is None else self._server.origin
        return f"{origin}/api/v1"

    @property
    def corporations(self) -> Mapping[str, int]:
        """Number of customers by corporation."""
        return {corporation_id: len(rows) for corporation_id, rows in self._corporations.items()}

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The last 10,000 requests, the oldest first: a copy. The `number` of the last one counts all so far."""
        return list(self._requests)

    @property
    def rate_limit(self) -> RateLimit | None:
        """Requests beyond it get a 429. May be changed while it serves; a new limit begins with its whole burst."""
        return None if self._bucket is None else self._bucket.limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        self._bucket = None if limit is None else TokenBucket(limit)

    def customers(self, corporation_id: str, **params: str) -> Iterator[Any]:
        """
        Yield all customers of a list with the query parameters *params*, in the form of the API.

        Raises:
            KeyError: There is no such corporation.
        """
        rows = self._rows_of(corporation_id)
        extend = params.get("extend", "").split(",")
        for number in rows.matching(filters_of(params)):
            yield rows.row(number, extend)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        exchange = Exchange(scope, receive, send)
        if scope["method"] != "GET" or scope["path"] != _PATH:
            await exchange.send(Reply.error(404, f"there is no {scope['method']} {scope['path']}"))
            return

        number, now = next(self._numbers), anyio.current_time()
        pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True)
        params = dict(pairs)
        cursor = _cursor_of(params)
        fault = self.faults.strike(params.get("corporation_id"), None if cursor is None else cursor.page)
        try:
            self._check_token(scope)
            self._check_rate(now)
            listing = self._listing(unique(pairs), cursor, fault)
        except RefusedError as refused:
            reply = refused.reply
        else:
            reply = self._in_envelope(listing)

        fault = fault or Fault()
        reply = fault.change(reply)
        self._requests.append(ReceivedRequest(number, now, params, reply.status))
        if self._latency:
            await exchange.pause(self._latency)
        await fault.deliver(exchange, reply)

    def _check_token(self, scope: Scope) -> None:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            raise RefusedError(401, "invalid or missing token")

    def _check_rate(self, now: float) -> None:
        bucket = self._bucket
        wait = 0.0 if bucket is None else bucket.take(now)
        if bucket is not None and wait:
            raise RefusedError(429, "too many requests", bucket.limit.headers(wait, now=time.time()))

    def _listing(self, params: Mapping[str, str], cursor: Cursor | None, fault: Fault | None) -> Listing:
        corporation_id, limit = check(params)
        if corporation_id not in self._corporations:
            raise RefusedError(404, "corporation not found")

        filters = filters_of(params)
        query = zlib.crc32(repr((corporation_id, filters)).encode())
        asked = params.get("cursor")
        if cursor is None or (asked is not None and cursor.query != query):
            raise RefusedError(400, "the cursor is not valid, or belongs to another query")

        rows = self._rows_of(corporation_id)
        numbers = rows.matching(filters)
        begin = bisect_right(numbers, cursor.after)
        shown = numbers[begin : begin + limit]
        is_last = begin + limit >= len(numbers)
        extend = params.get("extend", "").split(",")
        listing: Listing = {
            "customers": [rows.row(number, extend) for number in shown],
            "total_customers": len(numbers),
            "cursor": None if is_last else str(Cursor(query, shown[-1], cursor.page + 1)),
        }
        if fault is not None:
            again = str(replace(cursor, query=query, nonce=next(self._nonces)))
            listing = fault.change_listing(listing, asked, again)

        self.faults.note(listing)
        return listing

    def _in_envelope(self, listing: Listing) -> Reply:
        if listing["cursor"] is None and self._end_of_list == "absent":
            del listing["cursor"]
        elif listing["cursor"] is None and self._end_of_list == "empty":
            listing["cursor"] = ""
        if self._envelope == "bare":
            return Reply.json(200, listing)

        return Reply.json(200, {"data": listing, "message": "Successfully fetched customers."})

    def _rows_of(self, corporation_id: str) -> CustomerRows:
        rows = self._corporations[corporation_id]
        return rows if isinstance(rows, MadeRows) else GivenRows(rows)


def _raise_failure(server: Any, exc: BaseException | None) -> None:
    """Raise what went wrong in the server. An error of the block may follow from it; a cancellation does not."""
    if server.failure is not None and (exc is None or isinstance(exc, Exception)):
        raise server.failure


def _rows(
    corporation_id: str, given: int | Sequence[Any], seed: int, address_keys: Mapping[str, str]
) -> MadeRows | Sequence[Any]:
    """Return what a corporation has; a list of records as it is, because it belongs to the caller."""
    if isinstance(given, int):
        if given < 0:
            raise ValueError(f"corporations[{corporation_id!r}]: must not be negative, got {given}")
        return MadeRows(seed, corporation_id, given, address_keys)
    rows: Any = given
    if isinstance(rows, str | bytes) or not isinstance(rows, Sequence):
        raise TypeError(f"corporations[{corporation_id!r}]: expected a number or a list, got {type(given).__name__}")

    return given


def _check_word(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")


def _cursor_of(params: Mapping[str, str]) -> Cursor | None:
    """Return where the page begins that is asked for, or `None` if the cursor was not made here."""
    return Cursor.parse(params["cursor"]) if "cursor" in params else Cursor()
