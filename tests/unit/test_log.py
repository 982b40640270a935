"""What is in the log, and `COMMENDA_LOG`. Time is virtual."""

import logging
from collections.abc import Iterator

import httpx
import pytest

from behaviours import BODY
from commenda_customers import APIConnectionError, AsyncCustomersAPI
from commenda_customers._attempt import Attempt, Deadline
from commenda_customers._reports import PageReporter, show_log
from script import GOOD, URL, Script, status

LOGGER = logging.getLogger("commenda_customers")
TOKEN = "s3cr3t-token"


@pytest.fixture
def _fresh() -> Iterator[None]:
    """Let the next client read the environment as the first one does, and restore the logger."""
    handlers, level = LOGGER.handlers[:], LOGGER.level
    show_log.cache_clear()
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)


@pytest.mark.anyio
async def test_a_retry_is_a_warning_of_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """It says which corporation, why, and for how long."""
    async with Script(status(503), GOOD).api() as api:
        await api.list("corp_1")
    [record] = [record for record in caplog.records if record.name == LOGGER.name]
    assert record.levelno == logging.WARNING
    assert "\n" not in record.message
    assert record.message.startswith("retrying in 0.")
    assert (
        "the server answered 503 Service Unavailable: why [corporation 'corp_1', first page, after 1 attempt]"
        in record.message
    )


@pytest.mark.anyio
async def test_a_request_that_is_sent_again_at_once_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A stale connection is nothing to worry about: its retry, which has no wait, is at DEBUG."""
    caplog.set_level(logging.DEBUG, logger=LOGGER.name)
    error = APIConnectionError("the connection was closed", transient=True)
    PageReporter("corp_1", None, ()).retry(Attempt(1, Deadline(None)), error, 0.0)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


@pytest.mark.anyio
@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("debug", ["DEBUG"] * 3 + ["WARNING"] + ["DEBUG"] * 2 + ["INFO"]),
        (" Info", ["WARNING", "INFO"]),
        ("warning", ["WARNING"]),
        ("", []),
    ],
)
async def test_the_environment_shows_the_log(
    value: str, kinds: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`COMMENDA_LOG` writes the log to stderr, once for all clients, without the token, and leaves the root alone."""
    monkeypatch.setenv("COMMENDA_LOG", value)
    root = logging.getLogger().handlers[:]
    AsyncCustomersAPI(TOKEN)
    async with Script(status(503), GOOD).api(token=TOKEN) as api:
        await api.list("corp_1")
    shown = capsys.readouterr().err
    assert [line.split(maxsplit=3)[2] for line in shown.splitlines()] == kinds
    assert TOKEN not in shown
    assert logging.getLogger().handlers == root


@pytest.mark.usefixtures("_fresh")
def test_an_unknown_value_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that is no level is a warning, which does not repeat it: it may be a token in the wrong place."""
    monkeypatch.setenv("COMMENDA_LOG", TOKEN)
    AsyncCustomersAPI(TOKEN)
    AsyncCustomersAPI(TOKEN)
    [line] = capsys.readouterr().err.splitlines()
    assert "COMMENDA_LOG: must be debug, info or warning" in line
    assert TOKEN not in line


def test_the_library_alone_adds_only_a_null_handler() -> None:
    """Without the environment variable nothing is written, and no level is set."""
    # Tests that import the library anew add one each.
    assert {type(handler) for handler in LOGGER.handlers} == {logging.NullHandler}
    assert LOGGER.level == logging.NOTSET


@pytest.mark.anyio
async def test_other_requests_are_logged_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """The filter on the loggers of the HTTP library changes no record of a request that the program itself sends."""
    caplog.set_level(logging.DEBUG)
    async with Script(GOOD, status(503)).api(token=TOKEN) as api:
        await api.list("corp_1")
        logging.getLogger("httpx").info("HTTP Request: %s", TOKEN)
        logging.getLogger("hpack.hpack").debug("Decoding %s", TOKEN)
    assert [record.args for record in caplog.records if record.name in ("httpx", "hpack.hpack")][-2:] == [(TOKEN,)] * 2


@pytest.mark.anyio
async def test_a_wrong_call_of_a_log_raises_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook of the user's client that writes to the log of httpx, with a text that does not fit, fails no request."""
    monkeypatch.setattr(logging, "raiseExceptions", False)  # otherwise each handler writes to stderr what is wrong
    monkeypatch.setattr(caplog.handler, "emit", lambda _record: None)  # pytest's own raises
    caplog.set_level(logging.INFO)

    async def logs(_response: httpx.Response) -> None:
        logging.getLogger("httpx").info("it took %d ms", "many")

    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=BODY)))
    client.event_hooks = {"response": [logs]}
    async with client, AsyncCustomersAPI(TOKEN, base_url=URL, http_client=client) as api:
        assert len(await api.list("corp_1")) == 2
