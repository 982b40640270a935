"""Gives up standard output after a failed write."""

import os
import sys


def give_up_output() -> None:
    """Discard the buffered output. Otherwise Python reports the same error again when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
