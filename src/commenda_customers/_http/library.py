"""Translates the exceptions of the HTTP library into ours."""

import re
import ssl
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple, Self

import httpx

from ..errors import APIConnectionError, APITimeoutError, chain
from ..retry import is_transient_status
from .trace import ConnectionTrace

_STATUS = re.compile(r"[0-9]{3}\b", re.ASCII)
_SOCKS_REFUSALS = ("Requested ", "Invalid username/password", "Proxy Server could not connect: Connection not allowed")
"""How the texts about a SOCKS proxy begin that wants another password, or does not allow the address."""
_LONGEST_REASON = 200


class Library(NamedTuple):
    """The exceptions of the library that a client comes from. Those of httpx2 have the same names and fields as httpx's."""

    request_error: type[httpx.RequestError]
    timeout: type[httpx.TimeoutException]
    unsendable: tuple[type[Exception], ...]
    connect_error: type[httpx.ConnectError]
    status_error: type[httpx.HTTPStatusError]
    not_read: type[httpx.ResponseNotRead]
    proxy_error: type[httpx.ProxyError]

    @classmethod
    def of(cls, client_type: type) -> Self:
        """Find the library of a client without importing it: a program with a client of httpx2 has imported httpx2."""
        for base in client_type.__mro__:
            name = base.__module__.partition(".")[0]
            if base.__name__ == "AsyncClient" and name in ("httpx", "httpx2"):
                library = sys.modules[name]
                return cls(
                    library.RequestError,
                    library.TimeoutException,
                    (library.LocalProtocolError, library.UnsupportedProtocol, library.InvalidURL),
                    library.ConnectError,
                    library.HTTPStatusError,
                    library.ResponseNotRead,
                    library.ProxyError,
                )

        raise TypeError(
            f"http_client: expected an httpx.AsyncClient or an httpx2.AsyncClient, got {client_type.__qualname__}"
        )

    @contextmanager
    def errors_translated(self, netloc: str, trace: ConnectionTrace | None = None) -> Generator[None]:
        """Raise our errors in place of the library's, for a request to *netloc*, on the connection that *trace* follows."""
        try:
            yield
        except self.timeout as exc:
            raise APITimeoutError(f"the connection to {netloc} timed out: {_reason(exc)}", transient=True) from exc
        except self.unsendable as exc:
            raise APIConnectionError(f"the request could not be sent: {_reason(exc)}") from exc
        except self.proxy_error as exc:
            raise _proxy_refusal(exc, netloc, None if trace is None else trace.peer) from exc
        except (
            self.request_error,
            ssl.SSLError,
        ) as exc:  # on asyncio, TLS that breaks later than its handshake comes as it is
            if (isinstance(exc, self.connect_error) and _is_tls_failure(exc)) or _is_refusal(exc):
                raise APIConnectionError(
                    f"no trusted connection to {netloc}: its TLS certificate or protocol was not accepted: {_reason(exc)}"
                ) from exc

            raise APIConnectionError(f"the connection to {netloc} failed: {_reason(exc)}", transient=True) from exc


def may_pass(exc: Exception) -> bool:
    """Return whether *exc*, of a program's own I/O, may pass: an `OSError`, or a transport error of httpx or httpx2."""
    # A program that raises an error of httpx2 has imported it.
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return isinstance(exc, (OSError, *(library.TransportError for library in libraries)))


def _is_tls_failure(exc: BaseException) -> bool:
    """Return whether the handshake failed permanently. A connection that broke during the handshake does not count."""
    broke_off = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return any(isinstance(link, ssl.SSLError) and not isinstance(link, broke_off) for link in chain(exc))


def _is_refusal(exc: BaseException) -> bool:
    """Return whether the server refused our TLS; with TLS 1.3 it says so after the handshake (RFC 8446, section 6.2)."""
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
    Return the error for a proxy that did not connect us to *netloc*.

    The library gives no more than a text: the proxy's status and reason phrase, or what a SOCKS proxy means by its code.
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
    return next((str(link) for link in reversed(list(chain(exc))) if str(link)), type(exc).__name__)
