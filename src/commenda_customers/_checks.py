"""Checks of arguments that several modules share."""

import inspect
import math
import sys
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, TypeVar, cast

T = TypeVar("T")


def check_positive(name: str, value: object, *, or_zero: bool = False) -> None:
    """Refuse *value* if it is not a number above zero. With *or_zero*, zero is allowed too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if value > sys.float_info.max and value != math.inf:
        raise ValueError(f"{name}: is too large")
    if not (value > 0 or (or_zero and value == 0)):
        raise ValueError(f"{name}: must be {'at least' if or_zero else 'above'} 0, got {value}")


def check_seconds(name: str, value: float | None, *, or_zero: bool = False) -> float | None:
    """Return *value* if it is `None`, which means no limit, or a number above zero; with *or_zero*, zero is allowed too."""
    if value is not None:
        check_positive(name, value, or_zero=or_zero)

    return value


def check_type(name: str, value: T, expected: Any) -> T:
    """Return *value* if it is an instance of *expected*; refuse it otherwise."""
    if not isinstance(value, expected):
        wanted = getattr(expected, "__name__", expected)
        raise TypeError(f"{name}: expected {wanted}, got {type(value).__name__}")

    return value


def check_not_async(name: str, function: Callable[..., object]) -> None:
    """Refuse a coroutine function where the result is not awaited: its body would never run."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise TypeError(f"{name}: must be an ordinary function, not async; its result is not awaited")


def check_callables(name: str, functions: Iterable[T]) -> tuple[T, ...]:
    """Return *functions* if each can be called and is not async."""
    given = tuple(check_type(name, functions, Iterable))
    for index, function in enumerate(given):
        check_type(f"{name}[{index}]", function, Callable)
        check_not_async(f"{name}[{index}]", cast("Callable[..., object]", function))

    return given


def is_collect(name: str, choice: str) -> bool:
    """Return whether *choice* is `"collect"`; refuse it if it is not `"raise"` either."""
    if choice not in ("raise", "collect"):
        raise ValueError(f'{name}: must be "raise" or "collect", got {choice!r}')

    return choice == "collect"


class Unchanged(Enum):
    """The value of an option of `with_options` that is not given. `None` has a meaning of its own."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return self.value


UNCHANGED = Unchanged.UNCHANGED
