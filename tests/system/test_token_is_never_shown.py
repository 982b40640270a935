"""No error, event or log shows the token, whatever the server sends back."""

import logging
import pickle
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr

from commenda_customers import (
    AsyncCustomersAPI,
    CustomersError,
    InvalidResponseError,
    RetryPolicy,
    TokenError,
    TokenProvider,
)
from leaks import TOKEN, frames, provide, see
from raw_server import Connection, RawServer, listing, ok
from waiting import until


@pytest.mark.anyio
@pytest.mark.parametrize("given", [TOKEN, SecretStr(TOKEN), provide, None], ids=lambda given: type(given).__name__)
async def test_every_kind_of_token_is_sent(
    given: str | SecretStr | TokenProvider | None, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gets a Bearer token from a string, a SecretStr, a provider or the environment."""
    if given is None:
        monkeypatch.setenv("COMMENDA_API_TOKEN", TOKEN)
    raw_server.behave(raw_server.answers(ok(listing("a"))))
    async with AsyncCustomersAPI(given, base_url=raw_server.url) as api:
        await api.list("corp_1")
    assert f"Authorization: Bearer {TOKEN}\r\n".encode() in raw_server.requests[0]


Failing = Callable[[RawServer], None]


def _answer(response: bytes) -> Failing:
    return lambda server: server.behave(server.answers(response))


def _response(status: str, body: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]).encode()


def _echo(status: str, *headers: str) -> Failing:
    """Answer with an error that repeats the token in its body."""
    return _answer(_response(status, f'{{"message": "token {TOKEN} is wrong"}}', *headers))


FAILURES: dict[str, Failing] = {
    "refused": lambda _server: None,
    "closed": lambda server: server.behave(lambda connection: connection.send(b"")),
    "hangs": lambda server: server.behave(lambda connection: connection.wait_for_end()),
    "400": _echo("400 Bad Request"),
    "401": _echo("401 Unauthorized"),
    "302": _echo("302 Found"),
    "503": _echo("503 Service Unavailable"),
    "no JSON": _answer(ok(None, body=b"<html>")),
    "wrong envelope": _answer(ok({"token": "x"})),
    "foreign": _answer(ok(listing("a", corporation_id="corp_2"))),
}


@pytest.mark.anyio
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("given", [TOKEN, provide], ids=["fixed", "provided"])
async def test_no_failure_shows_the_token(
    failure: str, given: str | TokenProvider, raw_server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    """However a request fails, the token is in no log at DEBUG, no event, no error, no pickle, no local of our frames."""
    caplog.set_level(logging.DEBUG)
    FAILURES[failure](raw_server)
    events: list[Any] = []
    url = "http://127.0.0.1:1" if failure == "refused" else raw_server.url
    policy = RetryPolicy(max_attempts=2, initial_wait=0.001)
    timeout = 0.2 if failure == "hangs" else 60
    async with AsyncCustomersAPI(given, base_url=url, timeout=timeout, retry=policy, hooks=[events.append]) as api:
        with pytest.raises(CustomersError) as caught:
            await api.list("corp_1")
        shown = see(api)

    shown += see(caught.value) + frames(caught.value) + see(events) + see([vars(record) for record in caplog.records])
    shown += caplog.text + repr(pickle.dumps(caught.value))
    assert TOKEN not in shown
    assert caplog.records


@pytest.mark.anyio
@pytest.mark.parametrize(
    "failure",
    [
        _echo("302 Found", f"Location: https://x.example/?{TOKEN}"),
        _echo("400 Bad Request", f"X-Request-Id: for-{TOKEN}"),
        _echo("400 Bad Request", f"X-Request-Id: {'y' * 190}{TOKEN}"),
        _answer(ok(None, body=f"<html>{TOKEN}".encode(), headers=[f"Content-Type: {TOKEN}"])),
    ],
    ids=["location", "request id", "long request id", "html"],
)
async def test_a_token_in_a_response_is_redacted(failure: Failing, raw_server: RawServer) -> None:
    """No error and no event repeats a token that the server repeats, wherever it does."""
    failure(raw_server)
    events: list[Any] = []
    policy = RetryPolicy(max_attempts=2, initial_wait=0.001)
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=policy, hooks=[events.append]) as api:
        with pytest.raises(CustomersError, match="<token>") as caught:
            await api.list("corp_1")
    assert TOKEN[:8] not in see(caught.value) + see(events) + repr(pickle.dumps(caught.value))


@pytest.mark.anyio
@pytest.mark.parametrize("before", ["for-", "y" * 190])
async def test_a_token_in_a_good_response_is_in_no_event(
    before: str, raw_server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that repeats the token as the id of a request gets it into no event and no log."""
    raw_server.behave(raw_server.answers(ok(listing("a"), headers=[f"X-Request-Id: {before}{TOKEN}"])))
    caplog.set_level(logging.DEBUG, logger="commenda_customers")
    events: list[Any] = []
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, hooks=[events.append]) as api:
        await api.list("corp_1")
    assert events[-1].request_id.startswith(before)
    assert TOKEN[:8] not in see(events) + caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("token", "body"), [("2024", b'{"code": 202420242024}'), ("true", b'{"ok": true}'), ("code", b"[0]")]
)
async def test_a_token_in_json_syntax_is_redacted(token: str, body: bytes, raw_server: RawServer) -> None:
    """A token that occurs in JSON outside of its strings is redacted, and does not change the error."""
    raw_server.behave(raw_server.answers(ok(None, body=body)))
    async with AsyncCustomersAPI(token, base_url=raw_server.url) as api:
        with pytest.raises(InvalidResponseError) as caught:
            await api.list("corp_1")
    assert token not in str(caught.value)


