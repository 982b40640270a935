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


class BodyReader:
    """Collects one body: `feed` it the raw chunks, then call `finish`."""

    def __init__(self, content_encoding: str, *, limit: int) -> None:
        """
        Begin a body.

        Args:
            content_encoding: The header; empty if there is none.
            limit: Bytes that the body may have after decompression.

        Raises:
            InvalidResponseError: The encoding is not one that was asked for.
        """
        coding = content_encoding.strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip"):
            raise InvalidResponseError(
                f"the response has the Content-Encoding {content_encoding!r}; only gzip was asked for"
            )

        self._limit = min(limit, sys.maxsize - 1)
        self._size = 0
        self._parts: list[bytes] = []
        self._inflater = zlib.decompressobj(_GZIP_FORMAT) if coding.endswith("gzip") else None

    def feed(self, chunk: bytes) -> None:
        """
        Take the next raw bytes.

        Raises:
            InvalidResponseError: The body is larger than the limit.
            APIConnectionError: The compressed bytes are damaged.
        """
        if self._inflater is None:
            self._keep(chunk)
            return

        try:
            while chunk:
                if self._inflater.eof:
                    if not chunk.startswith(_GZIP_MAGIC):
                        return  # padding
                    # RFC 1952, section 2.2: a gzip file may have several members.
                    self._inflater = zlib.decompressobj(_GZIP_FORMAT)
                self._keep(self._inflater.decompress(chunk, self._limit - self._size + 1))
                chunk = self._inflater.unconsumed_tail or self._inflater.unused_data
        except zlib.error as exc:
            raise APIConnectionError(f"the compressed response is damaged: {exc}", transient=True) from exc

    def finish(self) -> bytes:
        """
        Return the whole body.

        Raises:
            APIConnectionError: The compressed bytes end too early: the body was cut.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise APIConnectionError("the compressed response ends too early", transient=True)

        return self.so_far

    @property
    def so_far(self) -> bytes:
        """The part of the body that has arrived, up to the limit."""
        return b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise InvalidResponseError(f"the response is larger than max_response_bytes, {self._limit:,} bytes")

        self._parts.append(part)
