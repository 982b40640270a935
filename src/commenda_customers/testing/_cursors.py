"""The cursors of the emulated API: text that says nothing to clients."""

import base64
import binascii
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Cursor:
    """
    Where a page begins.

    Attributes:
        query: Fingerprint of the corporation and the filters; 0 if there was no cursor.
        after: Number of the last customer before the page, from 0; -1 at the beginning.
        page: Number of the page, from 1.
        nonce: Makes different cursors for the same page.
    """

    query: int = 0
    after: int = -1
    page: int = 1
    nonce: int = 0

    def __str__(self) -> str:
        text = f"{self.query:08x}:{self.after}:{self.page}:{self.nonce}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the cursor that was sent as *text*, or `None` if there was none."""
        try:
            query, *numbers = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(":")
            after, page, nonce = map(int, numbers)
            return cls(int(query, 16), after, page, nonce)
        except (binascii.Error, ValueError):
            return None
