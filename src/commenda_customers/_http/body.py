"""
A response body, decompressed under a bound as it comes in.

HTTP libraries decompress without one: a body of one kilobyte, compressed twice, can become a gigabyte. So the raw bytes
are taken, one layer of gzip at the most is removed, and whatever grows beyond the limit is given up.
"""

import sys
import zlib

from ..errors import APIConnectionError, InvalidResponseError

ACCEPT_ENCODING = "gzip"
_GZIP_FORMAT = zlib.MAX_WBITS | 16
_GZIP_MAGIC = b"\x1f"


class BodyReader:
    """Collects one body. Feed it the raw chunks, then call `finish`."""

    def __init__(self, content_encoding: str, *, limit: int) -> None:
        """
        Begin a body.

        Args:
            content_encoding: The header; empty if there is none.
            limit: Bytes that the body may have after decompression.

        Raises:
            InvalidResponseError: The encoding is none that was asked for.
        """
        coding = content_encoding.strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip"):
            raise InvalidResponseError(f"the answer is encoded as {content_encoding!r}; only gzip was asked for")

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
            raise APIConnectionError(f"the compressed answer is damaged: {exc}", transient=True) from exc

    def finish(self) -> bytes:
        """
        Return the whole body.

        Raises:
            APIConnectionError: The compressed bytes end too early: the body was cut on its way.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise APIConnectionError("the compressed answer breaks off", transient=True)

        return self.so_far

    @property
    def so_far(self) -> bytes:
        """What has come of the body, up to the limit."""
        return b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise InvalidResponseError(f"the answer is larger than max_response_bytes, {self._limit:,} bytes")

        self._parts.append(part)
