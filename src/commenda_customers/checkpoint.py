"""What a list or a stream has yielded, as plain data. A program can save it, and another run can resume from it."""

from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ._checks import check_type

__all__ = ["Checkpoint", "Position"]

_VERSION = 1
_MOST_VERSIONS = 10**6
_KEY_BYTES = 9
"""If there are a million corporations, the probability that two of them have the same key is 1e-10."""
_KEY_LENGTH = 12
"""Characters of a key in base64."""


class _Record(BaseModel):
    # Validation errors must not show the ids of customers, because errors end up in logs.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Position(_Record):
    """
    Where the list of one corporation resumes.

    Attributes:
        corporation_id: The corporation.
        cursor: The cursor of the page at which the run stopped; `None` is the first page.
        yielded: The ids of the customers of that page that the run yielded. Insertions may move customers from an earlier
            page to this page, so it also has ids of earlier customers. A run that resumes fetches the page again and skips
            all these customers.
        invalid: The ids of the rows of that page that the run reported as invalid; of a row without an id, a digest. A run
            that resumes does not report them again.
        customers: How many customers of the corporation all runs have yielded.
        invalid_customers: How many rows of the corporation all runs have reported as invalid.
        limit: The `limit` of the request for that page; `None` before the first page.
        loop_cursor: A cursor of this page that leads back to an earlier page. The SDK does not follow it.
    """

    corporation_id: Annotated[str, Field(min_length=1)]
    cursor: Annotated[str, Field(min_length=1)] | None = None
    yielded: Annotated[tuple[str, ...], Field(repr=False)] = ()
    invalid: Annotated[tuple[str, ...], Field(repr=False)] = ()
    customers: Annotated[int, Field(ge=0)] = 0
    invalid_customers: Annotated[int, Field(ge=0)] = 0
    loop_cursor: str | None = None
    limit: int | None = None


class Checkpoint(_Record):
    """
    Exactly what a list or a stream has yielded. Pass it as `resume=`: the next run starts after the last yielded customer.

    Write it with `model_dump_json()`, and read it with `Checkpoint.model_validate_json(text)`. For each finished
    corporation it holds 12 characters. For each corporation that has started, it holds the ids of at most two pages,
    usually of less than one.

    Attributes:
        version: The version of this format.
        query: A fingerprint of the filters. Cursors are valid only for the same filters.
        positions: The corporations that have started and are not finished.
        finished: A key of 12 characters for each finished corporation.
        customers: How many customers of finished corporations all runs have yielded.
        invalid_customers: How many rows of finished corporations all runs have reported as invalid.
    """

    version: int = _VERSION
    query: str
    positions: tuple[Position, ...] = ()
    finished: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]{12})*$")] = ""
    customers: Annotated[int, Field(ge=0)] = 0
    invalid_customers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _check_version(cls, data: Any) -> Any:
        version = cast("dict[str, object]", data).get("version", _VERSION) if isinstance(data, dict) else _VERSION
        if version != _VERSION:
            # Show only a value that can be a version. Anything else may be long, or hold any data.
            shown = version if isinstance(version, int) and 0 <= version < _MOST_VERSIONS else "(not a version number)"
            raise ValueError(
                f"version {shown} of a checkpoint is unknown to this release; if a later release wrote it, upgrade"
            )

        return cast("object", data)

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        keys = [corporation_key(position.corporation_id) for position in self.positions]
        if len({*keys, *finished_keys(self)}) < len(keys) + len(self.finished) // _KEY_LENGTH:
            raise ValueError("a corporation has two positions, or is finished twice, or both started and finished")

        return self

    def without(self, corporation_id: str) -> "Checkpoint":
        """Return a checkpoint without *corporation_id*: its list starts from the beginning."""
        key = corporation_key(corporation_id)
        return Checkpoint(
            query=self.query,
            positions=tuple(position for position in self.positions if position.corporation_id != corporation_id),
            finished="".join(other for other in finished_keys(self) if other != key),
            customers=self.customers,
            invalid_customers=self.invalid_customers,
        )


