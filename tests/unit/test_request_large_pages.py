"""Pages of megabytes, while other tasks run."""

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from script import Script

pytestmark = pytest.mark.anyio

ROWS = [{"id": f"cust_{number}", "corporation_id": "corp_1", "name": "N" * 400} for number in range(4000)]


async def turns_during(*, rows: int) -> int:
    """Return how often another task runs while a page is fetched and decoded."""
    script = Script(httpx.Response(200, json={"customers": ROWS[:rows]}))
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with script.api() as api, anyio.create_task_group() as tasks:
        tasks.start_soon(take_turns)
        page = await api.list("corp_1")
        tasks.cancel_scope.cancel()
    assert [customer.id for customer in page] == [row["id"] for row in ROWS[:rows]]
    return turns


async def test_other_tasks_run_while_a_large_page_is_decoded() -> None:
    """A page of two megabytes is decoded in steps, and other tasks run between them, more often than during a usual page."""
    usual = await turns_during(rows=100)
    assert await turns_during(rows=4000) >= usual + 20
