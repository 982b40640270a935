"""Cursors that form a loop, that are long, or that hold characters that are reserved in URLs."""

from collections.abc import Callable
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

from fault_matrix.runs import Fault
from raw_server import Connection, listing, ok

CONTROL = "".join(map(chr, range(32)))
ASCII = "".join(map(chr, range(32, 127)))
SPECIAL = ["%", "%2F%00", "&limit=1", "a=b;c", "#end", "a b", "a+b", "..", "/../", "\r\nX: y", "é€😀", "\u2028\ufeff"]


def cursor_of(head: bytes) -> str:
    """Return the cursor of a request."""
    target = head.split(b" ", 2)[1].decode("ascii")
    return parse_qs(urlsplit(target).query, keep_blank_values=True)["cursor"][0]


def follows(*cursors: str | None) -> Callable[[Connection], None]:
    """Give these cursors, one after the other; answer a request with another cursor than the last one by a 400."""

    def strike(connection: Connection) -> None:
        for (expected, given), ids in zip(pairwise(["1", *cursors]), [["b", "c"], *[[]] * len(cursors)], strict=False):
            head = connection.read_request()
            if not head:
                return
            is_known = cursor_of(head) == expected
            connection.send(ok(listing(*ids, cursor=given)) if is_known else b"HTTP/1.1 400 Bad Request\r\n\r\n")

    return strike


FAULTS: dict[str, Fault] = {
    "a page returns its own cursor": Fault(strike=follows("1")),
    "two pages return each other's cursor": Fault(strike=follows("2", "1")),
    "the cursors form a loop of fifty pages": Fault(strike=follows(*map(str, range(2, 51)), "1")),
    "a cursor has 30,000 characters": Fault(strike=follows("x" * 30_000, None)),
    "a cursor has 65,536 characters, which is too long for a URL": Fault(strike=follows("x" * 65_536)),
    "a cursor has all printable ASCII characters": Fault(strike=follows(ASCII, None)),
    "a cursor has control characters and line breaks": Fault(strike=follows(CONTROL, "\x7f\x80", None)),
    "a cursor has characters that are reserved in URLs, or not in ASCII": Fault(strike=follows(*SPECIAL, None)),
}