def finished_keys(checkpoint: Checkpoint) -> list[str]:
    """Return the keys of the corporations that are finished."""
    text = checkpoint.finished
    return [text[at : at + _KEY_LENGTH] for at in range(0, len(text), _KEY_LENGTH)]


class Totals(NamedTuple):
    """What all runs have yielded. Only `corporations` leaves out those that have started and are not finished."""

    corporations: int
    customers: int
    invalid_customers: int


def totals(checkpoint: Checkpoint) -> Totals:
    """Return how much a checkpoint stands for."""
    positions = checkpoint.positions
    return Totals(
        corporations=len(finished_keys(checkpoint)),
        customers=checkpoint.customers + sum(each.customers for each in positions),
        invalid_customers=checkpoint.invalid_customers + sum(each.invalid_customers for each in positions),
    )


def corporation_key(corporation_id: str) -> str:
    """Return a short key for a corporation."""
    return urlsafe_b64encode(blake2b(corporation_id.encode(), digest_size=_KEY_BYTES).digest()).decode()


class CheckpointBuilder:
    """Keeps what was yielded of many corporations, and makes checkpoints of it."""

    def __init__(self, query: str, resume: Checkpoint | None) -> None:
        """Begin with what an earlier run has yielded."""
        self._query = query
        self._positions = {position.corporation_id: position for position in resume.positions} if resume else {}
        self._finished = set(finished_keys(resume)) if resume else set[str]()
        self._joined = resume.finished if resume else ""
        self._unjoined: list[str] = []
        self._customers = resume.customers if resume else 0  # of finished corporations
        self._invalid_customers = resume.invalid_customers if resume else 0

    def start(self, corporation_id: str) -> Position | None:
        """Return where a corporation begins or resumes; `None` if it is finished."""
        if corporation_key(corporation_id) in self._finished:
            return None

        return self._positions.setdefault(corporation_id, Position(corporation_id=corporation_id))

    def record(self, position: Position) -> None:
        """Set where a corporation resumes."""
        self._positions[position.corporation_id] = position

    def finish(self, end: Position) -> None:
        """Take note that a corporation is finished; *end* says how many customers it has."""
        self._positions.pop(end.corporation_id, None)
        key = corporation_key(end.corporation_id)
        if key not in self._finished:
            self._finished.add(key)
            self._unjoined.append(key)
            self._customers += end.customers
            self._invalid_customers += end.invalid_customers

    @property
    def customers(self) -> int:
        """How many customers were yielded in all."""
        return self._customers + sum(position.customers for position in self._positions.values())

    @property
    def invalid_customers(self) -> int:
        """How many rows were reported as invalid in all."""
        return self._invalid_customers + sum(position.invalid_customers for position in self._positions.values())

    @property
    def finished(self) -> int:
        """How many corporations are finished."""
        return len(self._finished)

    def has_started(self, corporation_id: str) -> bool:
        """Return whether a corporation is started and not finished."""
        return corporation_id in self._positions

    def position_of(self, corporation_id: str) -> Position:
        """Return where a corporation resumes that is started and not finished."""
        return self._positions[corporation_id]

    def checkpoint(self) -> Checkpoint:
        """Return a checkpoint of all corporations."""
        if self._unjoined:
            self._joined += "".join(self._unjoined)
            self._unjoined.clear()
        # Not validated again: the keys of a million finished corporations take long.
        return Checkpoint.model_construct(
            query=self._query,
            positions=tuple(self._positions.values()),
            finished=self._joined,
            customers=self._customers,
            invalid_customers=self._invalid_customers,
        )

    def checkpoint_of(self, corporation_id: str) -> Checkpoint:
        """Return a checkpoint of one corporation that is started and not finished."""
        return Checkpoint(query=self._query, positions=(self._positions[corporation_id],))


def check_resume(resume: Checkpoint, query: str) -> Checkpoint:
    """Refuse a checkpoint of another query. Another limit is allowed: `PageReader` compares the page."""
    check_type("resume", resume, Checkpoint)
    if resume.query != query:
        raise ValueError("resume: the checkpoint belongs to a list with other filters")

    return resume
