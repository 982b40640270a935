"""Looks for a token in everything that a program can see."""

import logging
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import commenda_customers
from commenda_customers._secret import Secret

PACKAGE = Path(commenda_customers.__file__).parent
TESTS = Path(__file__).parent


TOKEN = "s3cr3t-t0k3n-that-nobody-may-see"


async def provide() -> str:
    """Return the token, as a provider."""
    return TOKEN


def see(thing: Any, depth: int = 6, seen: set[int] | None = None) -> str:
    """Return all that repr, str and vars show of a thing and of the things in it."""
    seen = set() if seen is None else seen
    if depth == 0 or id(thing) in seen:
        return ""
    seen.add(id(thing))
    shown = [repr(thing), str(thing)]
    if isinstance(thing, Secret | type):
        return " ".join(shown)
    parts: list[Any] = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    if type(thing).__module__.startswith("commenda_customers"):
        slots = [name for base in type(thing).__mro__ for name in getattr(base, "__slots__", ())]
        parts += [getattr(thing, name) for name in slots if hasattr(thing, name)]
    if isinstance(thing, dict):
        parts += [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set):
        parts += thing
    return " ".join([*shown, *(see(part, depth - 1, seen) for part in parts)])


def frames(error: BaseException | None) -> str:
    """Return what the local variables of our own frames show, for an error and all that lies behind it."""
    ours = 0
    shown: list[str] = []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
                ours += 1
                shown += [see(value) for value in frame.f_locals.values()]
        shown.append("".join(traceback.format_exception(error)))
        error = error.__cause__ or error.__context__
    assert ours, "none of our frames was looked into"
    return " ".join(shown)


def reported(error: BaseException) -> str:
    """Return a report with the local variables of all frames, for an error and all its causes."""
    shown: list[str] = []
    behind: list[BaseException | None] = [error]
    seen: set[int] = set()
    while behind:
        link = behind.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        tb = link.__traceback__
        while tb is not None and Path(tb.tb_frame.f_code.co_filename).is_relative_to(TESTS):
            tb = tb.tb_next  # the frame of the test itself knows the token
        shown += traceback.TracebackException(type(link), link, tb, capture_locals=True).format(chain=False)
        shown += [see(link), repr(link.args), repr(vars(link)), repr(getattr(link, "__notes__", None))]
        behind += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
    return "".join(shown)


def logged(records: Iterable[logging.LogRecord]) -> str:
    """Return all that a handler, of whatever kind, can make of log records."""
    shown: list[str] = []
    for record in records:
        shown += [record.getMessage(), repr(record.args), see(vars(record)), logging.Formatter().format(record)]
    return " ".join(shown)
