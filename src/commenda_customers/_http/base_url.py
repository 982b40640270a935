"""The base URL, and whether a token may be sent to it."""

import ipaddress

import httpx


def checked_base_url(base_url: str) -> httpx.URL:
    """
    Return *base_url* parsed.

    Raises:
        ValueError: It is not a URL, or a token must not be sent to it.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as exc:
        raise ValueError(f"base_url: is not a URL: {exc}") from exc

    if url.userinfo:
        raise ValueError("base_url: must not contain a user name or a password")
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url: must begin with https:// and a host, got {base_url!r}")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ValueError(f"base_url: must be https, because plain http shows the token to the network, got {base_url!r}")
    if not _is_valid_address(url):
        raise ValueError(f"base_url: must have a valid host name and a port below 65536, got {base_url!r}")
    if url.query or url.fragment:
        raise ValueError(f"base_url: must not contain a query or a fragment, got {base_url!r}")

    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_valid_address(url: httpx.URL) -> bool:
    labels = url.raw_host.rstrip(b".").split(b".")
    return (url.port is None or url.port < 1 << 16) and all(0 < len(label) < 1 << 6 for label in labels)
