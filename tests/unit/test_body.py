"""Bodies: one layer of gzip, under a bound, cut ones noticed."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commenda_customers import APIConnectionError, InvalidResponseError
from commenda_customers._http.body import BodyReader


def read(raw: bytes, encoding: str = "gzip", *, limit: int = 1_000_000, pieces: int = 1) -> bytes:
    """Read a body that comes in pieces of a size."""
    reader = BodyReader(encoding, limit=limit)
    for begin in range(0, len(raw), pieces):
        reader.feed(raw[begin : begin + pieces])
    return reader.finish()


@given(st.lists(st.binary(max_size=500), min_size=1, max_size=3), st.integers(1, 600))
def test_a_compressed_body_comes_out_whole(members: list[bytes], pieces: int) -> None:
    """However gzip splits a body into members and the network into pieces, it comes out as it was."""
    raw = b"".join(gzip.compress(member) for member in members)
    assert read(raw, pieces=pieces) == b"".join(members)


@pytest.mark.parametrize(
    "encoding", ["", "identity", " Identity ", "none", "UTF-8", "utf8", "aws-chunked", ",", "identity,none"]
)
def test_a_plain_body_is_left_alone(encoding: str) -> None:
    """Without compression the bytes are the body, whatever else a server takes for a coding."""
    assert read(b"plain", encoding) == b"plain"
    assert read(gzip.compress(b"text"), encoding) == gzip.compress(b"text")


@pytest.mark.parametrize(
    "encoding", ["gzip", "x-gzip", "GZIP", "gzip,", ", gzip", "identity, gzip", "gzip,aws-chunked", "UTF-8, x-gzip"]
)
def test_gzip_has_more_than_one_name(encoding: str) -> None:
    """All names of gzip are understood (RFC 9110, section 8.4.1.3), also in a list in which nothing else compresses."""
    assert read(gzip.compress(b"text"), encoding) == b"text"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "identity, gzip"])
@pytest.mark.parametrize("body", [b'{"a": 1}', b"[]", b' \r\n\t{"a": 1}', b"\xef\xbb\xbf{}"])
@pytest.mark.parametrize("pieces", [1, 1000])
def test_json_that_is_called_gzip_is_read(encoding: str, body: bytes, pieces: int) -> None:
    """A proxy may decompress a body and leave the header: what begins like JSON is read as it came."""
    assert read(body, encoding, pieces=pieces) == body


def test_json_that_is_called_gzip_has_the_same_limit() -> None:
    """The limit holds for it as for any other body."""
    assert len(read(b"[" * 1000, limit=1000)) == 1000
    with pytest.raises(InvalidResponseError, match="larger than"):
        read(b"[" * 1001, limit=1000)


@pytest.mark.parametrize("encoding", ["", "gzip", "x-gzip"])
def test_no_body_is_an_empty_body(encoding: str) -> None:
    """A response without a body, such as a 204, may announce gzip all the same."""
    assert read(b"", encoding) == b""


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "gzip, gzip", "zstd", "gzip, x-gzip", "identity, br", "br, gzip", "gzipped", "gzip;q=1"]
)
def test_what_was_not_asked_for_is_refused(encoding: str) -> None:
    """Any other encoding, two layers of gzip above all, is refused unread and for good."""
    with pytest.raises(InvalidResponseError, match=f"Content-Encoding '{encoding}'") as caught:
        BodyReader(encoding, limit=10)
    assert not caught.value.transient


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_compressed_body_that_is_cut_is_noticed(body: bytes, data: st.DataObject) -> None:
    """A gzip body that ends anywhere between its first byte and its end is a transient error and never a short body."""
    raw = gzip.compress(body)
    cut = data.draw(st.integers(1, len(raw) - 1))
    with pytest.raises(APIConnectionError, match="ends too early") as caught:
        read(raw[:cut])
    assert caught.value.transient


@pytest.mark.parametrize("pieces", [1, 1000])
def test_padding_is_no_damage(pieces: int) -> None:
    """Zeros after a complete gzip body, as some servers send, are not part of it."""
    assert read(gzip.compress(b"text") + bytes(20), pieces=pieces) == b"text"


@given(st.binary(max_size=300), st.integers(1, 400))
def test_what_follows_a_body_does_not_depend_on_its_pieces(garbage: bytes, pieces: int) -> None:
    """Bytes after a complete gzip body that are no member of it are ignored, however the network splits them."""
    assert read(gzip.compress(b"text") + b"\x00" + garbage, pieces=pieces) == b"text"


@pytest.mark.parametrize("pieces", [1, 10_000, 100_000_000])
def test_what_holds_nothing_is_bounded(pieces: int) -> None:
    """The client stops reading endless padding or an endless gzip header after twice the limit and 64 KiB."""
    size = 100_000
    header = b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * size
    for raw in (gzip.compress(b"text") + bytes(size), header):
        with pytest.raises(InvalidResponseError, match="larger than max_response_bytes, 1,000 bytes") as caught:
            read(raw, limit=1000, pieces=pieces)
        assert not caught.value.transient


def test_empty_members_are_bounded() -> None:
    """Thousands of gzip members without content are read, millions are refused, in one piece as fast as in many."""
    empty = gzip.compress(b"")
    assert read(empty * 9_999 + gzip.compress(b"text"), pieces=1_000_000) == b"text"
    for pieces in (20, 65_536, 100_000_000):
        with pytest.raises(InvalidResponseError, match="more than 10,000 members") as caught:
            read(empty * 2_000_000, limit=1 << 25, pieces=pieces)
        assert not caught.value.transient


def test_tiny_pieces_need_little_memory() -> None:
    """A body that comes in pieces of two bytes needs not much more memory than in one."""
    reader = BodyReader("", limit=1 << 19)
    tracemalloc.start()
    try:
        for number in range(1 << 17):
            reader.feed(number.to_bytes(2, "big", signed=False) if number < 1 << 16 else b"xy")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_damaged_body_is_noticed() -> None:
    """Bytes that are no gzip, or fail its checksum, are a transient error."""
    raw = bytearray(gzip.compress(b"text" * 100))
    raw[-6] ^= 0xFF
    for damaged in (bytes(raw), b"no gzip at all"):
        with pytest.raises(APIConnectionError, match="damaged") as caught:
            read(damaged)
        assert caught.value.transient


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_the_limit_is_exact(encoding: str) -> None:
    """A body of exactly the limit is read, one byte more is refused for good."""
    fits, beyond = b"x" * 1000, b"x" * 1001
    if encoding:
        fits, beyond = gzip.compress(fits), gzip.compress(beyond)
    assert len(read(fits, encoding, limit=1000, pieces=7)) == 1000
    with pytest.raises(InvalidResponseError, match="larger than max_response_bytes, 1,000 bytes") as caught:
        read(beyond, encoding, limit=1000, pieces=7)
    assert not caught.value.transient


def test_a_bomb_does_not_fill_the_memory() -> None:
    """64 kilobytes that would become 64 megabytes raise an error at the limit."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(64)) + squeeze.flush()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidResponseError, match="larger than"):
            read(bomb, limit=1 << 20, pieces=65536)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
