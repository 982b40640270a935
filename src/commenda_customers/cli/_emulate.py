"""`commenda-customers emulate`: serve the emulated API to other programs."""

import errno
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

import anyio
import click

from ..testing import Emulator, RateLimit, faults
from ._options import usage_error

FAULT_KINDS: Mapping[str, type[faults.Fault]] = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower(): getattr(faults, name) for name in faults.__all__ if name != "Fault"
}
"""Faults by their name on the command line: `CutBody` is `cut-body`."""


_MOST_DIGITS = 12


def _corporation(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> Mapping[str, int]:
    corporations: dict[str, int] = {}
    for value in values:
        name, _, customers = value.rpartition("=")
        if not name or not customers.isdecimal() or len(customers) > _MOST_DIGITS:
            raise click.BadParameter(f"{value!r} is not of the form ID=CUSTOMERS")
        corporations[name] = int(customers)

    return corporations


def _fault(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> Mapping[str, float]:
    faults: dict[str, float] = {}
    for value in values:
        kind, _, probability = value.partition("=")
        try:
            faults[kind] = float(probability)
        except ValueError:
            raise click.BadParameter(f"{value!r} is not of the form KIND=PROBABILITY") from None
        if kind not in FAULT_KINDS or not 0 <= faults[kind] <= 1:
            raise click.BadParameter(f"{value!r}: KIND is one of {', '.join(FAULT_KINDS)}; PROBABILITY is from 0 to 1")

    return faults


@click.command("emulate")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen on; 0 picks a free one."
)
@click.option(
    "--corporation",
    "corporations",
    multiple=True,
    callback=_corporation,
    default=("corp_123=1000",),
    metavar="ID=CUSTOMERS",
    show_default=True,
    help="A corporation to serve; may be repeated.",
)
@click.option("--token", default="emulator-token", show_default=True, help="The token to accept.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of customers and faults.")
@click.option(
    "--envelope",
    type=click.Choice(["wrapped", "bare"]),
    default="wrapped",
    show_default=True,
    help="Which of the documented envelopes the responses have.",
)
@click.option(
    "--address-spelling",
    type=click.Choice(["line", "address_line"]),
    default="address_line",
    show_default=True,
    help="Which documented spelling street lines have: line1, or address_line_1.",
)
@click.option("--latency", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds before each response.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Limit of requests per second; requests beyond it get a 429.  [default: no limit]",
)
@click.option(
    "--burst",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Requests that may come at the same time, with --rate.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_fault,
    metavar="KIND=PROBABILITY",
    help=f"A fault, with a probability from 0 to 1; may be repeated. Kinds: {', '.join(FAULT_KINDS)}.",
)
def emulate_command(
    port: int,
    corporations: Mapping[str, int],
    token: str,
    seed: int,
    envelope: Literal["wrapped", "bare"],
    address_spelling: Literal["line", "address_line"],
    latency: float,
    rate: float | None,
    burst: int,
    faults: Mapping[str, float],
) -> None:
    """Serve the emulated API on this machine until interrupted."""
    emulator = Emulator(
        corporations,
        seed=seed,
        token=token,
        envelope=envelope,
        address_spelling=address_spelling,
        faults=[FAULT_KINDS[kind](probability=probability) for kind, probability in faults.items()],
        rate_limit=None if rate is None else RateLimit(rate=rate, burst=burst),
        latency=latency,
        port=port,
    )
    anyio.run(_serve, emulator)


async def _serve(emulator: Emulator) -> None:
    """Serve until interrupted."""
    try:
        async with emulator:
            click.echo(f"serving {', '.join(emulator.corporations)} until interrupted (Ctrl-C); in another terminal:\n")
            click.echo(f"  export COMMENDA_BASE_URL={emulator.base_url}")
            click.echo(f"  export COMMENDA_API_TOKEN={shlex.quote(emulator.token)}")
            click.echo(f"  commenda-customers list {shlex.quote(next(iter(emulator.corporations)))} | head -n 3")
            await anyio.sleep_forever()
    except OSError as exc:
        if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise usage_error(f"--port: {exc.strerror}; --port 0 picks a free one") from exc
