"""
What must hold for any input. `unit/test_fuzzing.py` checks it with stored inputs, and with those that Hypothesis makes.

An input is bytes, in the form of the files in `corpus/<target>/`.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from commenda_customers import APIConnectionError, Checkpoint, CustomerPage, CustomersError, InvalidResponseError
from commenda_customers._http.body import BodyReader
from commenda_customers._wire import (
    decode_in_steps,
    decode_page,
    foreign_corporation,
    parse_throttling,
    request_id,
    status_error,
)
from commenda_customers._wire.pieces import PIECE
from commenda_customers.checkpoint import CheckpointBuilder, totals

CORPUS = Path(__file__).parent / "corpus"
NOW = 1_790_000_000.0
LONGEST_MESSAGE = 2_000


def stored(target: str) -> list[Path]:
    """Return the stored inputs of a target."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())


def check_message(error: Exception) -> None:
    """An error is one short line that can be printed."""
    text = str(error)
    assert text.isprintable(), text
    assert 0 < len(text) <= LONGEST_MESSAGE, text


# --- pages ---------------------------------------------------------------------------------------------------------------


def check_page(body: bytes) -> None:
    """A body is a page or an `InvalidResponseError`. If rows are collected, none is lost."""
    strict, collected = _decode(body, collect=False), _decode(body, collect=True)
    if isinstance(strict, CustomerPage):
        assert collected == strict
        assert not strict.invalid_customers
    if isinstance(collected, CustomerPage):
        assert isinstance(strict, CustomerPage) != bool(collected.invalid_customers)
        _check_rows(body, collected)
    else:
        assert isinstance(strict, InvalidResponseError)
        assert strict.transient == collected.transient


def _decode(body: bytes, *, collect: bool) -> CustomerPage | InvalidResponseError:
    try:
        return decode_page(200, {}, body, corporation_id="corp_1", redact=bytes, collect_invalid=collect)
    except InvalidResponseError as error:
        check_message(error)
        assert error.__context__ is None, "it would hold the body"  # noqa: PT017 - most bodies raise no error
        return error


def check_steps(body: bytes, piece: int) -> None:
    """A body gives the same outcome, in whatever pieces it is read."""
    for collect in (False, True):
        at_once, in_steps = _decode(body, collect=collect), decode_by_steps(body, piece=piece, collect=collect)
        assert _all_of(in_steps) == _all_of(at_once)


def decode_by_steps(body: bytes, *, piece: int = PIECE, collect: bool = False) -> CustomerPage | InvalidResponseError:
    """Return what a body gives if it is read in steps."""
    steps = decode_in_steps(200, {}, body, corporation_id="corp_1", redact=bytes, collect_invalid=collect, piece=piece)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        page: CustomerPage = done.value
        return page
    except InvalidResponseError as error:
        assert error.__context__ is None, "it would hold the body"  # noqa: PT017 - most bodies raise no error
        return error


def _all_of(outcome: CustomerPage | InvalidResponseError) -> object:
    """Return all that a program can see. Two values that are not a number are the same here."""
    if isinstance(outcome, CustomerPage):
        return repr(outcome), [repr(row.raw) for row in outcome.invalid_customers]

    return str(outcome), outcome.transient, outcome.body_excerpt, outcome.status_code


def _check_rows(body: bytes, page: CustomerPage) -> None:
    assert page.cursor is None or page.cursor
    for customer in page:
        assert json.loads(customer.model_dump_json())["id"] == customer.id
    for row in page.invalid_customers:
        assert row.errors
        assert row.id is None or row.raw["id"] == row.id
        json.dumps(row.raw, allow_nan=False)
    indexes = [row.index for row in page.invalid_customers]
    assert indexes == sorted(set(indexes))
    assert len(page) + len(indexes) == _count_rows(body)
    with suppress(UnicodeEncodeError):  # of half a character
        assert f"{foreign_corporation(page)}".encode().decode().isprintable()


def _count_rows(body: bytes) -> int:
    """Return how many rows a lenient parser finds."""
    content = json.loads(body.removeprefix(b"\xef\xbb\xbf"), strict=False, parse_int=float)
    listing = content["data"] if isinstance(content.get("data"), dict) else content
    return len(listing["customers"] or ())


