"""Rows that are not valid customers, over real HTTP."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from commenda_customers import (
    AsyncCustomersAPI,
    Checkpoint,
    Event,
    InvalidCustomerReceived,
    InvalidResponseError,
    RetryPolicy,
)
from commenda_customers.testing import Emulator
from raw_server import TOKEN, RawServer, listing, ok

pytestmark = pytest.mark.anyio


def customer(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"cus_{number}", "corporation_id": "corp_1", "name": f"Customer {number}", **fields}


INVALID: list[tuple[Any, str | None, str]] = [
    (customer(900, name=12345), "cus_900", "name: Input should be a valid string"),
    (customer(901, created_at="yesterday"), "cus_901", "created_at: Input should be a valid datetime"),
    (customer(902, shipping_address="Main Street 1"), "cus_902", "shipping_address: Input should be an object"),
    (customer(903, shipping_address={"city": 5}), "cus_903", "shipping_address.city: Input should be a valid string"),
    (customer(904, exemption_metadata={"exempted_states": [1]}), "cus_904", "exemption_metadata.exempted_states.0: "),
    ({"corporation_id": "corp_1", "name": "Nobody"}, None, "id: Field required"),
    ({"corporation_id": "corp_1", "id": None}, None, "id: Input should be a valid string"),
    ({"id": "cus_907"}, "cus_907", "corporation_id: Field required"),
    (None, None, "the row is not an object"),
    ([1, 2], None, "the row is not an object"),
    (12.5, None, "the row is not an object"),
    ("text", None, "the row is not an object"),
]


@asynccontextmanager
async def served(rows: list[Any], **options: Any) -> AsyncGenerator[AsyncCustomersAPI]:
    async with (
        Emulator({"corp_1": rows}) as server,
        AsyncCustomersAPI(server.token, base_url=server.base_url, **options) as api,
    ):
        yield api


async def test_every_valid_customer_comes_although_others_are_invalid() -> None:
    """The valid customers come in order, and each invalid row is reported with its index, its id and what is wrong."""
    rows = [row for number, (bad, _, _) in enumerate(INVALID) for row in (customer(number), bad)]
    events: list[Event] = []
    async with served(rows, hooks=[events.append]) as api:
        page = await api.list("corp_1", invalid_customers="collect")
        assert [each.id for each in page] == [f"cus_{number}" for number in range(len(INVALID))]
        assert [each.index for each in page.invalid_customers] == [1 + 2 * number for number in range(len(INVALID))]
        for each, (raw, name, words) in zip(page.invalid_customers, INVALID, strict=True):
            assert (each.raw, each.id) == (raw, name)
            assert any(error.startswith(words) for error in each.errors)
        reported = [event for event in events if isinstance(event, InvalidCustomerReceived)]
        assert [event.customer for event in reported] == list(page.invalid_customers)
        assert "Nobody" not in repr(reported)
        assert "12345" not in repr(reported)


async def test_a_page_is_refused_with_the_rows_that_are_wrong() -> None:
    """By default an invalid row is an error that names it, without a retry; from its checkpoint nothing is lost."""
    rows = [customer(number) for number in range(250)]
    rows[120], rows[230] = customer(120, name=12345), customer(230, email=["jane@example.com"])
    came: list[str] = []
    async with served(rows) as api:
        with pytest.raises(
            InvalidResponseError, match=r"not valid: row 20 \(id 'cus_120'\): name: Input should be"
        ) as caught:
            async for each in api.list("corp_1"):
                came.append(each.id)
        assert (caught.value.attempts, caught.value.corporation_id) == (1, "corp_1")
        assert "12345" not in str(caught.value)
        rest = api.list("corp_1", resume=caught.value.checkpoint, invalid_customers="collect")
        came += [each.id async for each in rest]
    assert came == [f"cus_{number}" for number in range(250) if number not in {120, 230}]


async def test_a_stream_counts_them_and_reports_each_once_over_all_runs() -> None:
    """A stream that stops at any customer and resumes yields each valid one once, and reports each invalid id once."""
    rows = [customer(number, **({"name": 5} if number % 3 == 0 else {})) for number in range(30)]
    came: list[str] = []
    reported: list[str | None] = []

    def note(event: Event) -> None:
        if isinstance(event, InvalidCustomerReceived):
            reported.append(event.customer.id)

    async with served(rows, hooks=[note]) as api:
        checkpoint: Checkpoint | None = None
        for _ in range(20):
            stream = api.stream(["corp_1"], limit=7, resume=checkpoint, invalid_customers="collect")
            async with stream:
                async for each in stream:
                    came.append(each.id)
                    break
            checkpoint = Checkpoint.model_validate_json(stream.checkpoint().model_dump_json())
    assert came == [f"cus_{number}" for number in range(30) if number % 3]
    assert reported == [f"cus_{number}" for number in range(0, 30, 3)]
    progress = stream.progress
    assert (progress.customers_before + progress.customers, progress.invalid_before + progress.invalid) == (20, 10)
    assert progress.corporations["corp_1"].shortfall == 0


@pytest.mark.parametrize("owner", ["corp_2", 5, None, ["corp_1"]])
async def test_a_row_of_another_corporation_is_never_collected(owner: Any) -> None:
    """If a row belongs to another corporation, or says so in no string, the response is not ours."""
    async with served([customer(1), customer(2, corporation_id=owner, name=5)], retry=RetryPolicy(initial_wait=0.01)) as api:
        with pytest.raises(InvalidResponseError, match="a customer of another corporation"):
            await api.list("corp_1", invalid_customers="collect")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"Caf\\ud83d"', "Caf\ufffd"),
        ('"\\udE00Caf"', "\ufffdCaf"),
        ('"\\ud83d\\ud83d\\ude00"', "\ufffd\U0001f600"),
        ('"\\\\ud83d"', "\\ud83d"),
        ('"\\\\\\ud83d"', "\\\ufffd"),
        ('"a\tb\x01c\nd"', "a\tb\x01c\nd"),
    ],
)
async def test_slightly_wrong_strings_are_read(raw_server: RawServer, written: str, read: str) -> None:
    """Half a character becomes U+FFFD, and raw control characters are read as they are."""
    row = json.dumps(customer(1)).replace('"Customer 1"', written)
    body = json.dumps(listing()).replace("[]", f"[{row}]").encode()
    raw_server.behave(raw_server.answers(ok(None, body=body)))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
        page = await api.list("corp_1")
    assert [each.name for each in page] == [read]


async def test_numbers_beyond_a_float_can_be_written_again() -> None:
    """A number that Python reads as infinity is written as null, in a valid row and in an invalid one."""
    async with served([customer(1, credit=1e999), customer(2, credit=1e999, name=5)]) as api:
        page = await api.list("corp_1", invalid_customers="collect")
    assert json.loads(page.customers[0].model_dump_json())["credit"] is None
    assert page.invalid_customers[0].raw["credit"] is None
