"""How far a reading has come, as plain data: it outlives the program, and another run continues from it."""

from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ._checks import check_type

__all__ = ["Checkpoint", "Position"]

_VERSION = 1
_KEY_BYTES = 9
"""Two of a million corporations have the same key with a probability of one in ten thousand million."""
_KEY_LENGTH = 12
"""Characters of a key in base64."""


class _Record(BaseModel):
    # Customers' ids are in it, and errors end up in logs.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Position(_Record):
    """
    Where the reading of one corporation's list goes on.

    Attributes:
        corporation_id: The corporation.
        cursor: The cursor of the page in which the reading stopped; `None` is the first page.
        yielded: The ids of the customers of that page that were yielded, and of those that were yielded before and may have
            been pushed on to it. When it is fetched again they are left out.
        customers: How many customers of the corporation were yielded, those before the page included.
        loop_cursor: A cursor that leads back to before this page; it is not to be followed.
    """

    corporation_id: Annotated[str, Field(min_length=1)]
    cursor: Annotated[str, Field(min_length=1)] | None = None
    yielded: Annotated[tuple[str, ...], Field(repr=False)] = ()
    customers: Annotated[int, Field(ge=0)] = 0
    loop_cursor: str | None = None


class Checkpoint(_Record):
    """
    Exactly what was yielded by a list or a stream; pass it as `resume=` to continue with the next customer.

    Write it with `model_dump_json()`, and read it with `Checkpoint.model_validate_json(text)`. For each corporation that is
    finished it has 12 characters, and for each that is started two pages of ids at the most, but mostly less than one.

    Attributes:
        version: Of this form.
        query: What stands for the filters and the limit. Pages of another query have other cursors.
        positions: Of the corporations that are started and not finished.
        finished: A key of 12 characters for each corporation that was read to its end.
    """

    version: int = _VERSION
    query: str
    positions: tuple[Position, ...] = ()
    finished: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]{12})*$")] = ""

    @model_validator(mode="before")
    @classmethod
    def _check_version(cls, data: Any) -> Any:
        version = cast("dict[str, object]", data).get("version", _VERSION) if isinstance(data, dict) else _VERSION
        if version != _VERSION:
            raise ValueError(f"version {version!r} of a checkpoint is unknown here; if a later release wrote it, upgrade")

        return cast("object", data)

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        keys = [corporation_key(position.corporation_id) for position in self.positions]
        if len({*keys, *finished_keys(self)}) < len(keys) + len(self.finished) // _KEY_LENGTH:
            raise ValueError("a corporation has two positions, or is finished twice, or both")

        return self

    def without(self, corporation_id: str) -> "Checkpoint":
        """Return a checkpoint with which *corporation_id* is read from its beginning: for one that cannot go on."""
        key = corporation_key(corporation_id)
        return Checkpoint(
            query=self.query,
            positions=tuple(position for position in self.positions if position.corporation_id != corporation_id),
            finished="".join(other for other in finished_keys(self) if other != key),
        )


def finished_keys(checkpoint: Checkpoint) -> list[str]:
    """Return the keys of the corporations that are finished."""
    text = checkpoint.finished
    return [text[at : at + _KEY_LENGTH] for at in range(0, len(text), _KEY_LENGTH)]


def corporation_key(corporation_id: str) -> str:
    """Return what stands for a corporation among very many."""
    return urlsafe_b64encode(blake2b(corporation_id.encode(), digest_size=_KEY_BYTES).digest()).decode()


class CheckpointBuilder:
    """A checkpoint in the making: what was yielded of many corporations."""

    def __init__(self, query: str, resume: Checkpoint | None) -> None:
        """Go on from what an earlier run has yielded."""
        self._query = query
        self._positions = {position.corporation_id: position for position in resume.positions} if resume else {}
        self._finished = set(finished_keys(resume)) if resume else set[str]()
        self._joined = resume.finished if resume else ""
        self._unjoined: list[str] = []

    def start(self, corporation_id: str) -> Position | None:
        """Return where to go on with a corporation; `None` if it is finished."""
        if corporation_key(corporation_id) in self._finished:
            return None

        return self._positions.setdefault(corporation_id, Position(corporation_id=corporation_id))

    def record(self, corporation_id: str, position: Position | None) -> None:
        """Take note of where to go on with a corporation; `None`: it is finished."""
        if position is not None:
            self._positions[corporation_id] = position
            return

        self._positions.pop(corporation_id, None)
        key = corporation_key(corporation_id)
        if key not in self._finished:
            self._finished.add(key)
            self._unjoined.append(key)

    def has_started(self, corporation_id: str) -> bool:
        """Return whether a corporation was started and is not finished."""
        return corporation_id in self._positions

    def position_of(self, corporation_id: str) -> Position:
        """Return where to go on with a corporation that was started and is not finished."""
        return self._positions[corporation_id]

    def checkpoint(self) -> Checkpoint:
        """Return it as it is now."""
        if self._unjoined:
            self._joined += "".join(self._unjoined)
            self._unjoined.clear()
        # Not validated again: what was finished may be very much.
        return Checkpoint.model_construct(
            query=self._query, positions=tuple(self._positions.values()), finished=self._joined
        )

    def checkpoint_of(self, corporation_id: str) -> Checkpoint:
        """Return what there is of one corporation that is not finished."""
        return Checkpoint(query=self._query, positions=(self._positions[corporation_id],))


def check_resume(resume: Checkpoint, query: str) -> Checkpoint:
    """Refuse a checkpoint of another query."""
    check_type("resume", resume, Checkpoint)
    if resume.query != query:
        raise ValueError("resume: the checkpoint belongs to a list with other filters or another limit")

    return resume
