"""Looks for a token in everything that a program can see."""

import traceback
from pathlib import Path
from typing import Any

import commenda_customers
from commenda_customers._secret import Secret

PACKAGE = Path(commenda_customers.__file__).parent


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
