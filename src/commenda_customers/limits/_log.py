"""The log through which limiters of several processes tell each other what they see: a protocol, and its data."""

from typing import NamedTuple, Protocol


class LogUnavailableError(Exception):
    """The log cannot be used now. It may work again later."""


class Entry(NamedTuple):
    """
    An entry of the log.

    Attributes:
        id: Its place in the log: milliseconds of the log's clock, a hyphen and a number, such as `1785000000000-0`. Later
            entries have greater ids.
        text: What its author wrote.
    """

    id: str
    text: str

    @property
    def time(self) -> float:
        """When it was appended, in seconds of the log's clock, which never goes backwards here."""
        return int(self.id.partition("-")[0]) / 1000


class Reading(NamedTuple):
    """What was read from the log at one moment: the time of its clock, in seconds since the epoch, and entries in order."""

    time: float
    entries: list[Entry]


class Snapshot(NamedTuple):
    """The result of all entries up to the one with the id *position*, as a text."""

    position: str
    text: str


class Log(Protocol):
    """
    An append-only log that several processes share. It keeps the last entries, a thousand at least, and one snapshot.

    All methods but `aclose` raise `LogUnavailableError` if the log does not answer within about a second, cannot be
    reached, or cannot be written to now.
    `wait_for_notice` may take longer.
    """

    async def open(self) -> None:
        """
        Connect.

        Raises:
            ValueError: The log will never work as it is configured: for example, the address or the password is wrong. The
                text is for the user.
        """
        ...

    async def exchange(self, text: str, since: str) -> Reading:
        """Append an entry. Return all entries from the id *since* on, including the one with this id if it still exists."""
        ...

    async def read(self) -> tuple[Snapshot | None, Reading]:
        """Return the snapshot and all entries from its position on. Without a snapshot, return all entries that exist."""
        ...

    async def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        ...

    async def clear(self) -> None:
        """Remove all entries and the snapshot."""
        ...

    async def notify(self) -> None:
        """Let the others know that they should read the log now."""
        ...

    async def wait_for_notice(self) -> None:
        """Return after a process has called `notify`, possibly this one. It may also return without a reason."""
        ...

    async def aclose(self) -> None:
        """Disconnect. It may be called in any state, and does not wait."""
        ...
