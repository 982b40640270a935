"""The attempt in progress: the one value that the retry policy and the request share."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from ._secret import Secret


class Deadline:
    """
    The time that one page has.

    A page of a job may wait for its turn: the time until its first permit, and until a connection is free, does not count.
    With `max_wait` somebody waits for the page. Then all time counts.

    Attributes:
        scope: Is cancelled at the deadline.
        waited: Seconds for which the page has waited for the limiter.
        came_at_limiter: Whether the deadline came while a page with `max_wait` waited for the limiter.
    """

    def __init__(self, seconds: float | None, *, max_wait: float | None = None) -> None:
        self._began = anyio.current_time()
        self.scope = anyio.CancelScope(deadline=math.inf if seconds is None else self._began + seconds)
        self.waited = 0.0
        self.came_at_limiter = False
        self._max_wait = max_wait

    @property
    def elapsed(self) -> float:
        """Seconds since it began, without those for which it was suspended."""
        return anyio.current_time() - self._began

    @property
    def left_to_wait(self) -> float | None:
        """Seconds for which the limiter may still hold the page back; `None` means no limit."""
        if self._max_wait is None:
            return None

        return max(0.0, min(self._max_wait - self.waited, self.scope.deadline - anyio.current_time()))

    @contextmanager
    def at_limiter(self, *, again: bool) -> Generator[None]:
        """Count the time of a block as a wait for the limiter, for the first permit of the page or *again*."""
        began, deadline = anyio.current_time(), self.scope.deadline
        if not again:
            self._suspend()
        try:
            yield
        finally:
            waited = anyio.current_time() - began
            self.waited += waited
            if not again:
                self._resume(deadline, waited)
            self.came_at_limiter = self._max_wait is not None and self.scope.cancel_called

    @contextmanager
    def suspended(self) -> Generator[None]:
        """Do not count the time of a block, unless somebody waits for the page."""
        began, deadline = anyio.current_time(), self.scope.deadline
        self._suspend()
        try:
            yield
        finally:
            self._resume(deadline, anyio.current_time() - began)

    def _suspend(self) -> None:
        if self._max_wait is None:
            self.scope.deadline = math.inf

    def _resume(self, deadline: float, waited: float) -> None:
        if self._max_wait is None:
            self.scope.deadline = deadline + waited
            self._began += waited


@dataclass(slots=True)
class Attempt:
    """
    The attempt in progress. It is passed down to the code that sends the request, and tells the retry policy the outcome.

    Attributes:
        number: The first is 1.
        deadline: The deadline of the request.
        had_permit: Whether the limiter has let the request begin, in this attempt or in an earlier one.
        failing_since: When the first attempt failed; infinity if none has.
        failed_at: When the last attempt failed; infinity if none has.
        was_sent: Whether this attempt was sent.
        secret: The token with which it was sent last.
        is_token_renewed: Whether the server refused its first token, so that it is sent with another.
        in_flight_since: When it was sent; `None` if it is not in flight.
        paused_for: Seconds for which the limiter holds the next attempt back.
        is_exempt: Whether it does not count as a failed attempt: the server throttled it, or takes nothing at all.
    """

    number: int
    deadline: Deadline
    had_permit: bool = False
    failing_since: float = math.inf
    failed_at: float = math.inf
    was_sent: bool = False
    secret: Secret | None = None
    is_token_renewed: bool = False
    in_flight_since: float | None = None
    paused_for: float = 0.0
    is_exempt: bool = False

    @property
    def attempts_sent(self) -> int:
        """How many attempts of the request were sent."""
        return self.number if self.was_sent else self.number - 1
