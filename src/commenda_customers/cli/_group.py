"""The group of all commands, and how each run ends. The commands are in a file each."""

import io
import sys
from collections.abc import Sequence

import click

from .._version import __version__
from ..errors import CustomersError
from ._broken_pipe import give_up_output
from ._demo import demo_command
from ._emulate import emulate_command
from ._list import list_command


def run(args: Sequence[str] | None) -> int:
    """Run a command. An error becomes one line on standard error, and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the locale cannot write is no error
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

    Exit codes: 0 done, 1 the API or the connection failed, 2 usage error, 130 interrupted.
    """


commands.add_command(list_command)
commands.add_command(demo_command)
commands.add_command(emulate_command)
