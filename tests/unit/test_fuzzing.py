"""
Whatever comes from outside: pages, headers, bodies, checkpoints.

The stored inputs in `tests/corpus/` are those that broke something once, and one of each kind. Hypothesis makes others;
`nox -s fuzz` lets it do so for minutes.
"""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz_inputs import INPUTS
from fuzzing import CORPUS, TARGETS, stored

FILES = [path for target in TARGETS for path in stored(target)]

LONG = 100_000
"""Bytes."""
MOST_SECONDS = 5.0
"""Of CPU time for a long input. It takes some milliseconds; what is not linear would take minutes."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_stored_inputs(path: Path) -> None:
    """The rules hold for the inputs that once broke them, and for one of each kind."""
    TARGETS[path.parent.name](path.read_bytes())


def test_each_target_has_stored_inputs() -> None:
    """Every target has inputs, and every folder is a target."""
    assert {path.parent.name for path in FILES} == set(TARGETS) == {path.name for path in CORPUS.iterdir()}


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
def test_any_input(target: str, data: st.DataObject) -> None:
    """The rules of `fuzzing.py` hold for every input."""
    TARGETS[target](data.draw(INPUTS[target]))


@pytest.mark.parametrize("target", ["page", "headers", "checkpoint"])
@given(data=st.data())
def test_the_cost_is_linear(target: str, data: st.DataObject) -> None:
    """A piece of an input that is repeated ten thousand times takes linear time."""
    whole = data.draw(INPUTS[target])
    first, last = sorted([data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(whole)))])
    piece = whole[first : first + 1 + (last - first) % 50]
    long = whole[:first] + piece * (LONG // max(1, len(piece))) + whole[last:]
    began = time.thread_time()
    TARGETS[target](long)
    assert time.thread_time() - began < MOST_SECONDS
