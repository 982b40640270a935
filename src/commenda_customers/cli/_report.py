"""The summary of an export: text for people, JSON for programs."""

import json
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import CustomersError
from ..export import Summary
from ..export._files import write_whole
from ._messages import count, say
from ._outputs import Place

_MOST_LINES = 20
"""At most this number of lines of one kind."""


def say_summary(summary: Summary, error: Exception | None, place: Place, *, only_problems: bool) -> None:
    """Write a summary to standard error. Leave out *error*, which ended the export early: the caller reports it."""
    if not only_problems and (summary.pages or summary.customers or error is None):
        for line in _numbers(summary, place):
            say(line)
    for line in _problems(summary, error, place):
        say(line)


def _numbers(summary: Summary, place: Place) -> Iterator[str]:
    before = f", {summary.customers_before:,} of them by earlier runs" if summary.customers_before else ""
    corporations = count(summary.corporations, "corporation")
    where = place.complete if summary.is_complete else place.unfinished
    yield f"{count(summary.customers, 'customer')} written to {where}{before}; {corporations} complete"
    waited = f"{summary.waited:,.1f} s of waiting for the rate limit (sum over all pages)"
    retries = count(summary.retries, "retry", "retries")
    yield f"{count(summary.pages, 'page')} in {summary.elapsed:,.1f} s, {retries}, {waited}"


def _problems(summary: Summary, error: Exception | None, place: Place) -> Iterator[str]:
    if summary.invalid_customers:
        where = f": see {place.invalid}" if place.invalid else ""
        yield f"not valid: {count(summary.invalid_customers, 'row')}{where}"
    if summary.restarted:
        yield f"read again from the beginning, because they could not be resumed: {_some_of(summary.restarted)}"
    if summary.dropped:
        yield f"discarded, because this run does not name them: {_some_of(summary.dropped)}"
    yield from _some_lines(
        f"missing: {name}: the server counted {count(missing, 'customer')} more than it sent"
        for name, missing in summary.shortfalls.items()
    )
    yield from _some_lines(
        f"failed: {name}: {failure.message}" for name, failure in summary.failures.items() if failure is not error
    )
    if summary.failures and error is None:
        yield f"not complete: {count(len(summary.failures), 'corporation')} failed; run the same command again"


def _some_of(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - _MOST_LINES:,} more" if len(names) > _MOST_LINES else ""
    return ", ".join(names[:_MOST_LINES]) + rest


def _some_lines(lines: Iterator[str]) -> Iterator[str]:
    yield from islice(lines, _MOST_LINES)
    if more := sum(1 for _ in lines):
        yield f"and {more:,} more"


def write_summary(path: Path, summary: Summary, error: Exception | None) -> None:
    """
    Write a summary as JSON, in one step. *error* is what ended the export early.

    Raises:
        OSError: The file cannot be written.
    """
    report: dict[str, Any] = {field.name: getattr(summary, field.name) for field in fields(summary)}
    report["failures"] = {name: _failure(failure) for name, failure in summary.failures.items()}
    report["error"] = None if error is None else {"type": type(error).__name__, "message": str(error)}
    data = json.dumps(report, indent=2).encode() + b"\n"
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # a pipe or a device cannot be replaced
    else:
        write_whole(path, data)


def _failure(error: CustomersError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": error.message,
        "status_code": error.status_code,
        "request_id": error.request_id,
        "attempts": error.attempts,
    }
