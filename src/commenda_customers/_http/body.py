"""
A response body, decompressed under a limit while it arrives.

HTTP libraries decompress without a limit: a body of one kilobyte, compressed twice, can become a gigabyte. So this takes
the raw bytes, removes at most one layer of gzip, and gives up on a body that grows beyond the limit.
"""

import sys
import zlib

from ..errors import APIConnectionError, InvalidResponseError

ACCEPT_ENCODING = "gzip"
_GZIP_FORMAT = zlib.MAX_WBITS | 16
_GZIP_MAGIC = b"\x1f"

_NO_CODINGS = frozenset({"", "identity", "none", "utf-8", "utf8", "aws-chunked"})
"""Values of `Content-Encoding` that some servers send, and that mean no compression (RFC 9110, section 8.4.1)."""

_FIRST_BYTES_OF_JSON = b"{[ \t\r\n\xef"
"""The first bytes of JSON, including blanks and the byte order mark. A gzip body begins with none of them."""

_LONGEST_SHOWN = 100

_MOST_MEMBERS = 10_000
"""A gzip body of 32 MiB in members of 64 KiB, as block compressors write it, has 512."""

_SLICE = 16 * 1024
"""Bytes. At the end of each gzip member, zlib copies the rest of the slice. Small slices keep that cheap."""

_MOST_OVERHEAD = 64 * 1024
"""Raw bytes for gzip headers and padding, which even a small body may have."""


class BodyReader:
    """Collects one body: `feed` it the raw chunks, then call `finish`."""

    def __init__(self, content_encoding: str, *, limit: int) -> None:
        """
        Begin a body.

        Args:
            content_encoding: The header; empty if there is none.
            limit: Bytes that the body may have after decompression. The raw body may have twice as many and 64 KiB more.
                That limits empty members, gzip headers and padding.

        Raises:
            InvalidResponseError: The encoding is neither gzip nor one that means no compression.
        """
        codings = [coding for coding in map(str.strip, content_encoding.lower().split(",")) if coding not in _NO_CODINGS]
        if codings not in ([], ["gzip"], ["x-gzip"]):
            raise InvalidResponseError(
                f"the response has the Content-Encoding {content_encoding[:_LONGEST_SHOWN]!r}; only gzip was asked for"
            )

        self._limit = min(limit, sys.maxsize - 1)
        self._raw_left = 2 * self._limit + _MOST_OVERHEAD
        self._body = bytearray()
        self._is_gzip = bool(codings)
        self._has_begun = False
        self._inflater = zlib.decompressobj(_GZIP_FORMAT)
        self._members = 1
        self._is_padding = False

    def feed(self, chunk: bytes) -> None:
        """
        Take the next raw bytes.

        Raises:
            InvalidResponseError: The body is larger than the limit.
            APIConnectionError: The compressed bytes are damaged.
        """
        if not chunk:
            return
        if not self._has_begun:
            # Some proxies decompress a body, but do not remove the header.
            self._is_gzip = self._is_gzip and chunk[0] not in _FIRST_BYTES_OF_JSON
            self._has_begun = True
        self._raw_left -= len(chunk)
        if self._raw_left < 0:
            raise self._too_large()
        if not self._is_gzip:
            self._keep(chunk)
            return

        try:
            for begin in range(0, len(chunk), _SLICE):
                self._inflate(chunk[begin : begin + _SLICE])
        except zlib.error as exc:
            raise APIConnectionError(f"the compressed response is damaged: {exc}", transient=True) from exc

    def finish(self) -> bytes:
        """
        Return the whole body.

        Raises:
            APIConnectionError: The compressed body is truncated.
        """
        # A response without a body, such as a 204, may still have the header.
        if self._is_gzip and self._has_begun and not self._inflater.eof:
            raise APIConnectionError("the compressed response ends too early", transient=True)

        return self.so_far

    @property
    def so_far(self) -> bytes:
        """The part of the body that has arrived, up to the limit."""
        return bytes(self._body)

    def _inflate(self, part: bytes) -> None:
        while part and not self._is_padding:
            if self._inflater.eof and not part.startswith(_GZIP_MAGIC):
                self._is_padding = True
                return
            if self._inflater.eof:
                self._begin_member()
            # Ask for one byte more than allowed: then either all input is used, or the body is too large.
            self._keep(self._inflater.decompress(part, self._limit - len(self._body) + 1))
            part = self._inflater.unused_data

    def _begin_member(self) -> None:
        """Start the next member of the gzip body (RFC 1952, section 2.2)."""
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise InvalidResponseError(f"the compressed response has more than {_MOST_MEMBERS:,} members")

        self._inflater = zlib.decompressobj(_GZIP_FORMAT)

    def _keep(self, part: bytes) -> None:
        room = self._limit - len(self._body)
        self._body += part[:room]
        if len(part) > room:
            raise self._too_large()

    def _too_large(self) -> InvalidResponseError:
        return InvalidResponseError(f"the response is larger than max_response_bytes, {self._limit:,} bytes")
