"""
The API on this machine: for tests of programs that use the SDK, and for trying it without an account.

Serving on a socket needs the extra `testing`. Nothing here imports the client.
"""

from . import faults
from ._emulator import Emulator, ReceivedRequest
from ._limits import RateLimit

__all__ = ["Emulator", "RateLimit", "ReceivedRequest", "faults"]
