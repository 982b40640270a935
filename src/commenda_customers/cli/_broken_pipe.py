"""What to do when the output cannot be written."""

import os
import sys


def give_up_output() -> None:
    """Discard what cannot be written, so that Python does not complain about it again when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
