"""The token: what is accepted, and that nobody gets to see it."""

import copy
import logging
import pickle
import threading
import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr

import commenda_customers
from commenda_customers import AsyncCustomersAPI, CustomersError, InvalidResponseError, RetryPolicy, TokenProvider
from commenda_customers.auth import Secret
from raw_server import Connection, RawServer, listing, ok

PACKAGE = Path(commenda_customers.__file__).parent
TOKEN = "s3cr3t-t0k3n-that-nobody-may-see"
BAD_ENDS = ["\nline", "\r\nX: y", "\x00", "\u2028", "é", " ", "\x7f", "\t1"]


async def provide() -> str:
    """Return the token, as a provider."""
    return TOKEN


def see(thing: Any, depth: int = 6, seen: set[int] | None = None) -> str:
    """Return all that repr, str and vars show of a thing and of the things in it."""
    seen = set() if seen is None else seen
    if depth == 0 or id(thing) in seen:
        return ""
    seen.add(id(thing))
    shown = [repr(thing), str(thing)]
    if isinstance(thing, Secret | type):
        return " ".join(shown)
    parts: list[Any] = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    if type(thing).__module__.startswith("commenda_customers"):
        slots = [name for base in type(thing).__mro__ for name in getattr(base, "__slots__", ())]
        parts += [getattr(thing, name) for name in slots if hasattr(thing, name)]
    if isinstance(thing, dict):
        parts += [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set):
        parts += thing
    return " ".join([*shown, *(see(part, depth - 1, seen) for part in parts)])


def frames(error: BaseException | None) -> str:
    """Return what the local variables of our own frames show, for an error and all that lies behind it."""
    ours = 0
    shown: list[str] = []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
                ours += 1
                shown += [see(value) for value in frame.f_locals.values()]
        shown.append("".join(traceback.format_exception(error)))
        error = error.__cause__ or error.__context__
    assert ours, "none of our frames was looked into"
    return " ".join(shown)


@pytest.mark.parametrize("token", [" s3cr3t", *[f"s3cr3t{end}" for end in BAD_ENDS]], ids=ascii)
@pytest.mark.parametrize("given", [str, SecretStr, "environment"], ids=["str", "SecretStr", "environment"])
def test_a_token_that_cannot_be_sent_is_refused_unseen(token: str, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break, a NUL, a blank, a letter that is not ASCII: refused at construction, and not shown."""
    if given == "environment":
        monkeypatch.setenv("COMMENDA_API_TOKEN", token.replace("\x00", "\x01"))  # no environment can hold a NUL
    with pytest.raises(ValueError, match="token: .*not printable ASCII") as caught:
        AsyncCustomersAPI(None if given == "environment" else given(token))
    assert "s3cr" not in str(caught.value)
    assert "s3cr" not in frames(caught.value)


@pytest.mark.parametrize(
    ("token", "error"), [("", ValueError), (SecretStr(""), ValueError), (b"s3cr3t", TypeError), (7, TypeError)]
)
def test_what_is_no_token_is_refused(token: Any, error: type[Exception]) -> None:
    """An empty token, or one of another type, is refused by name and not shown."""
    with pytest.raises(error, match="token: ") as caught:
        AsyncCustomersAPI(token)
    assert "s3cr" not in frames(caught.value)


def test_a_bad_option_does_not_show_the_token() -> None:
    """If another argument is wrong, the traceback of its error does not hold the token."""
    for options in ({"timeout": 0}, {"base_url": "ftp://x"}, {"http_client": 5}):
        with pytest.raises((ValueError, TypeError)) as caught:
            AsyncCustomersAPI(TOKEN, **options)  # type: ignore[arg-type]  # bad on purpose
        assert TOKEN not in frames(caught.value)


def test_without_a_token_nothing_begins() -> None:
    """No argument and no environment variable: an error at construction that says what to do."""
    with pytest.raises(
        ValueError, match="token: none was passed, and the environment variable COMMENDA_API_TOKEN is missing or empty"
    ):
        AsyncCustomersAPI()


@pytest.mark.anyio
@pytest.mark.parametrize("given", [TOKEN, SecretStr(TOKEN), provide, None], ids=lambda given: type(given).__name__)
async def test_every_kind_of_token_is_sent(
    given: str | SecretStr | TokenProvider | None, raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A string, a SecretStr, a provider, the environment: the server gets the token as a Bearer token."""
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
    async with AsyncCustomersAPI(given, base_url=url, timeout=0.2, retry=policy, hooks=[events.append]) as api:
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
async def test_a_server_that_repeats_the_token_is_not_repeated(failure: Failing, raw_server: RawServer) -> None:
    """Wherever in its answer a server repeats the token, no error and no event does."""
    failure(raw_server)
    events: list[Any] = []
    policy = RetryPolicy(max_attempts=2, initial_wait=0.001)
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=policy, hooks=[events.append]) as api:
        with pytest.raises(CustomersError, match="<token>") as caught:
            await api.list("corp_1")
    assert TOKEN[:8] not in see(caught.value) + see(events) + repr(pickle.dumps(caught.value))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("token", "body"), [("2024", b'{"code": 202420242024}'), ("true", b'{"ok": true}'), ("code", b"[0]")]
)
async def test_a_token_that_is_part_of_an_answers_grammar(token: str, body: bytes, raw_server: RawServer) -> None:
    """A token that occurs in JSON outside of its strings is taken out of the error, and no reason for another one."""
    raw_server.behave(raw_server.answers(ok(None, body=body)))
    async with AsyncCustomersAPI(token, base_url=raw_server.url) as api:
        with pytest.raises(InvalidResponseError) as caught:
            await api.list("corp_1")
    assert token not in str(caught.value)


