"""`SECURITY.md`: each guarantee names tests that exist."""

import ast
import re

import pytest

from named_tests import ROOT, check_names

POLICY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

_GUARANTEE = re.compile(r"^- (.+?)(?=^- |^#|\n\n|\Z)", re.MULTILINE | re.DOTALL)

GUARANTEES = [" ".join(found.split()) for found in _GUARANTEE.findall(POLICY.partition("## Guarantees")[2])]


@pytest.mark.parametrize("guarantee", GUARANTEES, ids=lambda guarantee: guarantee[:40])
def test_each_guarantee_names_tests_that_exist(guarantee: str) -> None:
    """The tests that a guarantee names exist."""
    words, separator, names = guarantee.partition("Tests: ")
    assert words
    assert separator
    check_names(names)


def test_there_are_guarantees() -> None:
    """The test finds every item of the list."""
    assert len(GUARANTEES) == POLICY.count("Tests: ") == len(re.findall(r"^- ", POLICY, re.MULTILINE))
    assert len(GUARANTEES) > 15


def test_users_find_it() -> None:
    """The README links to it, and it is part of the sdist."""
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert '"/SECURITY.md"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_build_is_checked_by_default() -> None:
    """`nox` without arguments builds twice and compares."""
    sessions = re.search(r"^nox\.options\.sessions = (.+)$", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert sessions is not None
    assert "build" in ast.literal_eval(sessions[1])
