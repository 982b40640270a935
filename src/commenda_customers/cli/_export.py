"""`commenda-customers export`: write all customers of many corporations to a file or a database."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from ..export import OutputRefusedError, Sink, Summary
from ..export._job import ExportJob
from ..limits import RateLimiter
from ._broken_pipe import give_up_output
from ._corporations import Shard, parse_shard, read_corporations
from ._filters import filter_options
from ._limiter import entered, limiter_options
from ._messages import add_notes, say
from ._options import ClientOptions, FirstResponse, client_options, limit_option, usage_error, usage_errors
from ._outputs import FORMATS, Place, StandardOutput, make_sink
from ._progress import Display, Monitor
from ._report import say_summary, write_summary
from ._stop import Interrupted, Outage, Stop

_HOW_TO_RESUME = "to resume, run the same command again"
_MOST_INVALID_SHOWN = 20


def _check_file(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Path | None:
    """Check that the folder of a file exists. Otherwise the export would fail only at its end."""
    path = None if value is None else Path(value)
    if path is not None and (value == "-" or not path.parent.is_dir() or path.is_dir()):
        raise click.BadParameter(f"{value!r} is not the name of a file in an existing folder")

    return path


@click.command("export", short_help="Write the customers of many corporations to a file or a database.")
@click.option("--corporation", "corporation_ids", multiple=True, metavar="ID", help="A corporation; may be repeated.")
@click.option(
    "--corporations-from",
    "source",
    metavar="FILE",
    help="A file with one corporation id on each line, or - for standard input. Blank lines and lines that begin with # are "
    "skipped.",
)
@click.option(
    "--output",
    required=True,
    metavar="PATH",
    help="The output. Its name sets the format: .db or .sqlite, .jsonl or .ndjson, .csv, or a folder for Parquet (FOLDER/). "
    "Add .gz or .zst to compress JSON Lines or CSV. - writes JSON Lines to standard output.",
)
@click.option(
    "--format", "format_name", type=click.Choice(FORMATS), help="The format.  [default: by the name of the output]"
)
@click.option("--fresh", is_flag=True, help="Start from the beginning, and replace an existing output.")
@click.option(
    "--escape-formulas/--no-escape-formulas",
    default=True,
    help="CSV: put an apostrophe before a text that a spreadsheet would run.  [default: do]",
)
@click.option(
    "--shard",
    callback=parse_shard,
    metavar="I/N",
    help="Read only the I-th of N shards of the corporations. A corporation is always in the same shard.",
)
@limiter_options
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    default=16,
    show_default=True,
    help="Number of corporations to read at the same time.",
)
@click.option(
    "--commit-every",
    type=click.IntRange(1),
    metavar="N",
    default=32,
    show_default=True,
    help="Pages between two commits. A commit saves the customers and the position.",
)
@click.option(
    "--max-failures", type=click.IntRange(0), metavar="N", help="Stop if more than N corporations fail.  [default: no limit]"
)
@limit_option
@click.option(
    "--summary-json",
    "summary_path",
    callback=_check_file,
    metavar="FILE",
    help="Write the summary to this file as JSON, even if the export fails or is interrupted.",
)
@click.option("--quiet", is_flag=True, help="Show no progress, and write only problems to standard error.")
@filter_options
@client_options
def export_command(
    corporation_ids: tuple[str, ...],
    source: str | None,
    output: str,
    format_name: str | None,
    fresh: bool,
    shard: Shard | None,
    limiter: RateLimiter | None,
    commit_every: int,
    escape_formulas: bool,
    summary_path: Path | None,
    quiet: bool,
    client: ClientOptions,
    **options: Any,
) -> int:
    """
    Write all customers of many corporations to a file or a database, each exactly once.

    If the export stops early, run the same command again: it resumes. Only an export to standard output starts again from
    the beginning. The environment variable COMMENDA_API_TOKEN must hold the token.

    Exit codes: 0 done; 1 the whole export failed; 2 usage error, or the output is complete, in use or damaged; 3 some
    corporations failed, or some rows are invalid; 130 or 143 interrupted.

    \b
    Examples:
      commenda-customers export --corporation corp_1 --corporation corp_2 --output customers.jsonl.gz
      commenda-customers export --corporations-from corporations.txt --output customers.db --summary-json summary.json
      commenda-customers export --corporations-from corporations.txt --shard 2/8 --rate 10/s --output shard-2.csv
      commenda-customers export --corporation corp_1 --has-exemption --output - | wc -l
    """  # noqa: D301 - click does not join the lines after its mark
    if summary_path is not None and output != "-" and os.path.realpath(summary_path) == os.path.realpath(output):
        raise usage_error("--summary-json and --output are the same file: the summary would replace the customers")
    corporations = read_corporations(corporation_ids, source, shard)
    sink = make_sink(output, format_name, fresh=fresh, escape_formulas=escape_formulas)
    settings = _Settings(client, limiter, commit_every, summary_path, quiet)
    options = {"errors": "collect", "invalid_customers": "collect", **options}
    try:
        return anyio.run(_export, corporations, sink, settings, options)
    except KeyboardInterrupt as exc:  # without a signal handler
        abort = click.Abort()
        add_notes(abort, [_HOW_TO_RESUME])
        raise abort from exc


@dataclass(frozen=True)
class _Settings:
    """The options that do not go to `api.stream`."""

    client: ClientOptions
    limiter: RateLimiter | None
    commit_every: int
    summary_path: Path | None
    quiet: bool


async def _export(corporations: Sequence[str], sink: Sink, settings: _Settings, options: Mapping[str, Any]) -> int:
    """Export, and return the exit code."""
    to_stdout = isinstance(sink, StandardOutput)
    monitor = Monitor(math.inf if to_stdout else _MOST_INVALID_SHOWN)
    stop = Stop()
    first_response = FirstResponse(settings.client.seconds_to_first_response)
    outage = Outage(stop, len(corporations))
    api = settings.client.client(monitor, first_response, outage, rate_limit=settings.limiter)
    with usage_errors():
        api.stream(corporations, **options)  # only checks the options

    # Standard output has each page at once, so the summary counts each page.
    commit_every = 1 if to_stdout else settings.commit_every
    job = ExportJob(api, sink, commit_every=commit_every, on_progress=monitor.advance)
    work = partial(first_response.limit, api, partial(job.run, corporations, **options))
    shares_terminal = isinstance(sink, StandardOutput) and sink.may_be_seen
    display = Display(monitor, api, corporations=len(corporations), shares_terminal=shares_terminal)
    error: Exception | None = None
    async with entered(settings.limiter), api, anyio.create_task_group() as tasks:
        await tasks.start(stop.watch_signals, display.end)
        if not settings.quiet:
            tasks.start_soon(display.run)
        error = await stop.outcome_of(work)
        tasks.cancel_scope.cancel()
    return _conclude(job.summary(), error, sink, settings)


def _conclude(summary: Summary, error: Exception | None, sink: Sink, settings: _Settings) -> int:
    """Report the end of the export. Return the exit code, or raise the error."""
    to_stdout = isinstance(sink, StandardOutput)
    if to_stdout and isinstance(error, BrokenPipeError):
        give_up_output()  # the program that reads the pipe has ended, as `head` does
        return 0

    if not isinstance(error, OutputRefusedError):
        say_summary(summary, error, Place.of(sink), only_problems=settings.quiet)
    if settings.summary_path is not None:
        try:
            write_summary(settings.summary_path, summary, error)
        except OSError as exc:
            if error is None:
                raise
            say(f"error: {exc}")
    if isinstance(error, Interrupted):
        say("interrupted" if to_stdout else f"interrupted; {_HOW_TO_RESUME}")
        return error.exit_code
    if error is not None:
        if summary.customers and not to_stdout:
            add_notes(error, [_HOW_TO_RESUME])
        raise error

    return 3 if summary.failures or summary.invalid_customers else 0