@pytest.mark.anyio
async def test_a_provider_that_is_no_async_function_does_not_show_it() -> None:
    """A token that comes where a promise of one was wanted, or in a finished future, is in no traceback."""

    class Finished:
        def __await__(self) -> Any:
            return f"{TOKEN}\n"
            yield

        def __repr__(self) -> str:
            return f"<finished: {TOKEN}>"

    providers: list[tuple[Any, type[Exception]]] = [(lambda: TOKEN, TypeError), (Finished, ValueError)]
    for wrong, error in providers:
        async with AsyncCustomersAPI(wrong) as api:
            with pytest.raises(error, match="token: ") as caught:
                await api.list("corp_1")
        assert TOKEN not in frames(caught.value)


@pytest.mark.parametrize("separator", ["-", ".", "_", "&", "\\", '"'])
def test_what_is_almost_the_token_is_soon_read(separator: str) -> None:
    """A server that repeats the token but for its end does not make the search for it long."""
    secret = Secret(separator.join(["abcd"] * 60), "token")
    text = separator.join(["abcd"] * 59)
    with anyio.from_thread.start_blocking_portal() as portal:
        search = portal.start_task_soon(anyio.to_thread.run_sync, secret.redact, text)
        assert search.result(timeout=5) == text
    assert secret.redact(f"{text}{separator}abcd") == "<token>"


def test_of_very_much_the_beginning_is_redacted() -> None:
    """Of a huge answer only the beginning is kept, and no part of a token that was cut there."""
    secret = Secret("a.b-c_d~" * 5, "token")
    for length in range(2**17 - 50, 2**17 + 50):
        redacted = secret.redact_bytes(b"x" * length + b"a.b-c_d~" * 5 + b"y" * 2**18)
        assert redacted.startswith(b"x" * 2**16)
        assert b"a.b" not in redacted.replace(b"<token>", b"")


def test_an_escaped_token_is_a_token() -> None:
    """A token is taken out of a text also where JSON or a URL has escaped it."""
    secret = Secret("abcd/efgh+ijkl=", "token")
    for text in (
        "abcd/efgh+ijkl=",
        r"abcd\/efgh+ijkl=",
        "abcd%2Fefgh%2Bijkl%3D",
        "abcd%2fefgh%2bijkl%3d",
        r"abcd\u002fefgh+ijkl\u003D",
        "abcd&#x2F;efgh&#43;ijkl=",
    ):
        assert secret.redact(f"<{text}>") == "<<token>>"
    assert secret.redact("lone \ud800 surrogates stay") == "lone \ud800 surrogates stay"


