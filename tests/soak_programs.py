"""The programs of a soak: they read lists and streams and write exports, and are interrupted at random."""

import random
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from commenda_customers import (
    AsyncCustomersAPI,
    Checkpoint,
    CursorRejectedError,
    CustomersError,
    ListChangedError,
    ResumableIterator,
    RetryPolicy,
)
from commenda_customers.export import OutputRefusedError, export
from commenda_customers.testing import Emulator
from exports import Kind, held, invalid_held
from soak import Boom, Ledger, Trouble

HASTY = RetryPolicy(max_attempts=5, deadline=20, initial_wait=0.01, max_wait=0.1, max_retry_after=2)
PATIENT = RetryPolicy(max_attempts=None, deadline=None, initial_wait=0.01, max_wait=0.5)


class Clients(NamedTuple):
    """The client during the faults, and a new one after them."""

    first: AsyncCustomersAPI
    second: AsyncCustomersAPI


class Program:
    """Reads some corporations again and again, and is interrupted at random."""

    def __init__(self, clients: Clients, trouble: Trouble, draw: random.Random, names: Iterable[str]) -> None:
        self.rounds = self.interruptions = 0
        self._clients = clients
        self._trouble = trouble
        self._draw = draw
        self._names = list(names)

    async def run(self) -> None:
        """Read everything until the faults end. Every round is complete, also the last one."""
        while not self._trouble.is_over:
            await self.read_all()
            self.rounds += 1

    async def read_all(self) -> None:
        """Read all corporations once."""
        raise NotImplementedError

    def _api(self) -> AsyncCustomersAPI:
        """Return a client. Without faults, it has long timeouts."""
        if self._trouble.is_over:
            return self._clients.second.with_options(timeout=60, retry=PATIENT)
        return self._clients.first.with_options(timeout=self._draw.choice([0.2, 0.5, 1]), retry=HASTY)

    def _limit(self) -> int:
        return self._draw.choice([7, 50, 100, 100])

    def _moment(self) -> anyio.CancelScope:
        """Return a scope that cancels its block after a short time; without faults, never."""
        return anyio.move_on_after(None if self._trouble.is_over else 10 ** self._draw.uniform(-3, 0.3))


class _Reader(Program):
    """A program that iterates."""

    def __init__(
        self,
        clients: Clients,
        trouble: Trouble,
        draw: random.Random,
        names: Iterable[str],
        ledger: Ledger,
    ) -> None:
        super().__init__(clients, trouble, draw, names)
        self._ledger = ledger

    def _iterator(self, listing: Any) -> ResumableIterator[Any]:
        return listing.pages() if self._draw.random() < 0.5 else aiter(listing)

    async def _consume(self, iterator: ResumableIterator[Any]) -> None:
        """Take customers or pages, until the end or for a while."""
        async for item in iterator:
            for customer in item if hasattr(item, "customers") else [item]:
                self._ledger.take(customer)
            if self._is_leaving():
                return
            if self._draw.random() < 0.01:
                await anyio.sleep(self._draw.choice([0, 0.01]))

    def _is_leaving(self) -> bool:
        """Return whether to leave the loop. A program may also fail."""
        if self._trouble.is_over or self._draw.random() > 0.002:
            return False
        if self._draw.random() < 0.3:
            raise Boom("the program")

        return True

    def _saved(self, checkpoint: Checkpoint, errors: Mapping[str, Exception]) -> Checkpoint:
        """Save a checkpoint and load it, as a program that starts again. A list whose cursor is refused restarts."""
        self.interruptions += 1
        checkpoint = Checkpoint.model_validate_json(checkpoint.model_dump_json())
        for name, error in errors.items():
            assert not isinstance(error, ListChangedError), "no list has changed"
            if isinstance(error, CursorRejectedError) and self._draw.random() < 0.5:
                checkpoint = checkpoint.without(name)
                self._ledger.restart(name)
        return checkpoint


class ListReader(_Reader):
    """Reads one list after the other."""

    async def read_all(self) -> None:
        """Read all lists."""
        for name in self._names:
            await self._read(name)
            self._ledger.finish([name])

    async def _read(self, name: str) -> None:
        checkpoint: Checkpoint | None = None
        while checkpoint is None or not checkpoint.finished:
            listing = self._api().list(name, limit=self._limit(), resume=checkpoint, invalid_customers="collect")
            iterator, errors = self._iterator(listing), dict[str, Exception]()
            try:
                with self._moment():
                    await self._glance(name)
                    await self._consume(iterator)
            except (CustomersError, Boom) as error:
                errors[name] = error
            checkpoint = self._saved(iterator.checkpoint(), errors)

    async def _glance(self, name: str) -> None:
        """Get a page as a web request does: with a short deadline."""
        if self._draw.random() < 0.3:
            with suppress(CustomersError):
                await self._api().list(name, limit=1, max_wait=0.01, invalid_customers="collect")


class StreamReader(_Reader):
    """Reads all lists as one stream."""

    async def read_all(self) -> None:
        """Read all lists."""
        checkpoint: Checkpoint | None = None
        while checkpoint is None or len(checkpoint.finished) < 12 * len(self._names):
            stream = self._api().stream(
                self._draw.sample(self._names, len(self._names)),
                concurrency=self._draw.choice([1, 4, 16, 40]),
                errors=self._draw.choice(["raise", "collect"]),
                limit=self._limit(),
                resume=checkpoint,
                invalid_customers="collect",
            )
            with suppress(CustomersError, Boom), self._moment():
                async with stream:
                    await self._consume(self._iterator(stream))
            checkpoint = self._saved(stream.checkpoint(), stream.failures)
        self._ledger.finish(self._names)


class Exporter(Program):
    """Writes all lists into one output."""

    def __init__(
        self,
        clients: Clients,
        trouble: Trouble,
        draw: random.Random,
        names: Iterable[str],
        output: tuple[Kind, Path, Emulator],
    ) -> None:
        super().__init__(clients, trouble, draw, names)
        self._kind, self._folder, server = output
        self._wanted = held(server, *self._names), invalid_held(server, *self._names)

    async def read_all(self) -> None:
        """Write a new output."""
        self._folder.mkdir()
        for _ in count():
            try:
                with suppress(CustomersError, Boom), self._moment():
                    if await self._is_complete():
                        break
            except OutputRefusedError:
                assert self.interruptions  # the last interruption came when the output was complete
                break
            self.interruptions += 1

        assert (self._kind.rows(self._folder), self._kind.invalid(self._folder)) == self._wanted
        assert self._kind.left_behind(self._folder) == set()
        shutil.rmtree(self._folder)

    async def _is_complete(self) -> bool:
        """Resume the export. Return whether it is complete."""
        sink = self._kind.sink(self._folder)
        summary = await export(
            self._api(), self._names, sink, limit=self._limit(), concurrency=4, commit_every=self._draw.randint(1, 9)
        )
        return summary.is_complete
