"""`SECURITY.md`: each promise is held by tests that exist."""

import ast
import re

import pytest

from named_tests import ROOT, check_names

POLICY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

_PROMISE = re.compile(r"^- (.+?)(?=^- |^#|\n\n|\Z)", re.MULTILINE | re.DOTALL)

PROMISES = [" ".join(found.split()) for found in _PROMISE.findall(POLICY.partition("## What is promised")[2])]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise[:40])
def test_each_promise_names_tests_that_exist(promise: str) -> None:
    """A promise without a test is only a hope."""
    words, separator, names = promise.partition("Tests: ")
    assert words
    assert separator
    check_names(names)


def test_there_are_promises() -> None:
    """The list is found, all of it."""
    assert len(PROMISES) == POLICY.count("Tests: ") == len(re.findall(r"^- ", POLICY, re.MULTILINE))
    assert len(PROMISES) > 15


def test_users_find_it() -> None:
    """The README leads to it, and it is part of the sdist."""
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert '"/SECURITY.md"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_build_is_checked_by_default() -> None:
    """`nox` without arguments builds twice and compares."""
    sessions = re.search(r"^nox\.options\.sessions = (.+)$", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert sessions is not None
    assert "build" in ast.literal_eval(sessions[1])