@pytest.mark.anyio
async def test_a_member_of_an_enumeration_is_its_value(raw_server: RawServer) -> None:
    """Of a token that is kept in an enumeration the value is sent, and the value is what nobody sees."""

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
    """What the HTTP library says of an answer that it cannot read is dropped if the token is in it."""
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
    """A token that the end of an excerpt would cut in two is taken out first."""
    raw_server.behave(raw_server.answers(_response("400 Bad Request", f"{'x' * before}{TOKEN}")))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url) as api:
        with pytest.raises(CustomersError) as caught:
            await api.list("corp_1")
    assert "s3cr" not in see(caught.value)


@pytest.mark.anyio
async def test_what_lies_behind_a_providers_error_shows_no_token(raw_server: RawServer) -> None:
    """If the provider fails after a 401 that repeats the token, the traceback of its error does not hold the token."""
    calls = 0

    async def fail_the_second_time() -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("vault is sealed")
        return TOKEN

    raw_server.behave(raw_server.answers(_response("401 Unauthorized", f"token {TOKEN} expired")))
    async with AsyncCustomersAPI(fail_the_second_time, base_url=raw_server.url) as api:
        with pytest.raises(OSError, match="vault is sealed") as caught:
            await api.list("corp_1")
    assert TOKEN not in frames(caught.value)


@pytest.mark.anyio
async def test_a_token_that_was_replaced_meanwhile_is_not_shown(raw_server: RawServer) -> None:
    """An answer to a request with the old token that repeats it, after another request got a new one, is redacted."""
    tokens = iter([TOKEN, "another-token-entirely"])
    renewed = threading.Event()

    async def provide() -> str:
        return next(tokens)

    def slow_and_telling(connection: Connection) -> None:
        connection.read_request()
        renewed.wait(10)
        connection.send(_response("400 Bad Request", f"bad request by {TOKEN}"))

    raw_server.behave(slow_and_telling, raw_server.answers(_response("401 Unauthorized", "no"), ok(listing("a"))))
    async with AsyncCustomersAPI(provide, base_url=raw_server.url) as api, anyio.create_task_group() as tasks:

        async def old() -> None:
            with pytest.raises(CustomersError) as caught:
                await api.list("corp_1")
            assert TOKEN not in see(caught.value)

        tasks.start_soon(old)
        while not raw_server.connections:
            await anyio.sleep(0.01)
        await api.list("corp_1")
        renewed.set()


@pytest.mark.anyio
async def test_nothing_behind_an_error_holds_the_token(raw_server: RawServer) -> None:
    """The exception of the HTTP library, which our errors have as their cause, holds a request without the token."""
    raw_server.behave(lambda connection: connection.send(b""))
    async with AsyncCustomersAPI(TOKEN, base_url=raw_server.url, retry=RetryPolicy(max_attempts=1)) as api:
        with pytest.raises(CustomersError) as caught:
            await api.list("corp_1")
    cause = caught.value.__cause__
    assert isinstance(cause, httpx.RequestError)
    assert "authorization" not in cause.request.headers


@pytest.mark.anyio
async def test_a_provider_that_returns_rubbish_is_not_quoted() -> None:
    """What a provider returns by mistake is not shown either."""

    async def wrong() -> str:
        return "s3cr3t\nline"

    async with AsyncCustomersAPI(wrong, base_url="http://127.0.0.1:1") as api:
        with pytest.raises(ValueError, match="not printable ASCII") as caught:
            await api.list("corp_1")
    assert "s3cr" not in frames(caught.value)


def test_a_secret_keeps_to_itself() -> None:
    """It cannot be shown, pickled, copied or formatted."""
    secret = Secret(TOKEN, "token")
    assert TOKEN not in f"{secret} {secret!r}"
    with pytest.raises(TypeError):
        vars(secret)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            leak(secret)


def test_a_short_token_does_not_spoil_messages() -> None:
    """A token that is shorter than a word, as in somebody's test, is not blacked out of every text."""
    assert Secret("t", "token").redact("not that") == "not that"
    assert Secret("t", "token").redact_bytes(b"not that") == b"not that"
    assert Secret("that", "token").redact("not that") == "not <token>"
