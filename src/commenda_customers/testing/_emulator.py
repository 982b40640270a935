"""The emulated API: `GET /customers` as its page documents it, as an ASGI application that can serve itself."""

import base64
import binascii
import hmac
import re
import time
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import anyio

from ._asgi import Exchange, Receive, Reply, Scope, Send
from ._asgi import RefusedError as _RefusedError
from ._data import CLOSED_VALUES, EXTENSIONS, FILTERS, Record, make_customer, to_wire
from ._limits import RateLimit, TokenBucket
from .faults import Fault, FaultPlan, Listing

DEFAULT_TOKEN = "emulator-token"  # noqa: S105 - opens nothing but the emulator
_PATH = "/api/v1/customers"
_MAX_LIMIT = 100
_DEFAULT_LIMIT = "10"
_DIGITS = re.compile("[0-9]{1,9}")
_PARAMETERS = frozenset({"corporation_id", "cursor", "limit", "extend", *FILTERS})
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

    As a context manager it serves on a real loopback socket, in a thread, for clients on any event loop. It is also an
    ASGI application, for transports in memory.

    Attributes:
        token: The only token that is accepted. May be changed while it serves, to let a token expire.
        requests: All requests so far.
    """

    def __init__(
        self,
        corporations: Mapping[str, int] | None = None,
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
            corporations: Number of customers by corporation. `None`: 1,000 customers of `corp_123`.
            seed: Random seed of the customers and the faults. The same seed gives the same ones on every machine.
            token: The token that is accepted; `emulator-token` by default.
            envelope: `wrapped` in `data` beside a `message`, or `bare`. The API's pages show both.
            address_spelling: `line` for `line1`, `address_line` for `address_line_1`. The API's pages show both.
            end_of_list: The cursor of the last page: `null`, `absent` or `empty`.
            faults: Faults that strike some requests; see `commenda_customers.testing.faults`.
            rate_limit: Requests beyond it get a 429. `None`: no limit.
            latency: Seconds before each response.
            port: Port to serve on; 0 takes a free one.

        Raises:
            ValueError: A number is negative, or a word is not one of those above.
        """
        if min([*(corporations or {}).values(), latency, 0]) < 0:
            raise ValueError("corporations, latency: must not be negative")
        _check_word("envelope", envelope, ("wrapped", "bare"))
        _check_word("address_spelling", address_spelling, _ADDRESS_KEYS)
        _check_word("end_of_list", end_of_list, ("null", "absent", "empty"))

        self.token = token
        self.requests: list[ReceivedRequest] = []
        self._corporations = dict(corporations if corporations is not None else {"corp_123": 1000})
        self._seed = seed
        self._envelope = envelope
        self._address_keys = _ADDRESS_KEYS[address_spelling]
        self._end_of_list = end_of_list
        self._plan = FaultPlan(faults, seed)
        self._bucket = None if rate_limit is None else TokenBucket(rate_limit)
        self._rate_limit = rate_limit
        self._latency = latency
        self._port = port
        self._numbers = count(1)
        self._nonces = count(1)
        self._matches: dict[tuple[str, tuple[tuple[str, str], ...]], Sequence[int]] = {}
        self._server: Any = None

    async def __aenter__(self) -> Self:
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

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        await server.stop()

    @property
    def base_url(self) -> str:
        """The `base_url` for the client."""
        origin = "http://127.0.0.1" if self._server is None else self._server.origin
        return f"{origin}/api/v1"

    @property
    def corporations(self) -> Mapping[str, int]:
        """Number of customers by corporation."""
        return dict(self._corporations)

    def customers(self, corporation_id: str, **params: str) -> Iterator[dict[str, Any]]:
        """
        Yield all customers of a list with the query parameters *params*, in the form of the API.

        Raises:
            KeyError: There is no such corporation.
        """
        filters = tuple(sorted((name, value) for name, value in params.items() if name in FILTERS))
        extend = params.get("extend", "").split(",")
        for number in self._numbers_matching(corporation_id, filters):
            yield self._wire_customer(corporation_id, number, extend)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        exchange = Exchange(scope, receive, send)
        if scope["method"] != "GET" or scope["path"] != _PATH:
            await exchange.send(Reply.error(404, f"there is no {scope['method']} {scope['path']}"))
            return

        number, now = next(self._numbers), anyio.current_time()
        fault = self._plan.strike(number)
        pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True)
        try:
            self._check_token(scope)
            self._check_rate(now)
            listing = self._listing(_unique(pairs), fault)
        except _RefusedError as refused:
            reply = refused.reply
        else:
            reply = self._in_envelope(listing)

        fault = fault or Fault()
        reply = fault.change(reply)
        self.requests.append(ReceivedRequest(number, now, dict(pairs), reply.status))
        if self._latency:
            await exchange.pause(self._latency)
        await fault.deliver(exchange, reply)

    def _check_token(self, scope: Scope) -> None:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            raise _RefusedError(401, "invalid or missing token")

    def _check_rate(self, now: float) -> None:
        if self._bucket is None or self._rate_limit is None:
            return

        wait = self._bucket.take(now)
        if wait:
            raise _RefusedError(429, "too many requests", self._rate_limit.headers(wait, now=time.time()))

    def _listing(self, params: Mapping[str, str], fault: Fault | None) -> Listing:
        corporation_id, limit = _check(params)
        if corporation_id not in self._corporations:
            raise _RefusedError(404, "corporation not found")

        filters = tuple(sorted((name, value) for name, value in params.items() if name in FILTERS))
        fingerprint = zlib.crc32(repr((corporation_id, filters)).encode())
        numbers = self._numbers_matching(corporation_id, filters)
        asked = params.get("cursor")
        after = -1 if asked is None else _number_of(asked, fingerprint)
        begin = bisect_right(numbers, after)
        shown = numbers[begin : begin + limit]
        is_last = begin + limit >= len(numbers)
        extend = params.get("extend", "").split(",")
        listing: Listing = {
            "customers": [self._wire_customer(corporation_id, number, extend) for number in shown],
            "total_customers": len(numbers),
            "cursor": None if is_last else _cursor_at(shown[-1], fingerprint),
        }
        if fault is not None:
            again = _cursor_at(after, fingerprint, nonce=next(self._nonces))
            listing = fault.change_listing(listing, asked, again)

        self._plan.note(listing)
        return listing

    def _in_envelope(self, listing: Listing) -> Reply:
        if listing["cursor"] is None and self._end_of_list == "absent":
            del listing["cursor"]
        elif listing["cursor"] is None and self._end_of_list == "empty":
            listing["cursor"] = ""
        if self._envelope == "bare":
            return Reply.json(200, listing)

        return Reply.json(200, {"data": listing, "message": "Successfully fetched customers."})

    def _wire_customer(self, corporation_id: str, number: int, extend: Sequence[str]) -> Record:
        return to_wire(make_customer(self._seed, corporation_id, number), extend, self._address_keys)

    def _numbers_matching(self, corporation_id: str, filters: tuple[tuple[str, str], ...]) -> Sequence[int]:
        everyone = range(self._corporations[corporation_id])
        if not filters:
            return everyone

        key = (corporation_id, filters)
        if key not in self._matches:
            self._matches[key] = [
                number
                for number in everyone
                for record in [make_customer(self._seed, corporation_id, number)]
                if all(FILTERS[name](record, value) for name, value in filters)
            ]
        return self._matches[key]


