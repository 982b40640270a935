"""
Where the token comes from: a fixed token, or a provider that the client calls again before the token expires.

`_secret.py` keeps it secret.
"""

import logging
import math
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from copy import copy
from functools import partial
from inspect import isawaitable
from typing import Any, Never, Protocol, TypeVar

import anyio
from pydantic import SecretStr

from ._attempt import Attempt
from ._cancellation import ChildTasks, in_child_task, result_of
from ._checks import check_positive
from ._secret import Secret
from .errors import AuthenticationError, CustomersError, TokenError

__all__ = ["Token", "TokenProvider"]

T = TypeVar("T")

ENVIRONMENT_VARIABLE = "COMMENDA_API_TOKEN"

_RENEWED_BEFORE = 0.1
"""The part of its life that a token has left when it is renewed."""
_LONGEST_BEFORE = 60.0
"""Seconds."""

_logger = logging.getLogger("commenda_customers")


class Token:
    """
    A token, and how long it is valid. A `TokenProvider` may return a `Token`.

    The client renews the token when a tenth of its lifetime is left, or one minute if that is less. The `repr` does not show
    the value. You cannot pickle a `Token`.

    Attributes:
        value: The token. No repr, log or error shows it.
        expires_in: Seconds for which the token is valid, from the moment the provider returns. `None`: not known.
    """

    __slots__ = ("expires_in", "value")

    def __init__(self, value: str | SecretStr, expires_in: float | None = None) -> None:
        """
        Check only the time. The client checks the value when it uses the token.

        Args:
            value: The token.
            expires_in: Seconds for which the token is valid, such as `expires_in` of an OAuth response (RFC 6749, section
                5.1). 0: only the requests that are waiting for the token use it. `None`: until the server refuses it.

        Raises:
            ValueError: *expires_in* is negative.
            TypeError: *expires_in* is not a number.
        """
        self.value = Secret(value, "the one from the provider")
        self.expires_in = expires_in
        del value  # the traceback of an error below would show it
        if expires_in is not None:
            check_positive("expires_in", expires_in, or_zero=True)

    def __repr__(self) -> str:
        return f"Token(<token>, expires_in={self.expires_in!r})"

    def __reduce__(self) -> Never:
        raise TypeError("a token cannot be pickled or copied")


TokenProvider = Callable[[], Awaitable[str | SecretStr | Token]]
"""
An async callable that returns a token. The client calls it for the first request, after a 401, and before a `Token`
expires.

Only one call runs at a time. All requests that wait for this call share its outcome. The provider may raise an `OSError`,
such as a `TimeoutError`, or a transport error of httpx or httpx2. Then the attempt fails with a `TokenError`, and the
client retries. Every other exception reaches your program unchanged. The provider may also raise a `TokenError` itself,
with `transient=True` for a temporary error.
"""


def wrap_token(token: str | SecretStr | TokenProvider | None) -> Secret | TokenProvider:
    """
    Wrap the token before anything can go wrong. `None`: use the environment variable.

    Never raises, because the traceback would show the argument. `token_auth` refuses a bad token.
    """
    if token is None:
        return Secret(os.environ.get(ENVIRONMENT_VARIABLE, ""), f"the environment variable {ENVIRONMENT_VARIABLE}")
    if callable(token):
        return token

    return Secret(token, "the one that was passed")


class TokenAuth(Protocol):
    """The source of a client's token."""

    def newest(self) -> Secret:
        """Return the token to send now. Only for what `call` calls."""
        ...

    async def call(self, attempt: Attempt, send: Callable[[], Awaitable[T]]) -> T:
        """
        Call *send* when there is a token, and again if the server refuses that token and there is another.

        Raises:
            AuthenticationError: There is no other, or it was refused as well.
            TokenError: The provider failed.
        """
        ...


class _FixedToken:
    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def newest(self) -> Secret:
        return self._secret

    async def call(self, attempt: Attempt, send: Callable[[], Awaitable[T]]) -> T:  # noqa: ARG002 - one token is all there is
        return await send()


