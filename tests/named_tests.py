"""Pages that name their tests, such as `tests/unit/test_body.py::test_the_limit_is_exact`."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

_TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


def check_names(text: str) -> None:
    """Check that a text names tests that exist, at least one, and has no other words: a name with a slip would be one."""
    named = _TEST.findall(text)
    assert named
    assert _TEST.sub("", text).strip(" ,") == ""
    for path, test in named:
        assert test in _names_in(path), f"{path} has no {test}"


@cache
def _names_in(name: str) -> frozenset[str]:
    """Return the tests of a file, as pytest names them."""
    found: set[str] = set()
    for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body:
        members = node.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test") else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name.startswith("test_"):
                found.add(f"{prefix}{member.name}")
    return frozenset(found)
