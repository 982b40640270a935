"""
The corporations that the server knows: all of them.

A corporation is named after its number and its number of pages, so that the server need not store any.
"""

PER_PAGE = 100
EXTENSIONS = ("shipping_address", "exemption_metadata")


def corporations(number: int, pages: int) -> list[str]:
    """Return the names of so many corporations of so many pages."""
    return [f"corp_{each:04}_{pages:05}" for each in range(number)]


def pages_of(corporation_id: str) -> int:
    """Return how many pages a corporation has."""
    return int(corporation_id[-5:])
