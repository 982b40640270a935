"""The emulated API does what the API page says. It is asked directly, without the client."""

import gzip
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers.testing import Emulator, RateLimit, faults

pytestmark = pytest.mark.anyio

CORPORATIONS = {"corp_1": 250, "corp_2": 3, "corp_empty": 0}


class Asker:
    """Asks an emulator in memory."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(emulator),
            base_url=emulator.base_url,
            headers={"Authorization": f"Bearer {emulator.token}"},
        )

    async def get(self, **params: str) -> httpx.Response:
        return await self.client.get("/customers", params={"corporation_id": "corp_1", **params})

    async def data(self, **params: str) -> Any:
        response = await self.get(**params)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    async def walk(self, **params: str) -> list[dict[str, Any]]:
        customers: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            data = await self.data(**params, **cursor)
            customers += data["customers"]
            if not data["cursor"]:
                return customers
            cursor = {"cursor": data["cursor"]}


def ask(**options: Any) -> Asker:
    """Return an asker of a new emulator."""
    return Asker(Emulator(CORPORATIONS, **options))


def everyone(emulator: Emulator, **params: str) -> list[dict[str, Any]]:
    """Return all customers of `corp_1` with all that can be known of them."""
    return list(emulator.customers("corp_1", extend="shipping_address,exemption_metadata", **params))


class TestListing:
    """Pages, cursors, envelopes."""

    async def test_a_page_has_ten_customers_unless_asked(self) -> None:
        """The default limit is 10, and the total is that of the whole list."""
        data = await ask().data()
        assert (len(data["customers"]), data["total_customers"]) == (10, 250)
        assert data["cursor"]

    @pytest.mark.parametrize("limit", [1, 7, 100])
    async def test_a_walk_brings_everyone_once(self, limit: int) -> None:
        """Whatever the limit, following the cursors brings each customer once, in order."""
        asker = ask()
        if limit == 1:
            asker.emulator = Emulator({"corp_1": 5})
            asker = Asker(asker.emulator)
        assert await asker.walk(limit=str(limit)) == list(asker.emulator.customers("corp_1"))

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
    async def test_all_documented_forms_can_be_had(self, end: Any, expected: dict[str, Any], envelope: Any) -> None:
        """Both envelopes, and the three ways to end a list."""
        body = (await ask(end_of_list=end, envelope=envelope).get(corporation_id="corp_empty")).json()
        listing = {"customers": [], "total_customers": 0, **expected}
        assert body == (listing if envelope == "bare" else {"data": listing, "message": "Successfully fetched customers."})

    async def test_the_same_seed_makes_the_same_customers(self) -> None:
        """Customers follow from the seed alone; another seed makes others."""
        one, same, other = (everyone(Emulator(CORPORATIONS, seed=seed)) for seed in (1, 1, 2))
        assert one == same != other

    async def test_all_requests_are_recorded(self) -> None:
        """What was asked, in which order, and the status of the answer."""
        asker = ask()
        await asker.get(limit="5")
        await asker.get(limit="500")
        assert [(seen.number, seen.params, seen.status) for seen in asker.emulator.requests] == [
            (1, {"corporation_id": "corp_1", "limit": "5"}, 200),
            (2, {"corporation_id": "corp_1", "limit": "500"}, 400),
        ]


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
        assert await asker.walk(**params) == expected == everyone(asker.emulator, **{name: value})
        assert 0 < len(expected) < 250

    async def test_name_is_exact(self) -> None:
        """`name` is the whole name, `search_term` any part of it."""
        asker = ask()
        name = everyone(asker.emulator)[0]["name"]
        assert {customer["name"] for customer in await asker.walk(name=name)} == {name}
        assert await asker.walk(name=name[:-1]) == []
        assert await asker.walk(search_term=name[:-1]) != []

    async def test_platform_ids_filter(self) -> None:
        """`source_platform_ids` brings the customers with these ids."""
        asker = ask()
        wanted = [c["source_platform_id"] for c in everyone(asker.emulator) if "source_platform_id" in c][:2]
        found = await asker.walk(source_platform_ids=",".join(wanted))
        assert [customer["source_platform_id"] for customer in found] == wanted

    async def test_filters_add_up(self) -> None:
        """A customer must meet all filters; the total counts those that do."""
        asker = ask()
        data = await asker.data(has_exemption="true", source_platforms="SHOPIFY", limit="100")
        assert 0 < data["total_customers"] == len(data["customers"]) < len(await asker.walk(has_exemption="true"))

    @pytest.mark.parametrize("extend", ["", "shipping_address", "exemption_metadata", "shipping_address,exemption_metadata"])
    async def test_parts_come_when_asked_for(self, extend: str) -> None:
        """Address and metadata are there with `extend`, and only then."""
        data = await ask().data(**({"extend": extend} if extend else {}))
        for customer in data["customers"]:
            assert {"shipping_address", "exemption_metadata"} & set(customer) == set(filter(None, extend.split(",")))

    @pytest.mark.parametrize(("spelling", "key"), [("line", "line1"), ("address_line", "address_line_1")])
    async def test_both_spellings_of_an_address_can_be_had(self, spelling: Any, key: str) -> None:
        """Street lines under either documented key."""
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


class TestRateLimit:
    """A token bucket in virtual time."""

    @pytest.fixture
    def anyio_backend(self, virtual_backend: Any) -> Any:
        """Run on both backends with a clock that jumps to whatever is waited for."""
        return virtual_backend

    async def test_the_bucket_refills(self) -> None:
        """After the burst, requests pass at the rate and no faster."""
        asker = ask(rate_limit=RateLimit(rate=2, burst=3))
        assert [(await asker.get()).status_code for _ in range(4)] == [200, 200, 200, 429]
        await anyio.sleep(0.5)
        assert [(await asker.get()).status_code for _ in range(2)] == [200, 429]
        await anyio.sleep(60)
        assert [(await asker.get()).status_code for _ in range(4)] == [200, 200, 200, 429]

    @pytest.mark.parametrize(
        ("form", "headers"),
        [
            ("seconds", {"retry-after": "4"}),
            ("fraction", {"retry-after": "4.000"}),
            ("milliseconds", {"retry-after-ms": "4000"}),
            (None, {}),
        ],
    )
    async def test_the_wait_is_told_in_any_form(self, form: Any, headers: dict[str, str]) -> None:
        """The 429 says when there is room again, in the form that was chosen."""
        asker = ask(rate_limit=RateLimit(rate=0.25, retry_after=form))
        await asker.get()
        told = {name: value for name, value in (await asker.get()).headers.items() if name.startswith("retry")}
        assert told == headers

    async def test_the_wait_may_be_a_date(self) -> None:
        """As a date, it is the wall clock's, rounded up to whole seconds."""
        asker = ask(rate_limit=RateLimit(rate=0.01, retry_after="date"))
        await asker.get()
        moment = parsedate_to_datetime((await asker.get()).headers["Retry-After"])
        assert 99 <= (moment - datetime.now(UTC)).total_seconds() <= 101

    async def test_latency_delays_every_answer(self) -> None:
        """An answer takes at least the latency."""
        began = anyio.current_time()
        await ask(latency=3).get()
        assert anyio.current_time() - began == pytest.approx(3)


