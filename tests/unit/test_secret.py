"""The token: what is accepted, and that it shows itself to nobody."""

import copy
import html
import json
import pickle
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from pydantic import SecretStr

from commenda_customers import AsyncCustomersAPI, Token
from commenda_customers._secret import Secret
from leaks import TOKEN, frames, see

BAD_ENDS = ["\nline", "\r\nX: y", "\x00", "\u2028", "é", " ", "\x7f", "\t1"]


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
def test_invalid_tokens_are_refused(token: Any, error: type[Exception]) -> None:
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


def test_a_missing_token_is_an_error() -> None:
    """A missing token is an error at construction that says what to do."""
    with pytest.raises(ValueError, match="token: the environment variable COMMENDA_API_TOKEN is missing or empty"):
        AsyncCustomersAPI()


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
def test_redacting_is_linear(separator: str) -> None:
    """Redacting text that almost repeats the token takes no long time."""
    secret = Secret(separator.join(["abcd"] * 60), "token")
    text = separator.join(["abcd"] * 59)
    with anyio.from_thread.start_blocking_portal() as portal:
        search = portal.start_task_soon(anyio.to_thread.run_sync, secret.redact, text)
        assert search.result(timeout=60) == text
    assert secret.redact(f"{text}{separator}abcd") == "<token>"


def test_a_large_body_is_cut_before_it_is_redacted() -> None:
    """A huge body is cut, and no part of a token remains at the cut."""
    secret = Secret("a.b-c_d~" * 5, "token")
    for length in range(2**17 - 50, 2**17 + 50):
        redacted = secret.redact_bytes(b"x" * length + b"a.b-c_d~" * 5 + b"y" * 2**18)
        assert redacted.startswith(b"x" * 2**16)
        assert b"a.b" not in redacted.replace(b"<token>", b"")


def test_a_token_that_is_cut_is_redacted() -> None:
    """If a connection breaks in the middle of a token, its beginning is not shown. Less than 4 characters may be a word."""
    secret = Secret(TOKEN, "token")
    for length in range(4, len(TOKEN) + 1):
        assert secret.redact_partial(b"by " + TOKEN[:length].encode()) == b"by <token>"
    for end in (TOKEN[:3], f"{TOKEN[:8]} ", ""):
        assert secret.redact_partial(b"by " + end.encode()) == b"by " + end.encode()


@pytest.mark.parametrize("escaped", ["abcd/efgh+ijkl=mnop", r"abcd\/efgh\u002Bijkl=mnop", "abcd%2Fefgh%2Bijkl%3Dmnop"])
def test_a_token_is_found_anywhere_in_a_page(escaped: str) -> None:
    """A page is searched to its end, however long it is; and what only looks like the token changes nothing."""
    secret = Secret("abcd/efgh+ijkl=mnop", "token")
    before, after = b"x" * 2**18, b"y" * 2**18
    assert secret.redact_page(before + escaped.encode() + after) == before + b"<token>" + after
    for other in (b"abcd", b"abcd/efgh+ijkl=mno", b"efgh+ijkl=mnop", b""):
        assert secret.redact_page(before + other + after) == before + other + after


def test_an_escaped_token_is_redacted() -> None:
    """A token is redacted also where JSON or a URL has escaped it."""
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
    # The beginning of an escape is a character of the token, and the token may itself look like an escape.
    for token in ("ab&c\\d%e", "ab&amp;cd"):
        for text in (token, html.escape(token), json.dumps(token)[1:-1], quote(token, safe="")):
            assert Secret(token, "token").redact(f"<{text}>") == "<<token>>", text


@pytest.mark.anyio
async def test_a_provider_that_returns_rubbish_is_not_quoted() -> None:
    """What a provider returns by mistake is not shown either."""

    async def wrong() -> str:
        return "s3cr3t\nline"

    async with AsyncCustomersAPI(wrong, base_url="http://127.0.0.1:1") as api:
        with pytest.raises(ValueError, match="not printable ASCII") as caught:
            await api.list("corp_1")
    assert "s3cr" not in frames(caught.value)


def test_a_secret_cannot_be_shown() -> None:
    """A secret cannot be shown, pickled, copied or formatted."""
    secret = Secret(TOKEN, "token")
    assert TOKEN not in f"{secret} {secret!r}"
    with pytest.raises(TypeError):
        vars(secret)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            leak(secret)


def test_a_token_of_a_provider_cannot_be_shown() -> None:
    """No repr, str, `vars`, pickle or copy of a `Token` shows its value, and no traceback of its constructor."""
    for value in (TOKEN, SecretStr(TOKEN)):
        token = Token(value, expires_in=60)
        assert repr(token) == "Token(<token>, expires_in=60)"
        assert TOKEN not in f"{token} {token.value} {see(token)}"
        with pytest.raises(TypeError):
            vars(token)
        for leak in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled or copied"):
                leak(token)

    wrong: list[tuple[Any, type[Exception]]] = [(-1, ValueError), (float("nan"), ValueError), ("60", TypeError)]
    for expires_in, error in wrong:
        with pytest.raises(error, match="expires_in") as caught:
            Token(TOKEN, expires_in)
        assert TOKEN not in frames(caught.value)


def test_a_short_token_does_not_spoil_messages() -> None:
    """A token that is shorter than a word, as in somebody's test, is not blacked out of every text."""
    assert Secret("t", "token").redact("not that") == "not that"
    assert Secret("t", "token").redact_bytes(b"not that") == b"not that"
    assert Secret("that", "token").redact("not that") == "not <token>"
