"""`SECURITY.md`: each promise is held by tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
POLICY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

_PROMISE = re.compile(r"^- (.+?)(?=^- |^#|\n\n|\Z)", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")

PROMISES = [" ".join(found.split()) for found in _PROMISE.findall(POLICY.partition("## What is promised")[2])]


@cache
def names_in(name: str) -> frozenset[str]:
    """Return the tests of a file, as pytest names them."""
    found: set[str] = set()
    for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body:
        members = node.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test") else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name.startswith("test_"):
                found.add(f"{prefix}{member.name}")
    return frozenset(found)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise[:40])
def test_each_promise_names_tests_that_exist(promise: str) -> None:
    """A promise without a test is only a hope."""
    words, separator, names = promise.partition("Tests: ")
    named = _TEST.findall(names)
    assert words
    assert separator
    assert named
    # Nothing but names of tests: a name with a slip would not be found at all.
    assert _TEST.sub("", names).strip(" ,") == ""
    for path, test in named:
        assert test in names_in(path), f"{path} has no {test}"


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
