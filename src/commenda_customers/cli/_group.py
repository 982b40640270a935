"""The group of all commands, and the exit codes. Each command is in its own file."""

import io
import sys
import traceback
from collections.abc import Sequence

import click

from .._version import __version__
from ..errors import AuthenticationError, CustomersError
from ..export import OutputError, OutputRefusedError
from ._broken_pipe import give_up_output
from ._demo import demo_command
from ._emulate import emulate_command
from ._export import export_command
from ._list import list_command
from ._messages import is_terminal
from ._options import Invocation

_NAME = "commenda-customers"


def run(args: Sequence[str] | None) -> int:
    """Run a command. Turn an error into a line on standard error and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the locale cannot encode is not an error
    invocation = Invocation()
    try:
        return commands.main(args, prog_name=_NAME, standalone_mode=False, obj=invocation) or 0
    except click.Abort as exc:
        # On a terminal, overwrite the ^C.
        _write("\rinterrupted" if is_terminal(sys.stderr) else "interrupted", exc)
        return 130
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return exc.exit_code
    except click.UsageError as exc:
        command = exc.ctx.command_path if exc.ctx else _NAME
        click.echo(f"error: {' '.join(exc.format_message().split())}\nTry '{command} --help' for help.", err=True)
        return exc.exit_code
    except (CustomersError, OSError, OutputError) as error:
        if isinstance(error, AuthenticationError):
            error.add_note("the token is that of the environment variable COMMENDA_API_TOKEN")
        if invocation.debug:
            traceback.print_exception(error)
        else:
            # The message is for programs too. At a terminal there is only the option.
            _write(f"error: {error}".replace("fresh=True, or --fresh", "--fresh"), error)
        if isinstance(error, OSError):
            give_up_output()
        return 2 if isinstance(error, OutputRefusedError) else 1


def _write(text: str, error: BaseException) -> None:
    """Write a line, and then the notes of the error."""
    for line in (text, *getattr(error, "__notes__", ())):
        click.echo(line, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def commands() -> None:
    """
    Read customer lists from Commenda's indirect-tax API.

    Exit codes: 0 done; 1 the API, the connection or the output failed; 2 usage error, or export refused the output; 3 export
    did not get everything; 130 or 143 interrupted.
    """


commands.add_command(list_command)
commands.add_command(export_command)
commands.add_command(demo_command)
commands.add_command(emulate_command)
