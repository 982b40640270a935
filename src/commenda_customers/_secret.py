"""
How a token is kept secret.

A token is wrapped in a `Secret` as soon as it comes in, and unwrapped only in the expression that writes the
`Authorization` header. So no frame of the SDK has it in a local variable, and no repr, `vars`, pickle or copy shows it.

A server may send the token back. The SDK removes it from a response as soon as that is complete (`_http/exchange.py`), and
from an error before the program sees it (`drop_tracebacks`, `Secret.redact_error`).
"""

import html
import re
from collections.abc import Mapping
from typing import Never, Self, cast

from pydantic import SecretStr

from .errors import CustomersError, chain, text_of

# RFC 9110, section 5.5: the characters of a header value, without blanks, which no token has. The HTTP library would refuse
# any other character with the value in its message.
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)

_SHORTEST_SECRET = 4
"""Characters. A shorter token would match in every text, so it is not redacted."""

_SHORTEST_UNIQUE = 16
"""Characters. A shorter token, as in somebody's test, may be in a customer's data by accident."""

_WORD = re.compile(rb"[0-9A-Za-z]{1,20}")
_MOST_REDACTED = 2**17
_LONGEST_ESCAPE = 6
"""Bytes of an escaped character."""


class Secret:
    """A token that no repr, `vars`, pickle or copy shows. It has slots, so that `vars` finds nothing."""

    __slots__ = ("_compiled", "_origin", "_value", "_word")

    def __init__(self, value: object, origin: str) -> None:
        value = value.get_secret_value() if isinstance(value, SecretStr) else value
        # For a member of an enumeration this is its value; plain str() would return its name.
        self._value = str.__str__(value) if isinstance(value, str) else value
        self._origin = origin
        # No escape changes letters and digits. So only a text with the longest sequence of them can contain the token. The
        # sequence is limited, because a short one is found faster.
        self._word = max(_WORD.findall(str(self._value).encode("utf-8", "replace")), key=len, default=b"")
        self._compiled: re.Pattern[bytes] | None = None

    def __repr__(self) -> str:
        return "<token>"

    def __reduce__(self) -> Never:
        raise TypeError("a token cannot be pickled or copied; make the client where it is used")

    def check(self) -> Self:
        """Refuse a token that cannot be sent in a header, without showing it."""
        if not isinstance(self._value, str):
            raise TypeError(f"token: {self._origin} is not a str but {type(self._value).__name__}")
        if not self._value:
            raise ValueError(f"token: {self._origin} is missing or empty")
        if not _TOKEN.fullmatch(self._value):
            raise ValueError(f"token: {self._origin} contains a blank or a character that is not printable ASCII")

        return self

    def authorization(self) -> str:
        """Return the value of the `Authorization` header."""
        return f"Bearer {self._value}"

    def redact(self, text: str) -> str:
        """Return *text* without the token."""
        return self.redact_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def redact_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return *headers* without the token in their values."""
        plain = dict(headers.items())
        values = "\n".join(plain.values())  # one search for all: the token is hardly ever there
        return plain if self.redact(values) == values else {name: self.redact(value) for name, value in plain.items()}

    def redact_error(self, error: CustomersError) -> None:
        """Remove the token from *error*: the server may have repeated it."""
        error.message = self.redact(error.message)
        error.args = (error.message,)
        error.request_id = error.request_id and self.redact(error.request_id)
        # It may also be in the text of a cause: the HTTP library quotes a header that is malformed.
        if any(self.redact(text) != text for text in map(text_of, chain(error.__cause__))):
            error.__cause__ = error.__context__ = None

    def redact_bytes(self, data: bytes) -> bytes:
        """
        Return *data* without the token, also where JSON, a URL or HTML has escaped it.

        Very long data is cut: searching all of it would take long, and only its beginning is shown.
        """
        if len(str(self._value)) < _SHORTEST_SECRET or self._word.lower() not in data.lower():
            return data

        redacted = self._pattern().sub(b"<token>", data[:_MOST_REDACTED])
        # The end may be part of a token that was cut.
        return redacted if len(data) <= _MOST_REDACTED else redacted[: -_LONGEST_ESCAPE * len(str(self._value))]

    def redact_partial(self, data: bytes) -> bytes:
        """Return *data* without the token, and without a first part of it at the end: the data may be truncated there."""
        redacted = self.redact_bytes(data)
        for length in range(len(str(self._value)) - 1, _SHORTEST_SECRET - 1, -1):
            if redacted.endswith(str(self._value)[:length].encode()):
                return redacted[:-length] + b"<token>"
        return redacted

    def redact_page(self, data: bytes) -> bytes:
        """
        Return the body of a page without the token.

        A body without it, which is nearly every one, costs a few microseconds. A token of less than 16 characters stays:
        the same characters may be the data of a customer.
        """
        if len(str(self._value)) < _SHORTEST_UNIQUE or self._word not in data:
            return data

        return self._pattern().sub(b"<token>", data)

    def _pattern(self) -> re.Pattern[bytes]:
        # Not in a variable, which a traceback would show. The plain form is first: a token may itself look like an escape.
        if self._compiled is None:
            self._compiled = re.compile(
                f"{re.escape(str(self._value))}|{''.join(map(_escaped_forms, str(self._value)))}".encode(), re.IGNORECASE
            )
        return self._compiled


def drop_tracebacks(error: BaseException, *, until: BaseException | None) -> None:
    """
    Drop the traceback of *error*, and those of its causes and contexts.

    The local variables of their frames hold what was sent and received, such as the header with the token. Programs that
    report errors may send such variables to other services.

    Args:
        error: The error.
        until: The exception that the caller was already handling. It stays unchanged.
    """
    behind: list[BaseException | None] = [error]
    seen = {id(until)}
    while behind:
        link = behind.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = None
        members = cast("tuple[BaseException, ...]", link.exceptions) if isinstance(link, BaseExceptionGroup) else ()  # pyright: ignore[reportUnknownMemberType]
        behind += [link.__cause__, link.__context__, *members]


def _escaped_forms(char: str) -> str:
    r"""
    Return a pattern for *char* as it stands in plain text, in JSON, in a URL and in HTML.

    Servers differ in which characters they escape: .NET writes the plus sign in JSON as \u002B. The group is atomic, so
    that a search takes linear time, and the longest form comes first: `&` is the beginning of `&amp;`.
    """
    if char.isalnum():
        return char

    code = ord(char)
    forms = {char, f"\\{char}", f"\\u{code:04x}", f"%{code:02x}", f"&#x{code:x};", f"&#{code};", html.escape(char)}
    return f"(?>{'|'.join(re.escape(form) for form in sorted(forms, key=len, reverse=True))})"
