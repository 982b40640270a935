"""
The door to the HTTP library: the only place that knows httpx, or the httpx2 of a user who brought it.

It sends one request and gives out status, headers and body; every exception of the library becomes one of ours here.
"""

from .client import AnyAsyncClient, HTTPClient, RawResponse

__all__ = ["AnyAsyncClient", "HTTPClient", "RawResponse"]
