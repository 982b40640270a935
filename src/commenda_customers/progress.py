"""How far a stream has come, in numbers that are cheap to read at any time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["CorporationProgress", "CorporationState", "StreamProgress"]


class CorporationState(StrEnum):
    """What a stream does with a corporation."""

    READING = "reading"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(slots=True)
class CorporationProgress:
    """
    How far the list of one corporation was read.

    Attributes:
        state: Whether it is being read, finished or failed.
        pages: Pages of it that were yielded, by this stream.
        customers: Customers of it that were yielded, by this stream.
        customers_before: Customers of it that were yielded before, as the checkpoint says with which the stream began.
        total_customers: How many there are, as the server last counted them; `None` if it did not say.
    """

    state: CorporationState = CorporationState.READING
    pages: int = 0
    customers: int = 0
    customers_before: int = 0
    total_customers: int | None = None

    @property
    def remaining(self) -> int | None:
        """About how many customers are still to come; `None` if the server has not said how many there are."""
        if self.state is CorporationState.FINISHED:
            return 0
        if self.total_customers is None:
            return None

        return max(0, self.total_customers - self.customers_before - self.customers)


@dataclass(slots=True)
class StreamProgress:
    """
    How far a stream has come. It counts what was yielded; a page counts when its first customer is.

    Attributes:
        corporations: Each corporation of which anything was yielded or that has failed, by its id.
        pages: Pages, of all corporations.
        customers: Customers, of all corporations.
        finished: Corporations that were read to their end by this stream.
        failed: Corporations that failed.
    """

    corporations: Mapping[str, CorporationProgress] = field(repr=False)
    _reading: Mapping[str, CorporationProgress] = field(repr=False)
    pages: int = 0
    customers: int = 0
    finished: int = 0
    failed: int = 0

    @property
    def reading(self) -> int:
        """Corporations of which something was yielded, by this stream, and that are not finished."""
        return len(self._reading)

    @property
    def remaining(self) -> int | None:
        """
        About how many customers are still to come of the corporations in `reading`.

        Nobody knows how many there are in those that have not begun. `None` before the first page, and if the server has not
        said of any of them how many there are.
        """
        known = [left for each in self._reading.values() if (left := each.remaining) is not None]
        return sum(known) if known or (self.corporations and not self._reading) else None
