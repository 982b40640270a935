"""Jobs against the emulated API in memory: bad rows, old cursors, new tokens, faults and interruptions at once."""

from collections import Counter
from itertools import count
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virtual_time
from commenda_customers import (
    AsyncCustomersAPI,
    Checkpoint,
    CursorRejectedError,
    Customer,
    Event,
    InvalidCustomerReceived,
    RetryPolicy,
)
from commenda_customers.testing import Emulator, faults

FAULTS = [
    faults.Status(503, probability=0.1),
    faults.NotJSON(probability=0.1),
    faults.EmptyPage(probability=0.1),
]
PATIENT = RetryPolicy(max_attempts=None, deadline=None, initial_wait=0.1, max_wait=1)


class Job(NamedTuple):
    """
    What a job meets.

    Attributes:
        kinds: The rows of each corporation: valid, wrong with an id, wrong without one, and no object.
        limits: The page size of each run.
        stops: After how many customers each run is left; the last run is not.
        expires: Seconds after which a cursor is refused; 0: never.
        rotates: After how many customers there is another token.
    """

    kinds: list[list[str]]
    limits: list[int]
    stops: list[int]
    expires: float
    rotates: int


KINDS = st.lists(
    st.lists(st.sampled_from(["valid", "valid", "wrong", "nameless", "null"]), max_size=9), min_size=1, max_size=3
)
LIMITS = st.lists(st.integers(1, 5), min_size=1, max_size=3)
STOPS = st.lists(st.integers(0, 8), max_size=4)


def row(corporation: int, number: int, kind: str) -> Any:
    name, owner = f"{corporation}.{number}", f"corp_{corporation}"
    return {
        "valid": {"id": name, "corporation_id": owner, "name": "Caf\ud83d"},
        "wrong": {"id": name, "corporation_id": owner, "name": 12345},
        "nameless": {"corporation_id": owner},
        "null": None,
    }[kind]


class Program:
    """A program that reads all corporations, and resumes until it is done."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.held = {f"corp_{number}": rows_of(number, kinds) for number, kinds in enumerate(job.kinds)}
        expiring = [faults.ExpiredCursor(after=job.expires)] if job.expires else []
        self.server = Emulator(self.held, faults=[*FAULTS, *expiring])
        self.seen: dict[str, list[str]] = {name: [] for name in self.held}
        self.reported: list[tuple[str, str | None]] = []
        self.tokens = count()

    async def token(self) -> str:
        return self.server.token

    def note(self, event: Event) -> None:
        if isinstance(event, InvalidCustomerReceived):
            self.reported.append((event.corporation_id, event.customer.id))

    async def take(self, customer: Customer) -> None:
        self.seen[customer.corporation_id].append(customer.id)
        assert customer.name == "Caf\ufffd"
        if sum(map(len, self.seen.values())) % self.job.rotates == 0:
            self.server.token = f"token-{next(self.tokens)}"
        await anyio.sleep(1)

    async def run_all(self) -> None:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(self.server))
        options: dict[str, Any] = {"http_client": client, "base_url": self.server.base_url, "hooks": [self.note]}
        checkpoint: Checkpoint | None = None
        async with AsyncCustomersAPI(self.token, retry=PATIENT, **options) as api:
            for run in count():
                checkpoint = await self.run(api, run, checkpoint)
                if len(checkpoint.finished) == 12 * len(self.held):
                    return

    async def run(self, api: AsyncCustomersAPI, run: int, checkpoint: Checkpoint | None) -> Checkpoint:
        limit = self.job.limits[run % len(self.job.limits)]
        stop = self.job.stops[run] if run < len(self.job.stops) else 1000
        stream = api.stream(self.held, limit=limit, resume=checkpoint, invalid_customers="collect")
        try:
            async with stream:
                async for customer in stream:
                    await self.take(customer)
                    stop -= 1
                    if stop < 0:
                        break
        except CursorRejectedError as error:
            return self.restart(error.corporation_id or "", stream.checkpoint())
        return stream.checkpoint()

    def restart(self, corporation_id: str, checkpoint: Checkpoint) -> Checkpoint:
        """Begin a list anew whose cursor is too old."""
        self.reported = [row for row in self.reported if row[0] != corporation_id]
        self.seen[corporation_id].clear()
        return checkpoint.without(corporation_id)


def rows_of(corporation: int, kinds: list[str]) -> list[Any]:
    return [row(corporation, number, kind) for number, kind in enumerate(kinds)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=100)
@given(job=st.builds(Job, KINDS, LIMITS, STOPS, st.sampled_from([0.0, 0.0, 5.0]), st.integers(1, 6)))
def test_a_job_reads_every_valid_customer_once(backend: str, job: Job) -> None:
    """All runs together yield each valid customer once, and report each invalid row once, also one without an id."""
    program = Program(job)
    virtual_time.run(program.run_all, backend)
    invalid: Counter[tuple[str, str | None]] = Counter()
    for number, kinds in enumerate(job.kinds):
        name = f"corp_{number}"
        valid = [f"{number}.{index}" for index, kind in enumerate(kinds) if kind == "valid"]
        assert program.seen[name] == valid
        invalid.update((name, f"{number}.{index}") for index, kind in enumerate(kinds) if kind == "wrong")
        invalid[name, None] = sum(kind in {"nameless", "null"} for kind in kinds)
    assert Counter(program.reported) == +invalid
