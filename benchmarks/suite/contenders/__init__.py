"""
The contenders. Each has a function `open_*(url)`, in a file of its own or of its library. The function opens the client for
the length of a block, and yields a reader. A reader gets the names of corporations and the number of requests in flight. It
reads all pages of these corporations, and returns how many customers came.

To add a contender, add such a function, and a row here.
"""

import importlib
import importlib.util
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

TOKEN = "benchmark-token-as-long-as-real-ones-are"

Read = Callable[[Sequence[str], int], Awaitable[int]]
Open = Callable[[str], AbstractAsyncContextManager[Read]]

ANYIO = ("asyncio", "trio", "uvloop")
ASYNCIO = ("asyncio", "uvloop")


@dataclass(frozen=True)
class Contender:
    """
    A client to measure.

    Attributes:
        name: Its name in tables.
        opens: `file:function` of this folder.
        needs: The packages that it needs, beside those of the SDK.
        backends: The event loops that it runs on.
        envelope: The pages it understands: the first part of the path.
        shapes: What it is for: `one` request in flight, or `many`.
    """

    name: str
    opens: str
    needs: tuple[str, ...] = ()
    backends: tuple[str, ...] = ANYIO
    envelope: str = "commenda"
    shapes: tuple[str, ...] = ("one", "many")

    @property
    def is_installed(self) -> bool:
        """Whether its packages are there."""
        return all(importlib.util.find_spec(name) is not None for name in self.needs)

    def load(self) -> Open:
        """Import it, and nothing of the others."""
        file, _, function = self.opens.partition(":")
        found: Open = getattr(importlib.import_module(f".{file}", __name__), function)
        return found


HAND = "httpx by hand"
OURS = "commenda-customers"
OURS_PYREQWEST = "commenda-customers, pyreqwest"

CONTENDERS = {
    each.name: each
    for each in (
        Contender("raw: httptools + pydantic", "raw:open_raw", ("httptools",), ASYNCIO),
        Contender("aiohttp + pydantic", "aiohttp_by_hand:open_aiohttp", ("aiohttp",), ASYNCIO),
        Contender(HAND, "httpx_by_hand:open_httpx"),
        Contender("httpx by hand, own models", "httpx_by_hand:open_with_own_models"),
        Contender("httpx2 by hand", "httpx_by_hand:open_httpx2", ("httpx2",)),
        Contender(OURS, "ours:open_ours"),
        Contender("commenda-customers, user's client", "ours:open_with_a_client"),
        Contender("commenda-customers, httpx-aiohttp", "ours:open_with_aiohttp", ("httpx_aiohttp",), ASYNCIO),
        Contender(OURS_PYREQWEST, "ours:open_with_pyreqwest", ("pyreqwest",), ASYNCIO),
        Contender("openai's pager", "openai_pager:open_openai", ("openai",), ASYNCIO),
        Contender("stripe's pager", "stripe_pager:open_stripe", ("stripe",), envelope="stripe"),
    )
}
