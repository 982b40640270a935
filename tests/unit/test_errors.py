"""The errors: their tree, their data, their survival of pickling."""

import inspect
import pickle

import pytest

import commenda_customers
from commenda_customers import CursorRejectedError, CustomersError, RateLimitError, errors

ALL = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, CustomersError)]


def draw(cls: type[CustomersError]) -> list[str]:
    """Draw the tree below a class as the module's docstring does."""
    children = sorted(cls.__subclasses__(), key=lambda child: child.__name__)
    lines = [cls.__name__]
    for child in children:
        is_last = child is children[-1]
        head, *rest = draw(child)
        lines.append(f"{'└── ' if is_last else '├── '}{head}")
        lines.extend(f"{'    ' if is_last else '│   '}{line}" for line in rest)
    return lines


def test_the_docstring_draws_the_tree() -> None:
    """The tree in the module's docstring is the tree of the classes."""
    drawn = [line.strip("\n")[4:] for line in errors.__doc__.splitlines() if line.startswith("    ")]  # type: ignore[union-attr]  # it has a docstring
    assert draw(CustomersError) == drawn


def test_all_errors_are_public() -> None:
    """Every class of the tree is exported."""
    assert {cls.__name__ for cls in ALL} == set(errors.__all__)
    assert set(errors.__all__) <= set(commenda_customers.__all__)


@pytest.mark.parametrize("cls", ALL)
def test_errors_survive_pickling(cls: type[CustomersError]) -> None:
    """An error that is pickled, as between processes, keeps its type, message, fields and notes."""
    error = cls(
        "what happened",
        corporation_id="corp_1",
        cursor="abc",
        attempts=3,
        status_code=429,
        request_id="req-1",
        retry_after=1.5,
        body_excerpt="slow down",
        transient=True,
    )
    error.add_note("a note")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.args, vars(copy)) == (cls, str(error), error.args, vars(error))
    assert copy.__notes__ == ["a note"]


def test_the_text_says_where_it_happened() -> None:
    """The text of an error names the corporation, the place in the list, the attempt and the request."""
    error = RateLimitError("slow down", corporation_id="corp_1", cursor="abc", attempts=2, request_id="r")
    assert str(error) == "slow down [corporation 'corp_1', cursor 'abc', after 2 attempts, request id 'r']"
    assert str(RateLimitError("slow down", corporation_id="corp_1")) == "slow down [corporation 'corp_1', first page]"
    assert str(RateLimitError("slow down")) == "slow down"


def test_the_age_of_a_refused_cursor_is_part_of_the_text() -> None:
    """The text of a refused cursor says how old it was, if that is known, also after pickling."""
    error = CursorRejectedError("refused", corporation_id="c", cursor="abc", attempts=1)
    assert str(error) == "refused [corporation 'c', cursor 'abc', after 1 attempt]"
    error.cursor_age = 312.04
    assert str(error) == "refused [corporation 'c', cursor 'abc' given 312.0 s ago, after 1 attempt]"
    assert pickle.loads(pickle.dumps(error)).cursor_age == 312.04
