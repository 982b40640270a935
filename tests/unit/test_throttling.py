"""What a response says about rate limits: one value, for the error, the limiter and the retry policy."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers._wire import Throttling, parse_throttling

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    """Return the HTTP date of the moment that many seconds from now."""
    return format_datetime(datetime.fromtimestamp(NOW.timestamp() + seconds, UTC), usegmt=True)


def parse(status: int, headers: dict[str, str]) -> Throttling:
    return parse_throttling(status, headers, now=NOW.timestamp())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "Mon, 23 Nov 2026 14:00:07 +0200"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "2."}, 2),
        ({"retry-after": "1, 5"}, 5),
        ({"retry-after": "7, soon"}, 7),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9),
        ({"retry-after": "9999999"}, 9999999),
        ({"retry-after": "9" * 400}, float("inf")),
        ({"retry-after": at(30)}, 30),
        ({"retry-after": "Monday, 23-Nov-26 12:00:30 GMT"}, 30),
        ({"retry-after": "Mon Nov 23 12:00:30 2026"}, 30),
        ({"retry-after": f"{at(10)}, {at(70)}"}, 70),
        ({"retry-after": f"{at(70)}, 5"}, 70),
        ({"retry-after": at(-60), "date": at(-90)}, 30),
        ({"retry-after": at(30), "date": "junk"}, 30),
        ({"retry-after": "7", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "40"}, 7),
    ],
)
@pytest.mark.parametrize("status", [403, 429, 503])
def test_all_forms_of_retry_after_are_read(status: int, headers: dict[str, str], seconds: float) -> None:
    """Seconds, fractions, milliseconds, the three forms of an HTTP date, and dates by the server's own clock."""
    throttling = parse(status, headers)
    assert (throttling.is_throttled, throttling.retry_after) == (True, seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-5",
        "0",
        "0.0",
        "nan",
        "inf",
        "1e3",
        "0x10",
        "٣",
        "5 s",
        at(-30),
        "Mon, 99 Nov 2026 12:00:00 GMT",
        "Mon, 23 Nov 0 99:99:99",
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
def test_a_wait_that_makes_no_sense_is_none(name: str, value: str) -> None:
    """Junk, zero and the past are no wait; a 429 is a refusal all the same, a 503 an outage, a 403 a missing permission."""
    assert parse(429, {name: value}) == Throttling(is_throttled=True)
    assert parse(503, {name: value}) == Throttling()
    assert parse(403, {name: value}) == Throttling()


@pytest.mark.parametrize(
    ("headers", "remaining", "wait"),
    [
        ({}, None, None),
        ({"ratelimit": '"default";r=50;t=30'}, 50, None),
        ({"ratelimit": '"burst";r=0;t=7, "daily";r=900;t=36000'}, 0, 7),
        ({"ratelimit": '"burst";r=0;t=7,"hour";r=0;t=100'}, 0, 100),
        ({"ratelimit": '"burst";r=0;t=7,"hour";r=9;t=1'}, 0, 7),
        ({"ratelimit": '"burst";r=5;t=100, "hour";r=3;t=1'}, 3, None),
        ({"ratelimit": "limit=100, remaining=0, reset=5"}, 0, 5),
        ({"ratelimit": '"default";t=30'}, None, 30),
        ({"ratelimit": '"default";t=30, "burst";r=4;t=1'}, 4, None),
        ({"ratelimit": "nonsense, ;;;=r"}, None, None),
        ({"ratelimit-limit": "100", "ratelimit-remaining": "3", "ratelimit-reset": "9"}, 3, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9.5"}, 0, 9.5),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "40, 40"}, 0, 40),
        ({"x-ratelimit-remaining": "5, 0", "x-ratelimit-reset": "10, 40"}, 0, 40),
        ({"x-ratelimit-remaining": "5,0", "x-ratelimit-reset": "10,40"}, 0, 40),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}, 0, 1),
        ({"x-ratelimit-reset": "40"}, None, 40),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 40)}, 0, 40),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) - 40)}, 0, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "120"}, 0, 120),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "121"}, 0, None),
        ({"x-rate-limit-remaining": "1"}, 1, None),
        ({"ratelimit-reset": "3", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "40"}, 0, 40),
        ({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "soon"}, None, None),
    ],
    ids=repr,
)
def test_all_conventions_of_quotas_are_read(headers: dict[str, str], remaining: int | None, wait: float | None) -> None:
    """A 429 asks to wait for the reset of a quota that is used up: of several policies the tightest, at most 120 s."""
    assert parse(429, headers) == Throttling(is_throttled=True, retry_after=wait, remaining=remaining)
    assert parse(200, headers) == Throttling(remaining=remaining)


def test_an_outage_is_throttling_only_if_the_server_says_so() -> None:
    """A 503 with a quota that is used up is a refusal; one with a reset alone, which may be in every response, is not.

    A 403 is a refusal only with `Retry-After`: without a permission, the last request of a quota gets a 403 too.
    """
    exhausted = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "40"}
    assert parse(503, exhausted) == Throttling(is_throttled=True, retry_after=40, remaining=0)
    assert parse(503, {"x-ratelimit-reset": "40"}) == Throttling()
    assert parse(403, exhausted) == Throttling(remaining=0)
    assert parse(500, {**exhausted, "retry-after": "7"}) == Throttling(retry_after=7, remaining=0)


NUMBERS = st.one_of(
    st.integers(-10, 10**12).map(str),
    st.floats(0, 1e12, allow_nan=False).map(lambda value: f"{value:.3f}"),
    st.text(alphabet="0123456789.,- eE٣", max_size=30),
)
LISTS = st.lists(NUMBERS, min_size=1, max_size=3).map(", ".join)
POLICIES = st.lists(
    st.tuples(st.sampled_from(["r", "t", "remaining", "reset", "limit", "w"]), NUMBERS).map("=".join), max_size=4
).map(";".join)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "retry-after": st.one_of(LISTS, st.text(), st.integers(-100, 10**6).map(at)),
        "retry-after-ms": st.one_of(LISTS, st.text()),
        "date": st.one_of(st.text(), st.integers(-(10**6), 10**6).map(at)),
        "ratelimit": st.lists(POLICIES, max_size=4).map(", ".join),
        **{
            f"{prefix}{name}": st.one_of(LISTS, st.text())
            for prefix in ("ratelimit-", "x-ratelimit-", "x-rate-limit-")
            for name in ("remaining", "reset")
        },
    },
)


@given(st.sampled_from([200, 400, 429, 500, 503]), HEADERS)
def test_no_header_can_crash_the_parser(status: int, headers: dict[str, str]) -> None:
    """Whatever the headers say, waits are positive, and a reset never makes anyone wait for more than 120 s."""
    throttling = parse(status, headers)
    assert throttling.remaining is None or throttling.remaining >= 0
    assert throttling.retry_after is None or throttling.retry_after > 0
    if "retry-after" not in headers and "retry-after-ms" not in headers:
        assert (throttling.retry_after or 0) <= 120
    assert throttling.is_throttled >= (status == 429)
