"""The plot: what became of the requests of each second, beside the limit of a server that changes."""

from dataclasses import dataclass
from pathlib import Path

from .contenders import CONTENDERS, OURS
from .network import Network, Run, Setting, in_virtual_time
from .servers import SCENARIOS, WITH_A_RIVAL, Scenario

SHOWN = ("Retry-After each", "AIMD", OURS)
SECONDS, REQUESTS = 250, 150
"""As far as the axes go. What is refused beyond is cut off."""

LEFT, TOP, STEP = 70, 74, 190
"""Pixels: where the first panel begins, and from one to the next."""
X, Y = 2.8, 0.9
"""Pixels per second, and per request in a second."""
ADMITTED, REFUSED = "#2f8f6b", "#e07a5f"

TITLE = "Requests per second beside the limit of a server"
DESCRIPTION = (
    "Three programs read from a server that admits 50 requests per second, and 25 while a rival takes its half. "
    "With Retry-After obeyed by each request alone, many times as many requests are refused as admitted. With AIMD the "
    "admitted requests rise and fall like a saw. With AdaptiveLimiter they follow the limit, and hardly any is refused."
)


@dataclass
class Panel:
    """One contender's run, drawn from *top* to its time axis."""

    name: str
    run: Run
    top: float

    @property
    def bottom(self) -> float:
        """Where no request is."""
        return self.top + Y * REQUESTS

    def y(self, requests: float) -> float:
        """Return where so many requests are."""
        return round(self.bottom - Y * min(requests, REQUESTS), 1)

    def draw(self, limits: list[tuple[float, float]]) -> list[str]:
        """Return the panel as SVG."""
        admitted, refused = per_second(self.run.admitted), per_second(self.run.refused)
        total = [sum(pair) for pair in zip(admitted, refused, strict=True)]
        caption = f"{self.name}: {len(self.run.refused)} refused, {self.run.seconds:.0f} s"
        middle = self.top + Y * REQUESTS / 2
        label = f'<text transform="translate(22 {middle:.0f}) rotate(-90)" text-anchor="middle">requests per second</text>'
        return [
            f'<text x="{LEFT}" y="{self.top - 8:.0f}" font-weight="bold">{caption}</text>',
            label,
            self._area(total, REFUSED),
            self._area(admitted, ADMITTED),
            *self._axes(),
            self._limit(limits),
        ]

    def _area(self, counts: list[int], color: str) -> str:
        steps = "".join(f"V{self.y(count):g}h{X:g}" for count in counts)
        return f'<path fill="{color}" d="M{LEFT} {self.bottom:g}{steps}V{self.bottom:g}z"/>'

    def _axes(self) -> list[str]:
        right = LEFT + X * SECONDS
        axes = [f'<path fill="none" stroke="#444" d="M{LEFT} {self.top:g}V{self.bottom:g}H{right:g}"/>']
        for requests in range(0, REQUESTS + 1, 50):
            y = self.y(requests)
            axes += [
                f'<path stroke="#444" d="M{LEFT} {y:g}h-5"/>',
                f'<text x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{requests}</text>',
            ]
        for second in range(0, SECONDS + 1, 50):
            x = LEFT + X * second
            axes += [
                f'<path stroke="#444" d="M{x:g} {self.bottom:g}v5"/>',
                f'<text x="{x:g}" y="{self.bottom + 18:g}" text-anchor="middle">{second}</text>',
            ]
        return axes

    def _limit(self, limits: list[tuple[float, float]]) -> str:
        points = "".join(f"V{self.y(limit):g}H{LEFT + X * until:g}" for until, limit in limits)
        start = f"M{LEFT} {self.y(limits[0][1]):g}"
        return f'<path fill="none" stroke="#000" stroke-width="2" d="{start}{points}"/>'


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


def legend() -> list[str]:
    """Explain the colors."""
    entries = (
        (LEFT, ADMITTED, 10, "admitted"),
        (LEFT + 110, REFUSED, 10, f"refused (429); what is above {REQUESTS} is cut off"),
        (LEFT + 450, "#000", 2, "the server's limit"),
    )
    lines: list[str] = []
    for x, color, height, text in entries:
        lines += [
            f'<rect x="{x}" y="{30 - height / 2:g}" width="22" height="{height}" fill="{color}"/>',
            f'<text x="{x + 28}" y="35">{text}</text>',
        ]
    return lines


def plot(path: Path) -> None:
    """Draw three contenders, one below the other."""
    scenario = SCENARIOS[WITH_A_RIVAL]
    limits = limits_over_time(scenario)
    parts: list[str] = []
    for index, name in enumerate(SHOWN):
        run = in_virtual_time(scenario, CONTENDERS[name], Setting())
        parts += Panel(name, run, TOP + STEP * index).draw(limits)
    height = TOP + STEP * len(SHOWN)
    center = LEFT + X * SECONDS / 2
    parts.append(f'<text x="{center:g}" y="{height - 14}" text-anchor="middle">seconds</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {height}" font-family="sans-serif" font-size="13" '
        'role="img" aria-labelledby="title description">'
    )
    about = [f'<title id="title">{TITLE}</title>', f'<desc id="description">{DESCRIPTION}</desc>']
    lines = [head, *about, '<rect width="100%" height="100%" fill="#fff"/>', *legend(), *parts, "</svg>", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
