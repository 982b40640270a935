"""`commenda-customers emulate`: the emulated API, for other programs."""

import errno
import re
import shlex
from collections.abc import Mapping

import anyio
import click

from ..testing import Emulator, faults

FAULT_KINDS: Mapping[str, type[faults.Fault]] = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower(): getattr(faults, name) for name in faults.__all__ if name != "Fault"
}
"""Faults by their name on the command line: `CutBody` is `cut-body`."""


async def serve(emulator: Emulator) -> None:
    """Serve until interrupted."""
    try:
        async with emulator:
            click.echo(f"serving {', '.join(emulator.corporations)} until interrupted (Ctrl-C); to use it:\n")
            click.echo(f"  export COMMENDA_BASE_URL={emulator.base_url}")
            click.echo(f"  export COMMENDA_API_TOKEN={shlex.quote(emulator.token)}")
            click.echo(f"  commenda-customers list {shlex.quote(next(iter(emulator.corporations)))}")
            await anyio.sleep_forever()
    except OSError as exc:
        if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise click.UsageError(f"--port: {exc.strerror}") from exc
