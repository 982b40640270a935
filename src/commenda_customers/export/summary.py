"""The result of an export."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import CustomersError


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    The result of an export, and what is missing.

    The numbers of customers, invalid rows and corporations are totals of the run. If the export resumed, they include
    earlier calls. All other values are those of this call.
    """

    customers: int = 0
    """Customers that the run has written, in all its calls."""
    customers_before: int = 0
    """How many of them earlier calls have written."""
    invalid_customers: int = 0
    """Rows that are not valid customers. They are in a separate table or file."""
    corporations: int = 0
    """Corporations that were read to the end."""
    failures: Mapping[str, CustomersError] = field(default_factory=dict[str, CustomersError])
    """Corporations that failed, with their errors. The next call reads only their missing pages."""
    shortfalls: Mapping[str, int] = field(default_factory=dict[str, int])
    """The corporations with missing customers: the server counted this number more than it sent."""
    restarted: tuple[str, ...] = ()
    """Corporations that the export read again from the beginning: the cursor was refused, or the list changed too much."""
    dropped: tuple[str, ...] = ()
    """Corporations that an earlier call began, but did not finish, and that this call did not name. They were discarded."""
    pages: int = 0
    """Pages received."""
    retries: int = 0
    """Requests sent again."""
    waited: float = 0.0
    """Seconds that pages waited for the rate limiter: the sum over all pages."""
    elapsed: float = 0.0
    """Duration of the export in seconds."""
    is_complete: bool = False
    """Whether the output is complete: no corporation failed."""
