"""Lists of many corporations behind a function, in place of the network."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio

from commenda_customers import Customer, CustomerPage, CustomerStream, Event, InvalidCustomer, ServerError
from commenda_customers.checkpoint import Checkpoint
from commenda_customers.query import CustomersQuery, Selection

SELECTION = Selection.build(limit=100)

Pages = Sequence[Sequence[str]]
"""The ids of each page of a list."""


def page_of(corporation: str, names: Sequence[str], total: int | None, cursor: str | None) -> CustomerPage:
    """Return a page. `!x` is a row with the id `x` that is not valid, and `?` is one without an id."""
    customers = tuple(Customer(id=name, corporation_id=corporation) for name in names if name[:1] not in {"!", "?"})
    invalid = tuple(
        InvalidCustomer(index, name[1:] or None, ("name: wrong",), {})
        for index, name in enumerate(names)
        if name[:1] in {"!", "?"}
    )
    return CustomerPage(corporation, customers, total, cursor, invalid)


class Lists:
    """
    What the server holds. The cursor of a page is its number.

    Attributes:
        pages: The pages of each corporation.
        latency: Seconds for a page, by corporation and number of the page.
        failures: How often a page fails before it comes, by corporation and number.
        asked: Which pages came, in order.
        in_flight: Requests that have begun and not ended.
        events: What was reported.
    """

    def __init__(
        self,
        pages: Mapping[str, Pages],
        *,
        latency: Callable[[str, int], float] = lambda _corporation, _number: 0.0,
        failures: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        self.pages = dict(pages)
        self.latency = latency
        self.failures = Counter(failures or {})
        self.asked: list[tuple[str, int]] = []
        self.in_flight = 0
        self.events: list[Event] = []

    async def fetch(self, query: CustomersQuery, cursor: str | None) -> CustomerPage:
        corporation, number = query.corporation_id, int(cursor or 0)
        self.in_flight += 1
        try:
            await anyio.sleep(self.latency(corporation, number))
            if self.failures[corporation, number]:
                self.failures[corporation, number] -= 1
                raise ServerError("broken", corporation_id=corporation, cursor=cursor)
        finally:
            self.in_flight -= 1

        self.asked.append((corporation, number))
        pages = self.pages[corporation]
        following = str(number + 1) if number + 1 < len(pages) else None
        return page_of(corporation, pages[number], sum(map(len, pages)), following)

    def stream(
        self,
        ids: Any = None,
        *,
        concurrency: int = 4,
        errors: Any = "raise",
        max_failures: int | None = None,
        resume: Checkpoint | None = None,
    ) -> CustomerStream:
        return CustomerStream(
            self.fetch,
            SELECTION,
            self.pages if ids is None else ids,
            self.events.append,
            concurrency=concurrency,
            errors=errors,
            max_failures=max_failures,
            resume=resume,
        )

    def everyone(self) -> list[tuple[str, str]]:
        """Return each customer of each corporation, in order within each."""
        return [(name, row) for name, pages in self.pages.items() for page in pages for row in page]


def equal(corporations: int, pages: int, size: int = 2) -> dict[str, Pages]:
    """Return corporations whose lists are of one length."""
    return {
        f"c{number}": [[f"{number}.{page}.{row}" for row in range(size)] for page in range(pages)]
        for number in range(corporations)
    }


def again(checkpoint: Checkpoint) -> Checkpoint:
    """Return what is read from what was written."""
    return Checkpoint.model_validate_json(checkpoint.model_dump_json())
