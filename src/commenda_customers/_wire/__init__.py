"""
The wire format: status, headers and bytes in; a page, an error, or what the server says about its limits out.

Pure functions: no clock, no network. Where the API's documentation is incomplete or ambiguous, this package decides.
"""

from .errors import request_id, response_fields, status_error
from .page import decode_in_steps, decode_page, foreign_corporation
from .throttling import Throttling, parse_throttling

__all__ = [
    "Throttling",
    "decode_in_steps",
    "decode_page",
    "foreign_corporation",
    "parse_throttling",
    "request_id",
    "response_fields",
    "status_error",
]
