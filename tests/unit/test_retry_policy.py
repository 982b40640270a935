"""The retry decision, a pure function."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers import RetryPolicy, ServerError
from retries import FAULT, throttled


@pytest.mark.parametrize(
    ("attempt", "most"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (6, 16.0), (7, 30.0), (8, 30.0), (5000, 30.0)]
)
def test_waits_double_up_to_a_limit(attempt: int, most: float) -> None:
    """The wait is anywhere from zero to a bound that doubles with each attempt, up to `max_wait`."""
    policy = RetryPolicy(max_attempts=None, deadline=None)
    waits = [policy.wait_after(FAULT, attempt=attempt, elapsed=0, jitter=jitter) for jitter in (0.0, 0.25, 1.0)]
    assert waits == [0.0, most / 4, most]


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_retry_after_is_never_shortened(jitter: float) -> None:
    """The wait that a server asks for is kept in full, plus up to `initial_wait`."""
    wait = RetryPolicy().wait_after(throttled(7), attempt=3, elapsed=0, jitter=jitter)
    assert wait == 7 + 0.5 * jitter


@pytest.mark.parametrize("retry_after", [120.1, 86400.0, math.inf])
def test_a_wait_beyond_max_retry_after_gives_up(retry_after: float) -> None:
    """Beyond `max_retry_after` the answer is raised at once, neither shortened nor slept through."""
    assert RetryPolicy().wait_after(throttled(retry_after), attempt=1, elapsed=0, jitter=0) is None
    patient = RetryPolicy(max_retry_after=None, deadline=None)
    assert patient.wait_after(throttled(retry_after), attempt=1, elapsed=0, jitter=0) == retry_after
    assert RetryPolicy().wait_after(throttled(120), attempt=1, elapsed=0, jitter=0) == 120


def test_an_error_without_a_wait_is_never_beyond_max_retry_after() -> None:
    """However small `max_retry_after` is, it concerns only what the server asks for."""
    assert RetryPolicy(max_retry_after=0.1).wait_after(FAULT, attempt=1, elapsed=0, jitter=1) == 0.5


def test_attempts_are_limited() -> None:
    """After `max_attempts` there is no other; `None` is no limit."""
    policy = RetryPolicy(max_attempts=3)
    assert [policy.wait_after(FAULT, attempt=n, elapsed=0, jitter=0) for n in (1, 2, 3)] == [0, 0, None]
    assert RetryPolicy(max_attempts=None).wait_after(FAULT, attempt=10**6, elapsed=0, jitter=0) == 0


def test_errors_that_are_not_transient_are_final() -> None:
    """An error that is not transient is not retried."""
    assert RetryPolicy().wait_after(ServerError("no"), attempt=1, elapsed=0, jitter=0) is None


@given(
    elapsed=st.floats(0, 1000), jitter=st.floats(0, 1), attempt=st.integers(1, 20), asked=st.none() | st.floats(0.001, 500)
)
def test_no_wait_reaches_the_deadline(elapsed: float, jitter: float, attempt: int, asked: float | None) -> None:
    """A wait that would end at the deadline or after it is not begun."""
    error = FAULT if asked is None else throttled(asked)
    wait = RetryPolicy(max_attempts=None).wait_after(error, attempt=attempt, elapsed=elapsed, jitter=jitter)
    assert wait is None or (wait >= (asked or 0) and elapsed + wait < 300)


@pytest.mark.parametrize("name", ["max_attempts", "deadline", "initial_wait", "max_wait", "max_retry_after"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_invalid_limits_are_refused(name: str, value: Any, error: type[Exception]) -> None:
    """Zero and what is no number are refused with the name of the argument."""
    with pytest.raises(error, match=name):
        RetryPolicy(**{name: value})


def test_attempts_are_whole() -> None:
    """There is no half attempt."""
    with pytest.raises(TypeError, match="max_attempts: expected an int or None, got float"):
        RetryPolicy(max_attempts=1.5)  # type: ignore[arg-type]  # for callers without a type checker
