"""The result of an export, in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import CustomersError


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    What an export has written, and what is missing.

    The numbers of customers, invalid rows and corporations are those of the output: if the export resumed, they include what
    earlier calls wrote. The others are those of this call.
    """

    customers: int = 0
    """Customers in the output."""
    customers_before: int = 0
    """How many of them earlier calls wrote."""
    invalid_customers: int = 0
    """Rows that are not valid customers. They are in a table or a file of their own."""
    corporations: int = 0
    """Corporations that were read to the end."""
    failures: Mapping[str, CustomersError] = field(default_factory=dict[str, CustomersError])
    """Corporations that failed, with their errors. The next call reads only what is missing of them."""
    shortfalls: Mapping[str, int] = field(default_factory=dict[str, int])
    """Corporations for which the server counted more customers than it sent, and how many more."""
    restarted: tuple[str, ...] = ()
    """Corporations that were read again from the beginning, because the server refused the cursor of an earlier call."""
    dropped: tuple[str, ...] = ()
    """Corporations that an earlier call began and that this call did not name. What was written of them was discarded."""
    pages: int = 0
    """Pages that came."""
    retries: int = 0
    """Requests that were sent again."""
    waited: float = 0.0
    """Seconds that pages waited for the rate limiter, added up over all pages."""
    elapsed: float = 0.0
    """Seconds that the export took."""
    is_complete: bool = False
    """Whether the output is complete: no corporation failed."""
