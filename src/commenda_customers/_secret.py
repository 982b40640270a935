"""
How a token is kept secret.

A token is wrapped in a `Secret` as soon as it comes in, and unwrapped only in the expression that writes the
`Authorization` header. So no frame of the SDK has it in a local variable, and no repr, `vars`, pickle or copy shows it.
"""

import html
import re
from typing import Never, Self

from pydantic import SecretStr

from .errors import CustomersError, chain

# RFC 9110, section 5.5: the characters of a header value, without blanks, which no token has. The HTTP library would refuse
# any other character with the value in its message.
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)

_SHORTEST_SECRET = 4
_MOST_REDACTED = 2**17
_LONGEST_ESCAPE = 6
"""Bytes of an escaped character."""


class Secret:
    """A token that no repr, `vars`, pickle or copy shows. It has slots, so that `vars` finds nothing."""

    __slots__ = ("_origin", "_value")

    def __init__(self, value: object, origin: str) -> None:
        value = value.get_secret_value() if isinstance(value, SecretStr) else value
        # For a member of an enumeration this is its value; plain str() would return its name.
        self._value = str.__str__(value) if isinstance(value, str) else value
        self._origin = origin

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
        """Return *text* without the token. A token of a few characters is not redacted: it would match in every text."""
        return self.redact_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def redact_error(self, error: CustomersError) -> None:
        """Remove the token from *error*: the server may have repeated it."""
        error.message = self.redact(error.message)
        error.args = (error.message,)
        error.request_id = error.request_id and self.redact(error.request_id)
        # It may also be in the text of a cause: the HTTP library quotes a header that is malformed.
        if any(self.redact(str(link)) != str(link) for link in chain(error.__cause__)):
            error.__cause__ = error.__context__ = None

    def redact_bytes(self, data: bytes) -> bytes:
        """
        Return *data* without the token, also where JSON, a URL or HTML has escaped it.

        Very long data is cut: searching all of it would take long, and only its beginning is shown.
        """
        if len(str(self._value)) < _SHORTEST_SECRET:
            return data

        redacted = self._pattern().sub(b"<token>", data[:_MOST_REDACTED])
        # The end may be part of a token that was cut.
        return redacted if len(data) <= _MOST_REDACTED else redacted[: -_LONGEST_ESCAPE * len(str(self._value))]

    def _pattern(self) -> re.Pattern[bytes]:
        # Not in a variable, which a traceback would show. The plain form is first: a token may itself look like an escape.
        return re.compile(
            f"{re.escape(str(self._value))}|{''.join(map(_escaped_forms, str(self._value)))}".encode(), re.IGNORECASE
        )


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
