"""Complete responses with status 200 whose content is wrong, or only unusual."""

import json
from typing import Any

from behaviours import sends
from fault_matrix.runs import SECOND, Fault
from raw_server import ok

JSON = json.dumps(SECOND)
ROW = SECOND["customers"][0]


def body(content: bytes | str, *, headers: tuple[str, ...] = (), **fault: Any) -> Fault:
    """Return the fault of a response with this body."""
    payload = content.encode() if isinstance(content, str) else content
    return Fault(strike=sends(ok(None, body=payload, headers=headers)), **fault)


def value(content: Any, **fault: Any) -> Fault:
    """Return the fault of a response with this JSON."""
    return body(json.dumps(content), **fault)


def with_field(name: str, content: Any, **fault: Any) -> Fault:
    """Return the fault of a list with another value of a field."""
    return value({**SECOND, name: content}, **fault)


def with_rows(*rows: Any, **fault: Any) -> Fault:
    """Return the fault of a list with other rows."""
    return with_field("customers", list(rows), **fault)


def typed(content_type: str, text: bytes | str = JSON) -> Fault:
    """Return the fault of a response with another content type."""
    payload = text.encode() if isinstance(text, str) else text
    head = f"HTTP/1.1 200 OK\r\n{content_type}Content-Length: {len(payload)}\r\n\r\n"
    return Fault(strike=sends(head.encode() + payload))


SHAPES: dict[str, Any] = {"`null`": None, "a list": [], "a number": 7, "a string": "text", "`true`": True}
DEEP = "[" * 10_000 + "]" * 10_000

NOT_JSON: dict[str, Fault] = {
    "the body is empty": body(""),
    "the body is an HTML page": typed("Content-Type: text/html\r\n", "<html><h1>Sign in to the network</h1></html>"),
    "the body is an HTML page that says that it is JSON": body("<html><h1>Sorry</h1></html>"),
    "the JSON is truncated, but the length of the body is right": body(JSON[:-9]),
    "more text follows the JSON": body(JSON + "</html>"),
    "the same JSON comes twice in one body": body(JSON + JSON),
    "the body is in UTF-16": body(JSON.encode("utf-16")),
    "the body is in Latin-1": body(JSON.replace('"b"', '"caf\xe9"').encode("latin-1")),
}
UNUSUAL: dict[str, Fault] = {
    "the body begins with a byte order mark": body(b"\xef\xbb\xbf" + JSON.encode()),
    "the content type is not JSON": typed("Content-Type: text/plain\r\n"),
    "there is no content type": typed(""),
    "the content type names another charset": typed("Content-Type: application/json; charset=iso-8859-1\r\n"),
    "white space surrounds the JSON": body(f"\r\n\t {JSON} \n"),
    "a key comes twice in an object: the last one counts": body(JSON.replace("{", '{"customers": 7, ', 1)),
    "a string has a lone surrogate, `\\ud800`": body(JSON.replace('"name": "b"', '"name": "\\ud800"')),
    "a string has unescaped control characters": body(JSON.replace('"name": "b"', '"name": "\n\x01"')),
    "an unknown field has a number of 5,000 digits": body(JSON.replace("{", f'{{"extra": {"9" * 5000}, ', 1)),
    "an unknown field is `NaN`": body(JSON.replace("{", '{"extra": NaN, ', 1)),
    "the list is in `data`": value({"data": SECOND}),
    "the list is in `data`, and `total_customers` next to it": value(
        {"data": {"customers": SECOND["customers"]}, "total_customers": 2}
    ),
    "`customers` is an empty list": with_field("customers", [], second=()),
    "`customers` is `null`": with_field("customers", None, second=()),
    "`cursor` is an empty string": with_field("cursor", ""),
    "`cursor` is missing": value({"customers": SECOND["customers"]}),
    "`total_customers` is `null`": with_field("total_customers", None),
    "`total_customers` is negative": with_field("total_customers", -5),
    "`total_customers` is smaller than the number of customers": with_field("total_customers", 1),
    "`total_customers` is larger than the number of customers": with_field("total_customers", 9),
}
WRONG: dict[str, Fault] = {
    **{f"the body is {name}": value(content) for name, content in SHAPES.items()},
    "the body is an object without customers": value({"error": "no"}),
    "`data` is `null`": value({"data": None}),
    **{f"`data` is {name}": value({"data": content}) for name, content in SHAPES.items() if content is not None},
    **{f"`customers` is {name}": with_field("customers", content) for name, content in SHAPES.items() if content},
    "`customers` is an object": with_field("customers", {"0": ROW}),
    **{f"a row is {name}": with_rows(ROW, content) for name, content in SHAPES.items()},
    "a row has no `id`": with_rows({"name": "x", "corporation_id": "corp_1"}),
    "the `id` of a row is a number": with_rows({**ROW, "id": 7}),
    "`cursor` is a number": with_field("cursor", 7),
    "`cursor` is `true`": with_field("cursor", True),
    "`cursor` is a list": with_field("cursor", ["2"]),
    "`cursor` is an object": with_field("cursor", {"next": "2"}),
    "`total_customers` is a string": with_field("total_customers", "many"),
    "`total_customers` is a list": with_field("total_customers", [2]),
    "JSON is nested 10,000 levels deep in an unknown field": body(JSON.replace("{", f'{{"extra": {DEEP}, ', 1)),
    "JSON is nested 10,000 levels deep in a row": body(JSON.replace('{"id"', f'{{"x": {DEEP}, "id"', 1)),
}
FOREIGN: dict[str, Fault] = {
    "a customer belongs to another corporation": with_rows(ROW, {**ROW, "id": "x", "corporation_id": "corp_2"}),
}
FAULTS: dict[str, Fault] = {**NOT_JSON, **UNUSUAL, **WRONG, **FOREIGN}