class TestFaults:
    """Scripted faults, in memory. On a socket they are tested with the client."""

    async def test_faults_strike_by_number(self) -> None:
        """`at` names requests, counted from 1; the others are served."""
        asker = ask(faults=[faults.Status(status=503, at=[2, 4], headers={"X-Y": "z"})])
        responses = [await asker.get() for _ in range(5)]
        assert [response.status_code for response in responses] == [200, 503, 200, 503, 200]
        assert responses[1].headers["X-Y"] == "z"

    async def test_chance_follows_from_the_seed(self) -> None:
        """Faults by probability strike about as often as they should, and the same requests for the same seed."""

        async def statuses(seed: int) -> list[int]:
            asker = ask(seed=seed, faults=[faults.Status(status=500, probability=0.3)])
            return [(await asker.get(limit="1")).status_code for _ in range(200)]

        one, same, other = await statuses(1), await statuses(1), await statuses(2)
        assert one == same != other
        assert 35 < one.count(500) < 85

    async def test_the_first_fault_wins(self) -> None:
        """At most one fault strikes a request: the first that was given."""
        asker = ask(faults=[faults.Status(status=500, at=[1]), faults.Status(status=502, probability=1)])
        assert [(await asker.get()).status_code for _ in range(2)] == [500, 502]

    @pytest.mark.parametrize(
        ("fault", "headers"),
        [
            (faults.TooManyRequests(at=[1]), {}),
            (faults.TooManyRequests(at=[1], retry_after="7"), {"retry-after": "7"}),
            (
                faults.TooManyRequests(at=[1], retry_after="soon", retry_after_ms="5"),
                {"retry-after": "soon", "retry-after-ms": "5"},
            ),
        ],
    )
    async def test_429_with_any_wait(self, fault: faults.Fault, headers: dict[str, str]) -> None:
        """The headers of a 429 are as they were scripted, junk included."""
        response = await ask(faults=[fault]).get()
        assert response.status_code == 429
        assert {name: value for name, value in response.headers.items() if name.startswith("retry")} == headers

    async def test_answers_that_make_no_sense(self) -> None:
        """HTML, and JSON in no envelope, both with status 200."""
        asker = ask(faults=[faults.NotJSON(at=[1]), faults.WrongEnvelope(at=[2])])
        html, wrong = await asker.get(), await asker.get()
        assert (html.status_code, html.headers["Content-Type"]) == (200, "text/html")
        assert (wrong.status_code, wrong.json()) == (200, {"result": "ok"})

    async def test_listings_that_lead_astray(self) -> None:
        """An empty page leads to the same place, a repeated cursor leads nowhere, a stranger is on the page."""
        asker = ask(faults=[faults.EmptyPage(at=[1, 2]), faults.RepeatedCursor(at=[4]), faults.ForeignCustomer(at=[5])])
        empty = await asker.data()
        again = await asker.data(cursor=empty["cursor"])
        assert empty["customers"] == again["customers"] == []
        assert empty["cursor"] != again["cursor"]
        first = await asker.data(cursor=again["cursor"])
        assert first["customers"] == list(asker.emulator.customers("corp_1"))[:10]
        repeated = await asker.data(cursor=first["cursor"])
        assert (len(repeated["customers"]), repeated["cursor"]) == (10, first["cursor"])
        foreign = (await asker.data())["customers"]
        assert {customer["corporation_id"] for customer in foreign} == {"corp_foreign", "corp_1"}

    async def test_a_first_page_has_no_cursor_to_repeat(self) -> None:
        """Where no cursor was asked for, `RepeatedCursor` changes nothing."""
        asker = ask(faults=[faults.RepeatedCursor(at=[1])])
        assert await asker.data() == await asker.data()

    async def test_a_connection_in_memory_breaks_by_an_exception(self) -> None:
        """A transport in memory has no connection to break; the fault is an exception there."""
        for fault in (faults.Drop(at=[1]), faults.CutBody(at=[1])):
            with pytest.raises(ConnectionAbortedError):
                await ask(faults=[fault]).get()

    async def test_faults_of_ones_own(self) -> None:
        """A fault may be written by the user: a subclass that changes what it wants."""

        class Compressed(faults.Fault):
            def change(self, reply: Any) -> Any:
                return type(reply)(200, {**reply.headers, "Content-Encoding": "gzip"}, gzip.compress(reply.body))

        response = await ask(faults=[Compressed(probability=1)]).get()
        assert response.headers["Content-Encoding"] == "gzip"
        assert len(json.loads(response.content)["data"]["customers"]) == 10


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(0, 1000))
def test_a_fault_does_not_shift_the_others(probabilities: Sequence[float], seed: int) -> None:
    """When a fault strikes does not depend on which others stand behind it in the list."""
    kinds = [faults.Status(status=500 + index, probability=chance) for index, chance in enumerate(probabilities)]
    alone, together = faults.FaultPlan(kinds[:1], seed), faults.FaultPlan(kinds, seed)
    for number in range(1, 30):
        first, struck = alone.strike(number), together.strike(number)
        assert (struck is kinds[0]) == (first is kinds[0])


