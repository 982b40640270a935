"""What each status means: which error, whether another attempt makes sense, and what the message says."""

from http import HTTPStatus

import httpx
import pytest

from commenda_customers import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    Event,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    Throttled,
)
from commenda_customers._wire import status_error
from commenda_customers._wire.throttling import Throttling
from script import GOOD, Script, status

NAMED: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}
TRANSIENT_4XX = {408, 425, 429}
FINAL_5XX = {501, 505, 511}


def error_of(code: int, **headers: str) -> APIStatusError:
    """Return the error for a status, with a body and a request id."""
    return status_error(code, {"x-request-id": "req-1", **headers}, b'{"message": "why"}')


@pytest.mark.parametrize("code", [101, *range(300, 1000)])
def test_each_status_has_its_error(code: int) -> None:
    """
    A status becomes its error, which is transient if another attempt makes sense.

    What is not valid, from 600 on, counts as a 5xx (RFC 9110, section 15).
    """
    error = error_of(code)
    assert type(error) is (ServerError if code >= 500 else NAMED.get(code, APIStatusError))
    assert error.transient is (code in TRANSIENT_4XX if code < 500 else code not in FINAL_5XX)
    assert (error.status_code, error.request_id) == (code, "req-1")
    assert error.message.startswith(f"the server answered {code}")
    assert 'why"}' in str(error)


@pytest.mark.parametrize("code", list(HTTPStatus))
def test_the_statuses_of_the_rfcs_have_their_phrase(code: HTTPStatus) -> None:
    """The message has the reason phrase of the RFC, not that of the server."""
    assert f"the server answered {code.value} {code.phrase}" in str(error_of(code))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (509, "Bandwidth Limit Exceeded"),
        (520, "the edge got no usable response from the server behind it"),
        (521, "refuses connections"),
        (522, "could not connect to the server behind it in time"),
        (523, "cannot reach"),
        (524, "did not respond in time"),
        (525, "TLS handshake"),
        (526, "certificate"),
        (527, "lost its connection"),
        (529, "overloaded"),
        (530, "cannot find"),
        (598, "read timeout"),
        (599, "connect timeout"),
    ],
)
def test_the_statuses_of_edges_are_explained(code: int, words: str) -> None:
    """The message explains a status that edges send and no RFC defines."""
    assert words in str(error_of(code))


def test_a_status_that_nobody_knows_is_a_number() -> None:
    """Without a known meaning, the message has the number alone."""
    assert status_error(599 - 56, {}, b"").message == "the server answered 543"


@pytest.mark.parametrize(
    ("code", "cursor", "message"),
    [
        (302, None, "the server answered 302 Found to 'nowhere'; redirects are not followed, check base_url: why"),
        (404, "abc", "the server answered 404 Not Found; check the corporation's id and base_url: why"),
        (
            407,
            None,
            ("the server answered 407 Proxy Authentication Required; a proxy asks for a password, not the API: why"),
        ),
        (410, "abc", "the server answered 410 Gone; most likely it no longer accepts the cursor: why"),
        (522, None, "the server answered 522 (the edge could not connect to the server behind it in time): why"),
    ],
)
def test_a_message_says_what_happened_and_what_may_help(code: int, cursor: str | None, message: str) -> None:
    """A message is one sentence: the status, what it means here, what to check, and the beginning of the body."""
    assert status_error(code, {}, b"why", cursor=cursor).message == message


def test_a_body_without_text_is_no_excerpt() -> None:
    """Nothing is shown of a body of white space, and the message ends with the status."""
    error = status_error(418, {}, b" \n")
    assert (error.message, error.body_excerpt) == (
        f"the server answered {HTTPStatus(418).value} {HTTPStatus(418).phrase}",
        None,
    )


@pytest.mark.parametrize(
    ("code", "cls"), [(400, RateLimitError), (499, RateLimitError), (500, ServerError), (501, ServerError)]
)
def test_a_limit_that_is_told_with_another_status(code: int, cls: type[APIStatusError]) -> None:
    """A 4xx with a limit is a `RateLimitError`, a 5xx stays a `ServerError`. Both are transient."""
    error = status_error(code, {}, b"", throttling=Throttling(is_throttled=True, retry_after=5.0), cursor="abc")
    assert (type(error), error.retry_after, error.transient) == (cls, 5.0, True)


