"""What runs in a child task behaves as if it were awaited."""

import gc
import weakref

import pytest

from commenda_customers._cancellation import in_child_task

pytestmark = pytest.mark.anyio


class OwnError(Exception):
    """What the call raises."""


async def fail() -> None:
    raise OwnError


async def test_a_result_is_returned() -> None:
    """The result of the call is returned."""

    async def call() -> int:
        return 5

    assert await in_child_task(call) == 5


async def test_an_error_is_raised_as_itself() -> None:
    """An exception of the call is raised as itself, and in no group."""
    with pytest.raises(OwnError):
        await in_child_task(fail)


async def test_an_error_is_freed_at_once() -> None:
    """An exception that the program drops is freed at once, with the responses in its frames."""
    gc.disable()
    try:
        try:
            await in_child_task(fail)
        except OwnError as error:
            dropped = weakref.ref(error)
        assert dropped() is None
    finally:
        gc.enable()
