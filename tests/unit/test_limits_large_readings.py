"""Much that others saw, read at once: after an outage of the log, or when a process joins."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from commenda_customers.limits._group import _apply
from commenda_customers.limits._log import Entry
from commenda_customers.limits._outcomes import Kind
from commenda_customers.limits._replica import Message, Replica, Report

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("entries", "reports"), [(2000, 0), (20, 200)])
async def test_other_tasks_run_meanwhile(entries: int, reports: int) -> None:
    """Neither many entries nor long ones block the event loop for longer than a few milliseconds."""
    message = Message("abcdefabcdef", 100.0, reports=(Report(Kind.SUCCESS, 99.25, 99.5, 3),) * reports)
    reading = [Entry(f"{100_000 + number}-0", message.text()) for number in range(entries)]
    replica, turns = Replica(), 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await _apply(reading, replica)
        tasks.cancel_scope.cancel()

    assert replica.position == reading[-1].id
    assert turns >= 5