class _Call:
    """A call of the provider, for the requests that wait for it."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.is_complete = False  # it is not if the request that made it was cancelled
        self.failure: Exception | None = None

    def error(self) -> Exception | None:
        """Return how it failed, if it did."""
        if not isinstance(self.failure, CustomersError):
            return self.failure

        # Each request writes into its error where it happened.
        error = copy(self.failure)
        error.__cause__ = self.failure.__cause__
        return error


class _ProvidedToken:
    """Calls the provider once, however many requests wait for the token."""

    def __init__(self, provider: TokenProvider, is_transient_io_error: Callable[[Exception], bool]) -> None:
        self._provider = provider
        self._may_pass = is_transient_io_error
        self._secret: Secret | None = None
        self._renew_at = self._expires_at = -math.inf
        self._call: _Call | None = None

    def newest(self) -> Secret:
        assert self._secret is not None  # noqa: S101 - `call` has waited for it
        return self._secret

    async def call(self, attempt: Attempt, send: Callable[[], Awaitable[T]]) -> T:
        first, now = send, anyio.current_time()
        if now >= self._expires_at:
            await self._renew()
        elif now >= self._renew_at and self._call is None:
            first = partial(self._send_while_renewing, send)
        with suppress(AuthenticationError):
            return await first()

        if attempt.secret is self._secret:
            self._expires_at = -math.inf  # whatever the provider has said
            await self._renew()
        attempt.is_token_renewed = True
        return await send()

    async def _send_while_renewing(self, send: Callable[[], Awaitable[T]]) -> T:
        """
        Send with the old token, and renew it in a child task meanwhile. No task outlives the request.

        If the provider takes longer than the request, this request alone waits for it, and not until the deadline: the page
        is there.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []
        now, expires_at = anyio.current_time(), self._expires_at
        # If it fails, a later request tries again when half of the time that is left has passed.
        self._renew_at = (now + expires_at) / 2
        async with ChildTasks() as tasks:
            tasks.start_soon(self._renew_early)
            try:
                outcome.append(await send())
            except (Exception, KeyboardInterrupt, SystemExit) as exc:  # noqa: BLE001 - raised below, not in a group
                failure.append(exc)
            now, deadline = anyio.current_time(), anyio.current_effective_deadline()
            tasks.cancel_scope.deadline = min(expires_at, now + (deadline - now) / 2)
        return result_of(outcome, failure)

    async def _renew_early(self) -> None:
        """Renew a token that is still valid. If that fails, no request fails yet."""
        try:
            await self._renew()
        except Exception as exc:  # noqa: BLE001 - raised to the requests that ask when the token has expired
            _logger.warning("the token could not be renewed before it expires: %s", type(exc).__name__)

    async def _renew(self) -> None:
        """Call the provider, or wait for the call that is in flight and share its outcome."""
        error = (await self._completed_call()).error()
        if error is not None:
            try:
                raise error
            finally:
                del error  # otherwise the exception and its traceback keep each other alive

    async def _completed_call(self) -> _Call:
        while self._call is not None:
            call = self._call
            await call.ended.wait()
            if call.is_complete:
                return call

        call = self._call = _Call()
        try:
            call.failure = await in_child_task(self._ask)
            call.is_complete = True
        finally:
            self._call = None
            call.ended.set()
        return call

    async def _ask(self) -> Exception | None:
        """Call the provider once, and return how that failed, if it did."""
        try:
            token = _as_token(await self._asked())
            secret = token.value.check()
        except Exception as exc:  # noqa: BLE001 - raised by each request that waits for it
            return self._translated(exc)

        life = math.inf if token.expires_in is None else token.expires_in
        self._expires_at = anyio.current_time() + life
        self._renew_at = self._expires_at - min(life * _RENEWED_BEFORE, _LONGEST_BEFORE)
        self._secret = secret
        return None

    def _asked(self) -> Awaitable[str | SecretStr | Token]:
        token: object = self._provider()
        if not isawaitable(token):
            del token  # it may be the token itself, and the traceback would show it
            raise TypeError("token: the provider must be an async function")

        return token

    def _translated(self, exc: Exception) -> Exception:
        """Return the `TokenError` for a failure that may pass, or *exc* itself. Neither has the old token in it."""
        error = exc
        if self._may_pass(exc):
            error = TokenError(f"the token provider failed: {str(exc) or type(exc).__name__}", transient=True)
            error.__cause__ = exc
        if isinstance(error, TokenError) and self._secret is not None:
            self._secret.redact_error(error)
        return error


def _as_token(given: Any) -> Token:
    """Wrap what a provider has returned. Never raises, because the traceback would show the argument."""
    return given if isinstance(given, Token) else Token(given)


def token_auth(token: Secret | TokenProvider, is_transient_io_error: Callable[[Exception], bool]) -> TokenAuth:
    """
    Return the source of the token, which `wrap_token` has wrapped.

    Args:
        token: The token, or its provider.
        is_transient_io_error: Tells of an exception of the provider whether it may pass, so that a later call may succeed.

    Raises:
        ValueError: There is no token, or it holds what cannot be sent in a header.
        TypeError: It is neither a string nor a callable.
    """
    return _FixedToken(token.check()) if isinstance(token, Secret) else _ProvidedToken(token, is_transient_io_error)
