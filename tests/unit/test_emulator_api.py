"""The emulated API answers as the API page says. It is asked directly, without the client."""

import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from commenda_customers.testing import Emulator, RateLimit, faults
from emulated import CORPORATIONS, Asker, ask, everyone

pytestmark = pytest.mark.anyio


async def no_message() -> Any:
    raise AssertionError("the emulator reads no request body")


async def ignore(message: Any) -> None:
    """Receive a part of a response."""


class TestListing:
    """Pages, cursors, envelopes."""

    async def test_a_page_has_ten_customers_unless_asked(self) -> None:
        """The default limit is 10, and the total is that of the whole list."""
        data = await ask().data()
        assert (len(data["customers"]), data["total_customers"]) == (10, 250)
        assert data["cursor"]

    @pytest.mark.parametrize("limit", [1, 7, 100])
    async def test_following_cursors_yields_everyone_once(self, limit: int) -> None:
        """Each customer comes once and in order when the cursors are followed, whatever the limit."""
        asker = ask()
        if limit == 1:
            asker.emulator = Emulator({"corp_1": 5})
            asker = Asker(asker.emulator)
        assert await asker.read_all(limit=str(limit)) == list(asker.emulator.customers("corp_1"))

    async def test_an_empty_list_is_one_page(self) -> None:
        """A corporation without customers has one empty page."""
        data = await ask().data(corporation_id="corp_empty")
        assert data == {"customers": [], "total_customers": 0, "cursor": None}

    async def test_cursors_are_opaque_and_belong_to_their_query(self) -> None:
        """A cursor of another corporation or other filters, or made up, is a bad request."""
        asker = ask()
        cursor = (await asker.data())["cursor"]
        assert (await asker.get(cursor=cursor, limit="3")).status_code == 200
        for wrong in (
            {"corporation_id": "corp_2"},
            {"search_term": "a"},
            {"cursor": "made-up"},
            {"cursor": "é"},
            {"cursor": ""},
        ):
            response = await asker.get(**{"cursor": cursor, **wrong})
            assert (response.status_code, "cursor" in response.json()["message"]) == (400, True)

    @pytest.mark.parametrize(("end", "expected"), [("null", {"cursor": None}), ("absent", {}), ("empty", {"cursor": ""})])
    @pytest.mark.parametrize("envelope", ["bare", "wrapped"])
    async def test_all_documented_forms_can_be_chosen(self, end: Any, expected: dict[str, Any], envelope: Any) -> None:
        """Both envelopes and the three ways to end a list can be chosen."""
        body = (await ask(end_of_list=end, envelope=envelope).get(corporation_id="corp_empty")).json()
        listing = {"customers": [], "total_customers": 0, **expected}
        assert body == (listing if envelope == "bare" else {"data": listing, "message": "Successfully fetched customers."})

    async def test_the_same_seed_makes_the_same_customers(self) -> None:
        """Customers follow from the seed alone; another seed makes others."""
        one, same, other = (everyone(Emulator(CORPORATIONS, seed=seed)) for seed in (1, 1, 2))
        assert one == same != other

    async def test_all_requests_are_recorded(self) -> None:
        """Each request is recorded with its number, its parameters and the status of its response."""
        asker = ask()
        await asker.get(limit="5")
        await asker.get(limit="500")
        assert [(seen.number, seen.params, seen.status) for seen in asker.emulator.requests] == [
            (1, {"corporation_id": "corp_1", "limit": "5"}, 200),
            (2, {"corporation_id": "corp_1", "limit": "500"}, 400),
        ]

    async def test_the_oldest_requests_are_forgotten(self) -> None:
        """However long it serves, it keeps 10,000 requests, and the number of the last one counts them all."""
        asker = ask()
        scope = {"method": "GET", "path": "/api/v1/customers", "query_string": b"", "headers": []}
        for _ in range(10_005):
            await asker.emulator(dict(scope), no_message, ignore)
        seen = asker.emulator.requests
        assert (len(seen), seen[0].number, seen[-1].number) == (10_000, 6, 10_005)
        seen.clear()
        assert len(asker.emulator.requests) == 10_000