# --- headers -------------------------------------------------------------------------------------------------------------


def parse_headers(text: bytes) -> tuple[int, dict[str, str]]:
    """Parse a stored response: the status, and a header on each line."""
    status, *lines = text.decode("latin-1").split("\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return int(status) if status.isdecimal() and len(status) == 3 else 200, {n.strip().lower(): v for n, _, v in pairs}


def check_headers(text: bytes) -> None:
    """Any headers give a wait that can be waited, and an error that can be shown."""
    status, headers = parse_headers(text)
    throttling = parse_throttling(status, headers, now=NOW)
    assert throttling.retry_after is None or throttling.retry_after > 0
    assert throttling.remaining is None or throttling.remaining >= 0
    assert not throttling.is_throttled or status >= 400
    assert status != 429 or throttling.is_throttled
    name = request_id(headers)
    assert name is None or (name.isprintable() and len(name) <= 201)
    error = status_error(status, headers, text, cursor="c")
    check_message(error)
    assert (error.status_code, error.request_id) == (status, name)
    with suppress(CustomersError):
        BodyReader(headers.get("content-encoding", ""), limit=10)


# --- bodies --------------------------------------------------------------------------------------------------------------


def parse_body(text: bytes) -> tuple[str, int, list[bytes]]:
    """Parse a stored body: the `Content-Encoding` and the limit on the first line; on each other line a chunk, in hex."""
    first, *lines = text.decode("latin-1").split("\n")
    encoding, _, limit = first.rpartition(" ")
    return encoding, int(limit), [bytes.fromhex(line) for line in lines]


def format_body(encoding: str, limit: int, chunks: Iterable[bytes]) -> bytes:
    """Return a body as it is stored."""
    return "\n".join([f"{encoding} {limit}", *(chunk.hex() for chunk in chunks)]).encode()


def check_body(text: bytes) -> None:
    """
    It does not matter how the network splits a body. No more than the limit comes out.

    A body that is both damaged and too large may be refused for either reason: it depends on what is noticed first.
    """
    encoding, limit, chunks = parse_body(text)
    whole = b"".join(chunks)
    outcome = read_body(encoding, limit, [whole])
    for split in (chunks, [whole[at : at + 1] for at in range(len(whole))]):
        other = read_body(encoding, limit, split)
        assert other == outcome or {outcome, other} == {(APIConnectionError, True), (InvalidResponseError, False)}
    if isinstance(outcome, bytes):
        assert len(outcome) <= limit
        with suppress(Exception):  # what gzip itself cannot read may be padded or damaged
            assert outcome in {whole, gzip.decompress(whole)}


def read_body(encoding: str, limit: int, chunks: Iterable[bytes]) -> bytes | tuple[type, bool]:
    """Return the body, or what error it is and whether that may pass."""
    reader: BodyReader | None = None
    try:
        reader = BodyReader(encoding, limit=limit)
        for chunk in chunks:
            reader.feed(chunk)
        return reader.finish()
    except CustomersError as error:
        check_message(error)
        assert reader is None or len(reader.so_far) <= limit
        return type(error), error.transient


# --- checkpoints ---------------------------------------------------------------------------------------------------------


def check_checkpoint(text: bytes) -> None:
    """A text is a checkpoint that can be written and resumed from, or a `ValidationError` that shows no customer."""
    try:
        checkpoint = Checkpoint.model_validate_json(text)
    except ValidationError as error:
        assert "input_value" not in str(error)  # noqa: PT017
        assert all(len(problem["msg"]) < 300 for problem in error.errors(include_input=False))  # noqa: PT017
        return

    assert Checkpoint.model_validate_json(checkpoint.model_dump_json()) == checkpoint
    assert CheckpointBuilder(checkpoint.query, checkpoint).checkpoint() == checkpoint
    assert len(checkpoint.finished) == 12 * totals(checkpoint).corporations
    for position in checkpoint.positions:
        left = checkpoint.without(position.corporation_id)
        assert len(left.positions) == len(checkpoint.positions) - 1


TARGETS: Mapping[str, Callable[[bytes], Any]] = {
    "page": check_page,
    "headers": check_headers,
    "body": check_body,
    "checkpoint": check_checkpoint,
}
"""What is checked, by the folder of its inputs."""
