"""
The emulated API: for tests of programs that use the SDK, and to try it without an account.

Serving on a socket needs the extra `testing`. Nothing here imports the client.
"""

from . import faults
from ._emulator import Emulator, ReceivedRequest
from ._limits import RateLimit
from ._plan import FaultPlan

__all__ = ["Emulator", "FaultPlan", "RateLimit", "ReceivedRequest", "faults"]
