"""
The only package that uses the HTTP library: httpx, or httpx2 if the user passed a client of it.

Plain data in, plain data out: it sends one request and returns status, headers and body. Every exception of the library
becomes one of ours here.
"""

from .client import AnyAsyncClient, HTTPClient
from .exchange import RawResponse
from .library import is_transient_io_error
from .senders import Transport

__all__ = ["AnyAsyncClient", "HTTPClient", "RawResponse", "Transport", "is_transient_io_error"]
