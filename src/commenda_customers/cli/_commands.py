"""The commands and their options. What they do is in the file of each."""

import io
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import anyio
import click

from .._version import __version__
from ..errors import CustomersError
from ..testing import Emulator, RateLimit
from ._demo import demonstrate
from ._emulate import FAULT_KINDS, serve
from ._filters import filter_options
from ._list import print_customers
from ._output import give_up_output

_MOST_DIGITS = 12


def run(args: Sequence[str] | None) -> int:
    """Run a command; turn what goes wrong into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the locale cannot write must not be the end
    try:
        return commands.main(args, prog_name="commenda-customers", standalone_mode=False) or 0
    except click.Abort:
        click.echo("interrupted", err=True)
        return 130
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return exc.exit_code
    except click.ClickException as exc:
        click.echo(f"error: {' '.join(exc.format_message().split())}", err=True)
        return exc.exit_code
    except CustomersError as error:
        click.echo(f"error: {error}", err=True)
        for note in getattr(error, "__notes__", ()):
            click.echo(note, err=True)
        return 1
    except OSError as exc:
        click.echo(f"error: {exc}", err=True)
        give_up_output()
        return 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def commands() -> None:
    """
    Read customer lists from Commenda's indirect-tax API.

    Exit codes: 0 done, 1 the API or the connection failed, 2 wrong use, 130 interrupted.
    """


@commands.command("list")
@click.argument("corporation_id")
@filter_options
@click.option("--limit", type=int, default=100, show_default=True, help="Customers per page, 1 to 100.")
@click.option("--cursor", help="Cursor to begin at; printed after a failure.")
@click.option(
    "--base-url", envvar="COMMENDA_BASE_URL", help="Where the API is.  [env: COMMENDA_BASE_URL; default: the vendor's]"
)
@click.option("--json/--table", "as_json", default=None, help="JSON lines, or a table.  [default: a table on a terminal]")
def list_command(
    corporation_id: str, limit: int, cursor: str | None, base_url: str | None, as_json: bool | None, **filters: Any
) -> None:
    """
    Print the customers of a corporation.

    The token is taken from the environment variable COMMENDA_API_TOKEN.
    """
    anyio.run(
        partial(print_customers, corporation_id, limit=limit, cursor=cursor, base_url=base_url, as_json=as_json, **filters)
    )


@commands.command("demo")
@click.option("--corporations", type=click.IntRange(1, 100), default=8, show_default=True, help="How many to read.")
@click.option("--customers", type=click.IntRange(0, 1_000_000), default=2750, show_default=True, help="In each of them.")
@click.option("--rate", type=click.FloatRange(1), default=60, show_default=True, help="The server's limit per second.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of customers and faults.")
def demo_command(corporations: int, customers: int, rate: float, seed: int) -> int:
    """
    Read several corporations from an emulated API that fails on purpose.

    Everything happens on this machine, over real HTTP. At the end all that came is compared with what the server holds.
    """
    return anyio.run(partial(demonstrate, corporations=corporations, customers=customers, rate=rate, seed=seed))


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


@commands.command("emulate")
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
    help="Which documented form the answers have.",
)
@click.option(
    "--address-spelling",
    type=click.Choice(["line", "address_line"]),
    default="address_line",
    show_default=True,
    help="Which documented keys street lines have: line1, or address_line_1.",
)
@click.option("--latency", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds before each answer.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests per second; more are answered with 429.")
@click.option("--burst", type=click.IntRange(1), default=10, show_default=True, help="Requests that may come at once.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_fault,
    metavar="KIND=PROBABILITY",
    help=f"Something that goes wrong, with a probability from 0 to 1; may be repeated. Kinds: {', '.join(FAULT_KINDS)}.",
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
    anyio.run(serve, emulator)
