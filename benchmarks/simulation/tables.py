"""The tables, as Markdown."""

import statistics
from collections.abc import Iterable, Sequence

from .contenders import CONTENDERS, OURS
from .kinds import COMPARED, KINDS
from .markdown import percent, table
from .measure import Outcome, Results
from .network import Setting
from .servers import UNLIMITED


def contest(results: Results, servers: Iterable[str], setting: Setting) -> str:
    """Compare all contenders on each server."""
    outcomes = {server: [results.of(server, contender, setting) for contender in CONTENDERS] for server in servers}
    columns = list(zip(*outcomes.values(), strict=True))
    rows = [
        ["server", *CONTENDERS],
        *([server, *map(_cell, row)] for server, row in outcomes.items()),
        ["**mean**", *(f"{percent(_mean(column).share)} / {percent(_mean(column).refused)}" for column in columns)],
        ["**worst**", *(f"{percent(_worst(column).share)} / {percent(_worst(column).refused)}" for column in columns)],
        [UNLIMITED, *(_cell(results.of(UNLIMITED, contender, setting)) for contender in CONTENDERS)],
    ]
    return table(rows)


def breadth(results: Results, servers: Sequence[str], settings: Iterable[Setting]) -> str:
    """Show ours in other settings: all servers in each."""
    rows = [
        ["round trip", "at once", "mean share", "worst share", "mean refused", "worst refused", "worst Jain index", "lost"]
    ]
    for setting in settings:
        outcomes = [results.of(server, OURS, setting) for server in servers]
        mean, worst = _mean(outcomes), _worst(outcomes)
        rows.append(
            [
                f"{setting.round_trip * 1000:g} ms",
                str(setting.at_once),
                percent(mean.share),
                percent(worst.share),
                percent(mean.refused),
                percent(worst.refused),
                f"{worst.fairness:.3f}",
                str(worst.lost),
            ]
        )
    return table(rows)


def novelty(results: Results, kinds: dict[str, Setting]) -> str:
    """Compare some contenders on servers that do other things than keeping to one limit."""
    rows = [["server", *COMPARED]]
    for name, setting in kinds.items():
        took_part = KINDS[name].contenders
        cells = [_cell(results.of(name, contender, setting)) if contender in took_part else "" for contender in COMPARED]
        rows.append([name, *cells])
    return table(rows)


def recoveries(seconds: dict[str, list[float]], servers: Iterable[str]) -> str:
    """Show how long it takes until a limit that has risen is made use of."""
    rows = [["server", "median", "longest"]]
    rows += [[name, f"{statistics.median(seconds[name]):.1f} s", f"{max(seconds[name]):.1f} s"] for name in servers]
    return table(rows)


def _cell(outcome: Outcome) -> str:
    share = "lost" if outcome.lost else percent(outcome.share)
    return f"{share} / {percent(outcome.refused)}"


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(*(statistics.mean(values) for values in zip(*outcomes, strict=True)))


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    share, refused, fairness, lost = zip(*outcomes, strict=True)
    return Outcome(min(share), max(refused), min(fairness), sum(lost))
