"""Which fault strikes a request."""

import random
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from .faults import Fault, Listing


class FaultPlan:
    """
    The faults of an emulator, in the order in which they were added. They may change while it serves, from any thread.

    The same seed, the same faults and the same requests in the same order give the same result on every machine.
    """

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        """
        Args:
            faults: The first faults.
            seed: Random seed of their probabilities.

        Raises:
            TypeError: One of them is not a fault.
        """
        self._seed = seed
        self._numbers = count()
        self._added: list[_Added] = []
        for fault in faults:
            self.add(fault)

    def __iter__(self) -> Iterator[Fault]:
        return iter([added.fault for added in list(self._added)])

    def __len__(self) -> int:
        return len(self._added)

    def add(self, fault: Fault) -> None:
        """
        Add *fault* after the others, from the next request on. Its `at` counts from here.

        Raises:
            TypeError: It is not a fault.
        """
        _check_fault(fault)
        # Each fault has random numbers of its own, so that another fault does not change when it strikes.
        self._added.append(_Added(fault, random.Random(f"{self._seed}/{next(self._numbers)}")))

    def remove(self, fault: Fault) -> None:
        """
        Remove the first fault that is equal to *fault*, from the next request on.

        Raises:
            ValueError: There is none.
        """
        for added in list(self._added):
            if added.fault == fault:
                self._added.remove(added)
                return

        raise ValueError(f"faults: there is no {fault!r}")

    def clear(self) -> None:
        """Remove all faults, from the next request on."""
        self._added.clear()

    def strike(self, corporation_id: str | None, page: int | None) -> Fault | None:
        """Return the fault for the next request, which is for this page of this corporation, if any."""
        # Every fault counts the request, also those that come after the one that strikes.
        struck = [added.fault for added in list(self._added) if added.strikes(corporation_id, page)]
        return struck[0] if struck else None

    def note(self, listing: Listing) -> None:
        """Show a listing that is sent to all faults."""
        for fault in self:
            fault.note(listing)


def _check_fault(given: Any) -> None:
    if not isinstance(given, Fault):
        name = given.__name__ if isinstance(given, type) else type(given).__name__
        raise TypeError(f"faults: expected a fault such as Drop(at=[1]), got {name}")


class _Added:
    """A fault, and how many requests have concerned it since it was added."""

    def __init__(self, fault: Fault, draws: random.Random) -> None:
        self.fault = fault
        self._draws = draws
        self._requests = 0

    def strikes(self, corporation_id: str | None, page: int | None) -> bool:
        if not self.fault.concerns(corporation_id, page):
            return False

        self._requests += 1
        is_drawn = self._draws.random() < self.fault.chance
        return is_drawn or self._requests in (self.fault.at or ())
