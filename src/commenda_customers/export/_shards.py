"""Parts of a list of corporations, for a job in several processes."""

from collections.abc import Iterable
from hashlib import blake2b

from .._checks import check_positive, check_type


def shard(corporation_ids: Iterable[str], number: int, *, of: int) -> list[str]:
    """
    Return one of several shards of some corporations: every corporation is in exactly one of them.

        await export(api, shard(corporation_ids, 2, of=8), JSONLinesFile("customers-2.jsonl"))

    A corporation is always in the same shard, on every machine and in every release, whatever the other ids are. It is the
    rule of the option `--shard 2/8` of the command line. Shards of many corporations have about the same size.

    Args:
        corporation_ids: The corporations.
        number: Which shard. The first one is 1.
        of: The number of shards.

    Returns:
        The ids that are in the shard, in their order.

    Raises:
        ValueError: *number* is not between 1 and *of*.
        TypeError: *number* or *of* is not an int.
    """
    for name, value in {"number": number, "of": of}.items():
        check_type(name, value, int)
        check_positive(name, value)
    if number > of:
        raise ValueError(f"number: must be at most {of}, got {number}")

    return [corporation_id for corporation_id in corporation_ids if _digest(corporation_id) % of == number - 1]


def _digest(corporation_id: str) -> int:
    """Return a number for an id that is the same in every process, unlike its `hash`."""
    return int.from_bytes(blake2b(corporation_id.encode(), digest_size=8).digest())
