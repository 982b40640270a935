"""The URL of the requests, and whether a token may be sent to it."""

import ipaddress
import re

import httpx

PATH = "/customers"
"""The path of the endpoint, below the base URL."""

_HOST = re.compile(r"[a-z0-9._:-]+", re.ASCII)
_UNSAFE_ESCAPE = re.compile(r"%(?:[01][0-9a-f]|25|2e|2f|5c|7f)", re.IGNORECASE)
"""Encoded control characters, percent signs, dots, slashes and backslashes. Some servers decode them before routing."""


def customers_url(base_url: str) -> httpx.URL:
    """
    Return the URL of the requests: *base_url*, without surrounding blanks and trailing slashes, and `/customers`.

    The checks apply to the resulting URL, because that is the one in use.

    Raises:
        ValueError: *base_url* is not a URL, or a token must not be sent to it. The message never repeats a part that may
            be a password.
    """
    text = base_url.strip()
    _check_text(text)
    try:
        url = httpx.URL(text.rstrip("/") + PATH)
        host = url.host
    except ValueError as exc:  # an invalid internationalized host name
        raise ValueError(f"base_url: must have a valid host name: {exc}") from exc
    except httpx.InvalidURL as exc:
        raise ValueError(f"base_url: is not a URL: {exc}") from exc

    if url.scheme not in ("http", "https") or not host:
        # Without the value: it may be the token, in the wrong place.
        raise ValueError("base_url: must begin with https:// and a host")
    if url.scheme == "http" and not _is_loopback(host):
        raise ValueError(f"base_url: must be https, because plain http shows the token to the network, got {base_url!r}")
    if not _is_valid_address(url):
        raise ValueError(f"base_url: must have a valid host name and a port from 1 to 65535, got {base_url!r}")
    if not _is_valid_path(text):
        raise ValueError(f"base_url: must have no part '.' or '..', and no encoded dots or slashes, got {base_url!r}")

    return httpx.URL(str(url))  # httpx knows the default port only if the scheme is in lower case


def _check_text(text: str) -> None:
    """Refuse text that httpx and other programs parse as different URLs."""
    if not text:
        raise ValueError("base_url: must not be empty")
    if not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("base_url: is not a URL: it contains a blank, a control character or a backslash")
    if "@" in text:
        raise ValueError("base_url: must not contain a user name or a password")
    if "?" in text or "#" in text:
        raise ValueError("base_url: must not contain a query or a fragment, not even an empty one")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_valid_address(url: httpx.URL) -> bool:
    host = url.raw_host.decode("ascii")
    labels = host.removesuffix(".").split(".")
    is_name = _HOST.fullmatch(host) is not None and all(0 < len(label) < 1 << 6 for label in labels)
    return is_name and (url.port is None or 0 < url.port < 1 << 16)


def _is_valid_path(text: str) -> bool:
    """Return whether all servers on the way see the same path. It checks the text, because httpx removes dot segments."""
    return _UNSAFE_ESCAPE.search(text) is None and not {".", ".."}.intersection(text.split("/"))