@pytest.mark.anyio
async def test_a_token_may_be_a_member_of_an_enumeration(raw_server: RawServer) -> None:
    """The value of an enumeration's member is sent, and redacted."""

    class Tokens(str, Enum):  # noqa: UP042 - of a StrEnum str() is the value
        MINE = TOKEN

    raw_server.behave(raw_server.answers(_response("400 Bad Request", f"bad {TOKEN}")))
    async with AsyncCustomersAPI(Tokens.MINE, base_url=raw_server.url) as api:
        with pytest.raises(CustomersError) as caught:
            await api.list("corp_1")
    assert f"Bearer {TOKEN}\r\n".encode() in raw_server.requests[0]
    assert TOKEN not in str(caught.value)


@pytest.mark.anyio
async def test_a_malformed_header_that_repeats_the_token_is_not_quoted(raw_server: RawServer) -> None:
    """The HTTP library's message about a malformed response is dropped if it contains the token."""
    raw_server.behave(lambda connection: connection.send(f"HTTP/1.1 400 No\r\nbad {TOKEN}\r\n\r\n".encode()))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=RetryPolicy(max_attempts=1)) as api:
        with pytest.raises(CustomersError) as caught:
            await api.list("corp_1")
    assert TOKEN not in frames(caught.value)


@pytest.mark.anyio
async def test_a_redirect_keeps_no_copy_of_the_token(raw_server: RawServer) -> None:
    """The request that the HTTP library prepares for following a redirect is thrown away."""
    raw_server.behave(raw_server.answers(_response("302 Found", "", "Location: /elsewhere")))
    responses: list[httpx.Response] = []

    async def keep(response: httpx.Response) -> None:
        responses.append(response)

    async with (
        httpx.AsyncClient(event_hooks={"response": [keep]}) as client,
        AsyncCustomersAPI(TOKEN, base_url=raw_server.url, http_client=client) as api,
    ):
        with pytest.raises(CustomersError, match="302"):
            await api.list("corp_1")
    assert responses[0].next_request is None


@pytest.mark.anyio
@pytest.mark.parametrize("before", [150, 178, 190, 199, 780, 795])
async def test_no_part_of_the_token_is_left_at_the_end_of_an_excerpt(before: int, raw_server: RawServer) -> None:
    """A token at the end of an excerpt is redacted before the excerpt is cut."""
    raw_server.behave(raw_server.answers(_response("400 Bad Request", f"{'x' * before}{TOKEN}")))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
        with pytest.raises(CustomersError) as caught:
            await api.list("corp_1")
    assert "s3cr" not in see(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "text"),
    [(OSError, "vault is sealed"), (OSError, f"cannot renew {TOKEN}"), (httpx.ConnectError, TOKEN), (LookupError, "")],
)
async def test_a_providers_error_does_not_show_the_token(
    error: type[Exception], text: str, raw_server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The error, the traceback and the log of a provider that fails after a 401 do not contain the old token."""
    caplog.set_level(logging.DEBUG)

    async def fail_the_second_time() -> str:
        calls.append(1)
        if len(calls) > 1:
            raise error(text)
        return TOKEN

    calls: list[int] = []
    events: list[Any] = []
    raw_server.behave(raw_server.answers(_response("401 Unauthorized", f"token {TOKEN} expired")))
    options: Any = {"base_url": raw_server.url, "retry": RetryPolicy(max_attempts=2, initial_wait=0.001)}
    async with AsyncCustomersAPI(fail_the_second_time, hooks=[events.append], **options) as api:
        with pytest.raises((TokenError, LookupError)) as caught:
            await api.list("corp_1")
        shown = see(api)
    assert isinstance(caught.value, LookupError) == (error is LookupError)
    shown += see(caught.value) + frames(caught.value) + see(events) + caplog.text + repr(pickle.dumps(caught.value))
    assert TOKEN not in shown


@pytest.mark.anyio
async def test_a_replaced_token_is_redacted(raw_server: RawServer) -> None:
    """A response that repeats the old token is redacted, even after another request has renewed it."""
    tokens = iter([TOKEN, "another-token-entirely"])
    renewed = threading.Event()

    async def provide() -> str:
        return next(tokens)

    def slow_and_telling(connection: Connection) -> None:
        connection.read_request()
        renewed.wait(60)
        connection.send(_response("400 Bad Request", f"bad request by {TOKEN}"))

    raw_server.behave(slow_and_telling, raw_server.answers(_response("401 Unauthorized", "no"), ok(listing("a"))))
    async with AsyncCustomersAPI(provide, base_url=raw_server.url) as api, anyio.create_task_group() as tasks:

        async def old() -> None:
            with pytest.raises(CustomersError) as caught:
                await api.list("corp_1")
            assert TOKEN not in see(caught.value)

        tasks.start_soon(old)
        await until(lambda: raw_server.connections > 0)
        await api.list("corp_1")
        renewed.set()


@pytest.mark.anyio
async def test_the_cause_of_an_error_does_not_hold_the_token(raw_server: RawServer) -> None:
    """The HTTP library's exception, the cause of our error, holds a request without the token."""
    raw_server.behave(lambda connection: connection.send(b""))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=RetryPolicy(max_attempts=1)) as api:
        with pytest.raises(CustomersError) as caught:
            await api.list("corp_1")
    cause = caught.value.__cause__
    assert isinstance(cause, httpx.RequestError)
    assert "authorization" not in cause.request.headers