async def test_it_serves_on_a_socket() -> None:
    """As a context manager it serves over TCP, on asyncio and on trio, and stops when the block ends."""
    async with Emulator(CORPORATIONS) as server, httpx.AsyncClient(timeout=5) as client:
        url, headers = f"{server.base_url}/customers?corporation_id=corp_2", {"Authorization": f"Bearer {server.token}"}
        response = await client.get(url, headers=headers)
        assert len(response.json()["data"]["customers"]) == 3
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url, headers=headers)


@pytest.mark.parametrize("waiting", [{"faults": [faults.Hang(at=[1])]}, {"latency": 60}], ids=["hang", "latency"])
async def test_it_stops_while_a_request_waits(waiting: dict[str, Any]) -> None:
    """A client that waits for an answer that does not come does not keep the server from stopping."""
    began = anyio.current_time()
    async with httpx.AsyncClient(timeout=30) as client, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(httpx.TransportError):
                await client.get(f"{server.base_url}/customers", headers={"Authorization": f"Bearer {server.token}"})

        async with Emulator(CORPORATIONS, **waiting) as server:
            tasks.start_soon(wait)
            with anyio.fail_after(5):
                while not server.requests:
                    await anyio.sleep(0.01)
    assert anyio.current_time() - began < 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Emulator({"corp_1": -1}), "must not be negative"),
        (lambda: Emulator(latency=-0.1), "must not be negative"),
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
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'commenda-customers\[testing\]'"):
        await Emulator().__aenter__()


async def test_it_serves_once_at_a_time() -> None:
    """An emulator that serves already says so, and goes on serving."""
    async with Emulator(CORPORATIONS) as server:
        with pytest.raises(RuntimeError, match="serving already"):
            async with server:
                pass
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{server.base_url}/customers")).status_code == 401


async def test_a_port_that_is_taken_is_an_error() -> None:
    """To serve where somebody else serves already fails at once."""
    async with Emulator(CORPORATIONS) as server:
        port = int(server.base_url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(OSError, match="in use"):
            await Emulator(CORPORATIONS, port=port).__aenter__()