def test_an_excerpt_is_as_long_as_it_says() -> None:
    """Up to 200 characters of a body are shown as they are; of a longer one, so many and a mark."""
    for body, excerpt in ((b"x" * 200, "x" * 200), (b"x" * 201, "x" * 200 + "…"), ("é".encode() * 900, "é" * 200 + "…")):
        assert status_error(500, {}, body).body_excerpt == excerpt
    assert status_error(500, {}, b"a\xff\x00 b").body_excerpt == "a\ufffd b"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_says_where_it_leads(code: int) -> None:
    """A redirect is not followed; the error says so and shows the place."""
    text = str(error_of(code, location="https://login.example/"))
    assert "redirects are not followed" in text
    assert "https://login.example/" in text


@pytest.mark.parametrize("code", [300, 304, 305, 399])
def test_another_3xx_is_no_redirect(code: int) -> None:
    """An unexpected 304 of a cache has no `Location`, and the error does not mention one."""
    assert "redirects" not in str(error_of(code))


def test_a_proxy_that_asks_for_a_password_is_named() -> None:
    """A 407 is about a proxy: nobody should look for another token."""
    error = error_of(407)
    assert "a proxy asks for a password, not the API" in str(error)
    assert not error.transient


@pytest.mark.anyio
class TestRefusedWithAWait:
    """A 403 that says how long to wait."""

    async def test_it_is_retried_after_its_wait(self) -> None:
        """It is a refusal because of a limit: it is retried after the wait, and uses up no attempt."""
        script = Script(*[status(403, retry_after="30")] * 3, GOOD)
        async with script.api(retry=RetryPolicy(max_attempts=1)) as api:
            assert len(await api.list("corp_1")) == 1
        waits = [later - earlier for earlier, later in zip(script.times, script.times[1:], strict=False)]
        assert all(wait >= 29.99 for wait in waits), waits

    async def test_it_is_an_error_of_a_limit_in_the_end(self) -> None:
        """When the policy gives up, the error is that of a limit, with the status and the wait."""
        script = Script(status(403, retry_after="86400"))
        async with script.api() as api:
            with pytest.raises(RateLimitError, match="403 Forbidden") as caught:
                await api.list("corp_1")
        assert (caught.value.status_code, caught.value.retry_after, caught.value.transient) == (403, 86400, True)

    async def test_without_a_wait_it_is_final(self) -> None:
        """Without a wait it is a missing permission, even with a quota that is used up."""
        script = Script(status(403, x_ratelimit_remaining="0", x_ratelimit_reset="5"))
        async with script.api() as api:
            with pytest.raises(PermissionDeniedError):
                await api.list("corp_1")

    @pytest.mark.parametrize(("code", "is_throttled"), [(403, True), (429, True), (503, False)])
    async def test_a_long_wait_still_teaches_the_limiter(self, code: int, is_throttled: bool) -> None:
        """A refusal with too long a wait is still a refusal; a server that is down for a day is no limit."""
        events: list[Event] = []
        async with Script(status(code, retry_after="86400")).api(hooks=[events.append]) as api:
            with pytest.raises(APIStatusError):
                await api.list("corp_1")
        assert any(isinstance(event, Throttled) for event in events) is is_throttled


@pytest.mark.anyio
@pytest.mark.parametrize("code", [204, 205, 200])
async def test_a_success_without_a_page_costs_one_request(code: int) -> None:
    """A complete 2xx without a body is raised at once, even if it announces gzip."""
    headers = {"Content-Length": "0", "Content-Encoding": "gzip"}
    script = Script(httpx.Response(code, headers=headers, stream=httpx.ByteStream(b"")))
    async with script.api() as api:
        with pytest.raises(InvalidResponseError, match=f"answered {code} .* without a body"):
            await api.list("corp_1")
