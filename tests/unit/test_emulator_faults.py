"""The faults and the rate limit of the emulated API."""

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers.testing import FaultPlan, RateLimit, faults
from emulated import ask

pytestmark = pytest.mark.anyio


class TestRateLimit:
    """A token bucket in virtual time."""

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
    async def test_the_wait_has_any_form(self, form: Any, headers: dict[str, str]) -> None:
        """The 429 has the wait in the form that was chosen."""
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

    async def test_the_limit_may_change(self) -> None:
        """A new limit holds from the next request on, with its whole burst; `None` removes it."""
        asker = ask(rate_limit=RateLimit(rate=1))
        assert [(await asker.get()).status_code for _ in range(2)] == [200, 429]
        asker.emulator.rate_limit = slower = RateLimit(rate=0.1, burst=2)
        assert asker.emulator.rate_limit == slower
        assert [(await asker.get()).status_code for _ in range(3)] == [200, 200, 429]
        await anyio.sleep(5)
        assert (await asker.get()).headers["Retry-After"] == "5"
        asker.emulator.rate_limit = None
        assert asker.emulator.rate_limit is None
        assert [(await asker.get()).status_code for _ in range(5)] == [200] * 5

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

    async def test_a_fault_alone_strikes_every_request(self) -> None:
        """Without `at` and `probability` a fault always strikes; an empty `at` or a probability of 0 never does."""
        never = [faults.Status(500, at=[]), faults.Status(500, probability=0)]
        asker = ask(faults=[*never, faults.Status(502)])
        assert [(await asker.get()).status_code for _ in range(3)] == [502] * 3

    async def test_faults_belong_to_a_corporation(self) -> None:
        """With `corporation_id`, only the requests of this corporation count and fail."""
        asker = ask(faults=[faults.Status(503, corporation_id="corp_2", at=[2])])
        names = ["corp_2", "corp_1", "corp_1", "corp_2", "corp_2"]
        statuses = [(await asker.get(corporation_id=name)).status_code for name in names]
        assert statuses == [200, 200, 200, 503, 200]

    async def test_faults_belong_to_pages(self) -> None:
        """With `pages`, every request for these pages fails, as often as it is sent, in each list."""
        asker = ask(faults=[faults.Status(503, pages=[1], corporation_id="corp_2"), faults.EmptyPage(pages=[2], at=[1])])
        assert (await asker.get(corporation_id="corp_2")).status_code == 503
        first = await asker.data()
        empty = await asker.data(cursor=first["cursor"])
        assert empty["customers"] == []
        second = await asker.data(cursor=empty["cursor"])
        assert len(second["customers"]) == 10
        asker.emulator.faults.add(faults.Status(500, pages=[3]))
        assert [(await asker.get(cursor=second["cursor"])).status_code for _ in range(2)] == [500, 500]
        assert (await asker.get(cursor="made-up")).status_code == 400

    async def test_faults_come_and_go(self) -> None:
        """A fault that is added counts requests from then on; one that is removed strikes no more."""
        asker = ask()
        statuses = [(await asker.get()).status_code]
        plan = asker.emulator.faults
        plan.add(faults.Status(500, at=[2]))
        statuses += [(await asker.get()).status_code for _ in range(3)]
        outage = faults.Status(503)
        plan.add(outage)
        statuses.append((await asker.get()).status_code)
        plan.remove(faults.Status(503))
        statuses.append((await asker.get()).status_code)
        assert statuses == [200, 200, 500, 200, 503, 200]
        assert (list(plan), len(plan)) == ([faults.Status(500, at=[2])], 1)
        with pytest.raises(ValueError, match="there is no Status"):
            plan.remove(outage)
        plan.clear()
        assert list(plan) == []

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

    async def test_responses_that_make_no_sense(self) -> None:
        """HTML, and JSON in no envelope, both with status 200."""
        asker = ask(faults=[faults.NotJSON(at=[1]), faults.WrongEnvelope(at=[2])])
        html, wrong = await asker.get(), await asker.get()
        assert (html.status_code, html.headers["Content-Type"]) == (200, "text/html")
        assert (wrong.status_code, wrong.json()) == (200, {"result": "ok"})

    async def test_misleading_lists(self) -> None:
        """An empty page leads to the same position, a repeated cursor repeats, a foreign customer is on the page."""
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

    async def test_users_may_write_faults(self) -> None:
        """A subclass of `Fault` changes the response as it likes."""

        class Compressed(faults.Fault):
            def change(self, reply: Any) -> Any:
                return type(reply)(200, {**reply.headers, "Content-Encoding": "gzip"}, gzip.compress(reply.body))

        response = await ask(faults=[Compressed(probability=1)]).get()
        assert response.headers["Content-Encoding"] == "gzip"
        assert len(json.loads(response.content)["data"]["customers"]) == 10


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(0, 1000))
def test_a_fault_does_not_shift_the_others(probabilities: Sequence[float], seed: int) -> None:
    """The requests that a fault strikes do not depend on the faults after it."""
    kinds = [faults.Status(status=500 + index, probability=chance) for index, chance in enumerate(probabilities)]
    alone, together = FaultPlan(kinds[:1], seed=seed), FaultPlan(kinds, seed=seed)
    for _ in range(30):
        first, struck = alone.strike("corp_1", 1), together.strike("corp_1", 1)
        assert (struck is kinds[0]) == (first is kinds[0])
