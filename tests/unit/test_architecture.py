"""The house rules that no linter knows."""

import ast
from pathlib import Path

import pytest

import commenda_customers

SOURCES = sorted(Path(commenda_customers.__file__).parent.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.parent.rglob("test_*.py"))


def test_what_is_exported_exists_once() -> None:
    """`__all__` names each public thing once, and every name can be imported."""
    names = commenda_customers.__all__
    assert len(names) == len(set(names))
    assert all(hasattr(commenda_customers, name) for name in names)


def test_what_modules_declare_public_is_exported() -> None:
    """What a module of the package lists in its `__all__` is there at the root of the package."""
    for source in SOURCES:
        if source.parent != Path(commenda_customers.__file__).parent or source.name == "__init__.py":
            continue
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                declared = set(ast.literal_eval(node.value))
                assert declared <= set(commenda_customers.__all__), source.name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_files_and_functions_stay_small(source: Path) -> None:
    """A file has at most 320 lines, a function at most 40 without its docstring and its parameters."""
    text = source.read_text(encoding="utf-8")
    assert text.count("\n") <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = node.end_lineno - body[0].lineno + 1 if body and node.end_lineno else 0
            assert length <= 40, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_every_test_says_what_it_promises(path: Path) -> None:
    """Each test has a docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), node.name
