"""Translates the exceptions of the HTTP library into those of the SDK."""

import re
import ssl
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

from ..errors import APIConnectionError, APITimeoutError, CustomersError, chain, text_of
from ..retry import is_transient_status
from .internals import frames_of, is_of_trace, is_of_transport
from .trace import ConnectionTrace

_MISTAKES = (
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    AssertionError,
    Warning,
)
"""Mistakes in a program: a retry cannot help. Others, such as `KeyError`, leak from libraries if a connection ends."""

_STATUS = re.compile(r"[0-9]{3}\b", re.ASCII)
_SOCKS_REFUSALS = ("Requested ", "Invalid username/password", "Proxy Server could not connect: Connection not allowed")
"""The first words of the message if a SOCKS proxy rejects the password or the address."""
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Library:
    """
    The library that a client comes from.

    Attributes:
        module: httpx or httpx2, whose exceptions have the same names and fields.
    """

    module: ModuleType

    @classmethod
    def of(cls, client_type: type) -> Self:
        """Find the library of a client without importing it: a program with a client of httpx2 has imported httpx2."""
        for base in client_type.__mro__:
            name = base.__module__.partition(".")[0]
            if base.__name__ == "AsyncClient" and name in ("httpx", "httpx2"):
                return cls(sys.modules[name])

        raise TypeError(
            f"http_client: expected an httpx.AsyncClient or an httpx2.AsyncClient, got {client_type.__qualname__}"
        )

    @contextmanager
    def errors_translated(self, netloc: str, trace: ConnectionTrace, request: Any = None) -> Generator[None]:
        """
        Raise an error of the SDK instead of any exception of a library.

        If a connection ends while it is in use, httpcore, h2, anyio and ssl raise exceptions of many types. All of them mean
        the same to the caller.

        Args:
            netloc: Host and port of the request, for messages.
            trace: Knows whether the request could be sent.
            request: The request. If given, exceptions of hooks of the user's client are not translated. These are all
                exceptions that come neither from the transport of this request nor from the body of its response.
        """
        try:
            yield
        except (CustomersError, MemoryError):
            raise
        except Exception as exc:
            if request is not None and not self._is_caused_by(exc, request):
                raise
            raise self._translated(exc, netloc, trace) from exc

    def _is_caused_by(self, exc: Any, request: Any) -> bool:
        """Return whether *request* caused *exc*. If not, a hook of the user's client raised it."""
        if isinstance(exc, self.module.RequestError):
            with suppress(RuntimeError):  # the exception names no request
                return exc.request is request

        frames = list(frames_of(exc.__traceback__))
        if is_of_trace(frames):
            return False
        if is_of_transport(frames, request):
            return True
        # httpx itself refuses some requests and responses, such as a redirect to an invalid URL.
        is_of_client = frames[-1].f_globals["__name__"].partition(".")[0] == self.module.__name__
        return is_of_client and isinstance(exc, self.module.RequestError)

    def _translated(self, exc: Exception, netloc: str, trace: ConnectionTrace) -> APIConnectionError:
        library = self.module
        if isinstance(exc, (library.TimeoutException, TimeoutError)):
            return APITimeoutError(f"the connection to {netloc} timed out: {_reason(exc)}", transient=True)
        if isinstance(exc, (library.UnsupportedProtocol, library.InvalidURL)) or (
            isinstance(exc, library.LocalProtocolError) and not trace.is_sendable
        ):
            return APIConnectionError(f"the request could not be sent: {_reason(exc)}")
        if isinstance(exc, library.ProxyError):
            return _proxy_refusal(exc, netloc, trace.peer)
        if (isinstance(exc, library.ConnectError) and _is_tls_failure(exc)) or _is_refusal(exc):
            return APIConnectionError(
                f"no trusted connection to {netloc}: its TLS certificate or protocol was not accepted: {_reason(exc)}"
            )

        return APIConnectionError(
            f"the connection to {netloc} failed: {_reason(exc)}", transient=not isinstance(exc, _MISTAKES)
        )


def is_transient_io_error(exc: Exception) -> bool:
    """Return whether *exc*, from the I/O of a program, is an `OSError` or a transport error: then a retry may succeed."""
    # A program that raises an error of httpx2 has imported it.
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return isinstance(exc, (OSError, *(library.TransportError for library in libraries)))


def _is_tls_failure(exc: BaseException) -> bool:
    """Return whether the handshake failed permanently. A connection that was lost during the handshake does not count."""
    broke_off = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return any(isinstance(link, ssl.SSLError) and not isinstance(link, broke_off) for link in chain(exc))


def _is_refusal(exc: BaseException) -> bool:
    """Return whether the server refused the TLS of the client. With TLS 1.3, that may come late (RFC 8446, section 6.2)."""
    refused = (
        "ALERT_CERTIFICATE",
        "ALERT_BAD_CERTIFICATE",
        "ALERT_UNSUPPORTED_CERTIFICATE",
        "ALERT_UNKNOWN_CA",
        "ALERT_ACCESS",
    )
    return any(isinstance(link, ssl.SSLError) and any(word in str(link) for word in refused) for link in chain(exc))


def _proxy_refusal(exc: Exception, netloc: str, proxy: str | None) -> APIConnectionError:
    """
    Return the error for a proxy that did not connect to *netloc*.

    The library gives only a text: the proxy's status and reason phrase, or the meaning of a SOCKS reply code.
    """
    reason = _reason(exc)
    status = _STATUS.match(reason)
    is_transient = not reason.startswith(_SOCKS_REFUSALS) if status is None else is_transient_status(int(status[0]))
    advice = "" if is_transient else "; check the proxy and its password"
    name = "" if proxy is None else f" {proxy}"
    return APIConnectionError(
        f"the proxy{name} refused the connection to {netloc}: {reason[:_LONGEST_REASON]}{advice}", transient=is_transient
    )


def _reason(exc: BaseException) -> str:
    """Return the text of the innermost cause that has one, which is the most specific."""
    # The text of a KeyError is only the key.
    texts = [text_of(link) for link in chain(exc) if not isinstance(link, LookupError)]
    return next((text for text in reversed(texts) if text), type(exc).__name__)
