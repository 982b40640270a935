"""Event loops and processes: which one owns an object, whether it has ended, and objects that must not be copied."""

import os
from typing import NamedTuple, Never

from anyio.lowlevel import EventLoopToken, current_token


class EventLoop(NamedTuple):
    """
    An event loop in a process. A fork copies the event loop, but not the right to use its connections.

    Attributes:
        process: The id of the process.
        loop: The event loop.
    """

    process: int
    loop: EventLoopToken

    @property
    def is_current(self) -> bool:
        """Whether this is the event loop that runs in this thread."""
        try:
            return self.process == os.getpid() and self.loop == current_token()
        except RuntimeError:  # not always anyio's `NoEventLoopError`: in `asyncio.to_thread`, anyio detects asyncio
            return False

    @property
    def is_asyncio(self) -> bool:
        """Whether this is an event loop of asyncio, and not of trio."""
        return hasattr(self.loop.native_token, "is_closed")

    @property
    def has_ended(self) -> bool:
        """Whether the event loop was closed, or belongs to the parent of this forked process."""
        return self.process != os.getpid() or _has_ended(self.loop.native_token)


def current_event_loop() -> EventLoop:
    """
    Return the event loop that runs in this thread.

    Raises:
        RuntimeError: There is none.
    """
    return EventLoop(os.getpid(), current_token())


def _has_ended(native_token: object) -> bool:
    is_closed = getattr(native_token, "is_closed", None)
    if is_closed is not None:  # of asyncio
        return bool(is_closed())

    try:
        native_token.run_sync_soon(_do_nothing)  # type: ignore[attr-defined]  # of trio, which has no `is_closed`
    except RuntimeError:  # `trio.RunFinishedError`
        return True
    return False


def _do_nothing() -> None:
    """Do nothing, in a trio event loop that still runs."""


class NotCopyable:
    """The base of objects that raise a clear error when a program copies or pickles them."""

    _advice = "make a client where it is used"

    def __reduce__(self) -> Never:
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied; {self._advice}")
