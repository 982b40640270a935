"""Every status, from one server: each corporation gets another one."""

import re
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from commenda_customers import AsyncCustomersAPI, AuthenticationError, CustomersError, RetryPolicy
from fault_matrix.rows import Row
from fault_matrix.runs import QUICK, Way, Witness
from raw_server import TOKEN, Connection, RawServer, listing, ok

ATTEMPTS = 2
_RANGE = re.compile(r"`(\d{3})`(?: to `(\d{3})`)?")

SUFFIXES: dict[str, str] = {
    "": "",
    "with a page": "",
    "to a request with a cursor": "",
    "with a `Retry-After`": "Retry-After: 0.002\r\n",
    "with a `Retry-After` beyond `max_retry_after`": "Retry-After: 9999\r\n",
}
"""What a row says after its numbers, and the headers of the response."""


def numbers_of(text: str) -> list[int]:
    """Return the numbers in the first cell of a row."""
    return [number for low, high in _RANGE.findall(text) for number in range(int(low), int(high or low) + 1)]


def suffix_of(text: str) -> str:
    """Return what the first cell of a row says after its numbers."""
    return _RANGE.sub("", text).strip(" ,")


def rules(rows: Iterable[Row]) -> dict[str, dict[int, tuple[str, str]]]:
    """Return what the rows say about each number, by suffix; of two rows, the one with fewer numbers applies."""
    found: dict[str, dict[int, tuple[str, str]]] = {}
    for row in sorted(rows, key=lambda row: -len(numbers_of(row.fault))):
        rule = found.setdefault(suffix_of(row.fault), {})
        rule.update(dict.fromkeys(numbers_of(row.fault), (row.outcome, row.error)))
    return found


class StatusServer:
    """Answers a corporation `corp_404` with a 404: the first time, or each time."""

    def __init__(self, server: RawServer, suffix: str, *, lasts: bool) -> None:
        self._suffix = suffix
        self._lasts = lasts
        self._came: Counter[str] = Counter()
        server.behave(self._serve)

    def _serve(self, connection: Connection) -> None:
        while head := connection.read_request():
            name = parse_qs(urlsplit(head.split(b" ", 2)[1].decode()).query)["corporation_id"][0]
            self._came[name] += 1
            is_struck = self._lasts or self._came[name] == 1
            page = listing("b", corporation_id=name)
            connection.send(self._answer(int(name[-3:]), page) if is_struck else ok(page))

    def _answer(self, status: int, page: object) -> bytes:
        good = ok(page)
        body = good[good.index(b"\r\n\r\n") + 4 :] if self._suffix == "with a page" else b"no"
        length = f"Content-Length: {len(body)}\r\n"
        if status in {HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED}:
            body, length = b"", "Content-Length: 0\r\n" if status == HTTPStatus.RESET_CONTENT else ""
        return f"HTTP/1.1 {status} Some Phrase\r\n{SUFFIXES[self._suffix]}{length}\r\n".encode() + body


async def outcomes_of(numbers: Iterable[int], suffix: str, ways: tuple[Way, Way]) -> dict[int, tuple[str, str]]:
    """Return the outcome and the error of each status; see `fault_matrix.runs.WAYS`."""
    names = {number: f"corp_{number}" for number in numbers}
    cursor = "1" if suffix.endswith("cursor") else None
    witness = Witness()
    passing = await _read(names, suffix, ways[0], cursor=cursor, witness=witness)
    lasting = await _read(names, suffix, ways[1], cursor=cursor, witness=None)
    return {
        number: _outcome(passing[number], lasting[number], is_throttled=name in witness.throttled)
        for number, name in names.items()
    }


def _outcome(passing: CustomersError | None, lasting: CustomersError | None, *, is_throttled: bool) -> tuple[str, str]:
    if lasting is None:
        return "read as usual", ""
    if passing is not None:
        assert (type(passing), passing.attempts) == (type(lasting), 1)
        return "final", type(passing).__name__

    assert lasting.attempts == ATTEMPTS
    return "throttled" if is_throttled else "retried", type(lasting).__name__


async def _read(
    names: dict[int, str], suffix: str, way: Way, *, cursor: str | None, witness: Witness | None
) -> dict[int, CustomersError | None]:
    """Read all the corporations, and return their errors."""
    policy = RetryPolicy(max_attempts=ATTEMPTS, **QUICK)
    with RawServer() as server:
        StatusServer(server, suffix, lasts=witness is None)
        async with AsyncCustomersAPI(
            TOKEN, base_url=server.url, retry=policy, rate_limit=witness, hooks=[witness] if witness else []
        ) as api:
            read = _by_list if way == "list" or cursor else _by_stream
            errors, customers = await read(api, [*names.values()], cursor)

    for name, error in errors.items():
        assert customers[name] == (error is None)
        assert error is None or (error.corporation_id, error.status_code) == (name, int(name[-3:])), error
        assert error is None or error.checkpoint is not None
        assert error is None or f"the server answered {name[-3:]}" in str(error)
    return {number: errors[name] for number, name in names.items()}


Errors = dict[str, CustomersError | None]


async def _by_list(api: AsyncCustomersAPI, names: list[str], cursor: str | None) -> tuple[Errors, Counter[str]]:
    errors: Errors = {}
    customers: Counter[str] = Counter()
    for name in names:
        try:
            async for customer in api.list(name, cursor=cursor):
                customers[customer.corporation_id] += 1
        except CustomersError as error:
            errors[name] = error
        else:
            errors[name] = None
    return errors, customers


async def _by_stream(api: AsyncCustomersAPI, names: list[str], _: str | None) -> tuple[Errors, Counter[str]]:
    errors: Errors = dict.fromkeys(names)
    customers: Counter[str] = Counter()
    # A 401 ends a stream, because all its corporations have the same token.
    for group in [name for name in names if name != "corp_401"], ["corp_401"]:
        try:
            async with api.stream([name for name in group if name in errors], errors="collect") as stream:
                customers.update([customer.corporation_id async for customer in stream])
        except AuthenticationError as error:
            errors[group[0]] = error
        else:
            errors.update(stream.failures)
    return errors, customers