class TestParameters:
    """The thirteen parameters of the page."""

    @pytest.mark.parametrize(
        ("name", "value", "holds"),
        [
            ("search_term", "gMBh", lambda c: "gmbh" in c["name"].lower()),
            ("source_platforms", "SHOPIFY,XERO", lambda c: c.get("source_platform") in {"SHOPIFY", "XERO"}),
            ("certificate_types", "BLANKET", lambda c: "BLANKET" in c["exemption_metadata"]["certificate_types"]),
            ("exemption_jurisdiction", "US_CA", lambda c: "US_CA" in c["exemption_metadata"]["exempted_states"]),
            ("expiration_status", "ACTIVE", lambda c: c["exemption_metadata"]["non_expired_exemptions_count"] > 0),
            ("expiration_status", "EXPIRED", lambda c: c["exemption_metadata"]["expired_exemptions_count"] > 0),
            ("exemption_status", "ACTIVE", lambda c: c["exemption_metadata"]["active_exemptions_count"] > 0),
            ("exemption_status", "INACTIVE", lambda c: c["exemption_metadata"]["inactive_exemptions_count"] > 0),
            ("has_exemption", "true", lambda c: c["exemption_metadata"]["total_certificates"] > 0),
            ("has_exemption", "false", lambda c: c["exemption_metadata"]["total_certificates"] == 0),
        ],
    )
    async def test_filters_filter(self, name: str, value: str, holds: Any) -> None:
        """A filter brings exactly the customers for which it holds: some of them, and not all."""
        asker = ask()
        expected = [customer for customer in everyone(asker.emulator) if holds(customer)]
        params = {name: value, "extend": "shipping_address,exemption_metadata", "limit": "100"}
        assert await asker.read_all(**params) == expected == everyone(asker.emulator, **{name: value})
        assert 0 < len(expected) < 250

    async def test_name_is_exact(self) -> None:
        """`name` is the whole name, `search_term` any part of it."""
        asker = ask()
        name = everyone(asker.emulator)[0]["name"]
        assert {customer["name"] for customer in await asker.read_all(name=name)} == {name}
        assert await asker.read_all(name=name[:-1]) == []
        assert await asker.read_all(search_term=name[:-1]) != []

    async def test_platform_ids_filter(self) -> None:
        """`source_platform_ids` brings the customers with these ids."""
        asker = ask()
        wanted = [c["source_platform_id"] for c in everyone(asker.emulator) if "source_platform_id" in c][:2]
        found = await asker.read_all(source_platform_ids=",".join(wanted))
        assert [customer["source_platform_id"] for customer in found] == wanted

    async def test_filters_add_up(self) -> None:
        """A customer must meet all filters; the total counts those that do."""
        asker = ask()
        data = await asker.data(has_exemption="true", source_platforms="SHOPIFY", limit="100")
        assert 0 < data["total_customers"] == len(data["customers"]) < len(await asker.read_all(has_exemption="true"))

    @pytest.mark.parametrize("extend", ["", "shipping_address", "exemption_metadata", "shipping_address,exemption_metadata"])
    async def test_parts_come_when_asked_for(self, extend: str) -> None:
        """Address and metadata are there with `extend`, and only then."""
        data = await ask().data(**({"extend": extend} if extend else {}))
        for customer in data["customers"]:
            assert {"shipping_address", "exemption_metadata"} & set(customer) == set(filter(None, extend.split(",")))

    @pytest.mark.parametrize(("spelling", "key"), [("line", "line1"), ("address_line", "address_line_1")])
    async def test_both_spellings_of_an_address_can_be_chosen(self, spelling: Any, key: str) -> None:
        """Both documented spellings of street lines can be chosen."""
        data = await ask(address_spelling=spelling).data(extend="shipping_address")
        assert all(key in customer["shipping_address"] for customer in data["customers"])

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"limit": "0"}, "limit must be between 1 and 100"),
            ({"limit": "101"}, "limit must be between 1 and 100"),
            ({"limit": "ten"}, "limit must be between 1 and 100"),
            ({"limit": "1" * 5000}, "limit must be between 1 and 100"),
            ({"limit": "\u0661"}, "limit must be between 1 and 100"),
            ({"limit": ""}, "limit must be between 1 and 100"),
            ({"corporation_id": ""}, "corporation_id is required"),
            ({"extend": "address"}, "extend must be of"),
            ({"has_exemption": "True"}, "has_exemption must be one of"),
            ({"expiration_status": "OLD"}, "expiration_status must be one of"),
            ({"exemption_status": "OLD"}, "exemption_status must be one of"),
            ({"page": "2"}, "unknown parameter: page"),
        ],
    )
    async def test_bad_parameters_are_refused(self, params: dict[str, str], words: str) -> None:
        """What the page does not allow is a 400 with a message."""
        response = await ask().get(**params)
        assert (response.status_code, words in response.json()["message"]) == (400, True)

    async def test_repeated_parameters_are_refused(self) -> None:
        """Several values are separated by commas; a repeated key is a bad request."""
        response = await ask().client.get("/customers?corporation_id=corp_1&extend=a&extend=b")
        assert response.status_code == 400

    async def test_only_what_exists_is_served(self) -> None:
        """An unknown corporation, another path, another method: 404."""
        asker = ask()
        assert (await asker.get(corporation_id="corp_9")).status_code == 404
        assert (await asker.client.get("/corporations")).status_code == 404
        assert (await asker.client.post("/customers")).status_code == 404

    @pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "emulator-token"}])
    async def test_the_token_is_checked(self, header: dict[str, str]) -> None:
        """Without the right Bearer token the answer is 401, and the token may change while it serves."""
        asker = ask()
        asker.client.headers = httpx.Headers(header)
        assert (await asker.get()).status_code == 401
        asker.client.headers["Authorization"] = "Bearer changed"
        asker.emulator.token = "changed"
        assert (await asker.get()).status_code == 200


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Emulator({"corp_1": -1}), r"corporations\['corp_1'\]: must not be negative"),
        (lambda: Emulator(latency=-0.1), "latency: must not be negative"),
        (lambda: Emulator(envelope="box"), "envelope: must be one of wrapped, bare, got 'box'"),
        (lambda: Emulator(address_spelling="Line"), "address_spelling: must be one of line, address_line"),
        (lambda: Emulator(end_of_list="nil"), "end_of_list: must be one of null, absent, empty"),
        (lambda: RateLimit(rate=0), "rate: must be above 0"),
        (lambda: RateLimit(rate=1, burst=0), "burst: must be 1 or more"),
        (lambda: faults.Drop(probability=1.5), "probability: must be from 0 to 1"),
    ],
)
def test_what_cannot_be_emulated_is_refused(make: Callable[[], object], words: str) -> None:
    """An argument that makes no sense is refused by name when it is given, not when a request comes."""
    with pytest.raises(ValueError, match=words):
        make()


async def test_without_its_extra_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving needs uvicorn; where there is none, the error says how to get it."""
    monkeypatch.delitem(sys.modules, "commenda_customers.testing._server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '/path/to/clone\[testing\]'"):
        await Emulator().__aenter__()
