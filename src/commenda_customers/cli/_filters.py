"""One command-line option for each filter of the API, generated from `CustomerFilters`."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args, get_type_hints

import click

from ..client import AsyncCustomersAPI
from ..query import CustomerFilters

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(command: F) -> F:
    """Add an option for each of `CustomerFilters` to a command. The help texts come from `AsyncCustomersAPI.list`."""
    help_texts = dict(re.findall(r"^ +- `(\w+)`: (.+)$", inspect.getdoc(AsyncCustomersAPI.list) or "", re.MULTILINE))
    for name, hint in reversed(get_type_hints(CustomerFilters).items()):
        command = _option(name, get_args(hint), help_texts.get(name, ""))(command)

    return command


def _option(name: str, types: tuple[Any, ...], help_text: str) -> Callable[[F], F]:
    flag = f"--{name.replace('_', '-')}"
    if bool in types:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    if str in types:
        return click.option(flag, name, metavar="TEXT", help=help_text)

    help_text = f"{help_text} Separate values with commas, or repeat the option."
    return click.option(flag, name, multiple=True, callback=_split, metavar="TEXT,…", help=help_text)


def _split(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> Sequence[str] | None:
    return [item for value in values for item in value.split(",")] or None
