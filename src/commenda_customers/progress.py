"""How much a stream has yielded so far. Reading these numbers is cheap at any time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["CorporationProgress", "CorporationState", "StreamProgress"]


class CorporationState(StrEnum):
    """The state of a corporation in a stream."""

    READING = "reading"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(slots=True)
class CorporationProgress:
    """
    What a stream has yielded of one corporation.

    Attributes:
        state: `reading` (started), `finished` or `failed`.
        pages: Pages that this stream has yielded.
        customers: Customers that this stream has yielded.
        customers_before: Customers that earlier runs have yielded, according to the checkpoint.
        invalid: Rows that this stream has reported as invalid.
        invalid_before: Rows that earlier runs have reported as invalid.
        total_customers: The number of customers, according to the server's last count; `None` if the server sent no count.
    """

    state: CorporationState = CorporationState.READING
    pages: int = 0
    customers: int = 0
    customers_before: int = 0
    invalid: int = 0
    invalid_before: int = 0
    total_customers: int | None = None

    @property
    def remaining(self) -> int | None:
        """About how many customers remain; `None` if the server has not sent a count."""
        if self.state is CorporationState.FINISHED:
            return 0
        if self.total_customers is None:
            return None

        return self._not_sent(self.total_customers)

    @property
    def shortfall(self) -> int | None:
        """
        How many customers the server counted but did not send; 0 if it sent all.

        `None` if the server never sent a count, or if the corporation is not finished. A shortfall is not an
        error, because a list may change while the stream reads it.
        """
        if self.state is not CorporationState.FINISHED or self.total_customers is None:
            return None

        return self._not_sent(self.total_customers)

    def _not_sent(self, total: int) -> int:
        return max(0, total - self.customers_before - self.customers - self.invalid_before - self.invalid)


@dataclass(slots=True)
class StreamProgress:
    """
    How much a stream has yielded. A page counts as soon as the stream has yielded its first customer.

    Attributes:
        corporations: Each corporation that has started or failed, by its id.
        pages: Pages of all corporations.
        customers: Customers of all corporations.
        invalid: Rows that this stream has reported as invalid.
        finished: Corporations that this stream has finished.
        failed: Corporations that have failed.
        customers_before: Customers that earlier runs have yielded, according to the checkpoint.
        invalid_before: Rows that earlier runs have reported as invalid.
        finished_before: Corporations that earlier runs have finished.
    """

    corporations: Mapping[str, CorporationProgress] = field(repr=False)
    _started: Mapping[str, CorporationProgress] = field(repr=False)
    pages: int = 0
    customers: int = 0
    invalid: int = 0
    finished: int = 0
    failed: int = 0
    customers_before: int = 0
    invalid_before: int = 0
    finished_before: int = 0

    @property
    def reading(self) -> int:
        """The number of corporations that have started, and have neither finished nor failed."""
        return len(self._started)

    @property
    def remaining(self) -> int | None:
        """
        About how many customers remain of the corporations that have started.

        The numbers of the other corporations are unknown until their first page. `None` before the first page of the
        stream, and if the server has not sent a count.
        """
        known = [left for each in self._started.values() if (left := each.remaining) is not None]
        return sum(known) if known or (self.corporations and not self._started) else None