def _check_word(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")


def _unique(pairs: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    params = dict(pairs)
    if len(params) != len(pairs):
        raise _RefusedError(400, "a parameter is given more than once; several values are separated by commas")

    return params


def _check(params: Mapping[str, str]) -> tuple[str, int]:
    """Return `corporation_id` and `limit`; refuse what the API page does not allow."""
    unknown = sorted(set(params) - _PARAMETERS)
    if unknown:
        raise _RefusedError(400, f"unknown parameter: {', '.join(unknown)}")
    if not params.get("corporation_id"):
        raise _RefusedError(400, "corporation_id is required")

    limit = params.get("limit", _DEFAULT_LIMIT)
    if not _DIGITS.fullmatch(limit) or not 1 <= int(limit) <= _MAX_LIMIT:
        raise _RefusedError(400, f"limit must be between 1 and {_MAX_LIMIT}")

    for name, allowed in CLOSED_VALUES.items():
        if name in params and params[name] not in allowed:
            raise _RefusedError(400, f"{name} must be one of {', '.join(sorted(allowed))}")
    if "extend" in params and not set(params["extend"].split(",")) <= set(EXTENSIONS):
        raise _RefusedError(400, f"extend must be of {', '.join(EXTENSIONS)}")

    return params["corporation_id"], int(limit)


def _cursor_at(after: int, fingerprint: int, *, nonce: int = 0) -> str:
    """Return an opaque cursor for what follows customer number *after* in the list with this fingerprint."""
    return base64.urlsafe_b64encode(f"{fingerprint:08x}:{after}:{nonce}".encode()).decode().rstrip("=")


def _number_of(cursor: str, fingerprint: int) -> int:
    try:
        decoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        query, after, _nonce = decoded.split(":")
        if int(query, 16) == fingerprint:
            return int(after)
    except (binascii.Error, ValueError):
        pass

    raise _RefusedError(400, "the cursor is not valid, or belongs to another query")
