"""The plot: what became of the requests of each second, beside the limit of a server that changes."""

from pathlib import Path

from figures import GREEN, RED, drawing

from .contenders import CONTENDERS, OURS
from .network import Network, Setting, in_virtual_time
from .servers import SCENARIOS, WITH_A_RIVAL, Scenario

SHOWN = ("Retry-After each", "AIMD", OURS)
SECONDS, REQUESTS = 250, 150
"""As far as the axes go. What is refused beyond is cut off."""


def plot(path: Path) -> None:
    """Draw three contenders, one below the other."""
    scenario = SCENARIOS[WITH_A_RIVAL]
    limits = limits_over_time(scenario)
    edges = [0.0, *(until for until, _ in limits)]
    with drawing(path, 8, 7, rows=len(SHOWN)) as axes:
        for axis, name in zip(axes, SHOWN, strict=True):
            run = in_virtual_time(scenario, CONTENDERS[name], Setting())
            admitted, refused = per_second(run.admitted), per_second(run.refused)
            total = [sum(pair) for pair in zip(admitted, refused, strict=True)]
            axis.stairs(total, fill=True, color=RED, label=f"refused (429); what is above {REQUESTS} is cut off")
            axis.stairs(admitted, fill=True, color=GREEN, label="admitted")
            axis.stairs([limit for _, limit in limits], edges, baseline=None, color="black", label="the server's limit")
            axis.set_title(f"{name}: {len(run.refused)} refused, {run.seconds:.0f} s", loc="left", weight="bold")
            axis.set_ylabel("requests per second")
            axis.set_xlim(0, SECONDS)
            axis.set_ylim(0, REQUESTS)
        axes[-1].set_xlabel("seconds")
        handles, labels = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def per_second(moments: list[float]) -> list[int]:
    """Count how many there are in each second."""
    counts = [0] * SECONDS
    for moment in moments:
        if moment < SECONDS:
            counts[int(moment)] += 1
    return counts


def limits_over_time(scenario: Scenario) -> list[tuple[float, float]]:
    """Return the requests per second that the server takes: (until when, how many)."""
    known = Network(scenario, Setting(), 0).server.known()
    ends = [when for when, _ in scenario.changes] + [float(SECONDS)]
    factors = [1.0] + [factor for _, factor in scenario.changes]
    return [(end, factor * known.limit / known.per) for end, factor in zip(ends, factors, strict=True)]
