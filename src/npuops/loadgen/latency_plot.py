"""Latency against load, drawn: in text for a terminal, and as SVG. Both axes of the text are labelled; latency is
logarithmic, because the end of a server's range is ten times slower, not ten milliseconds slower.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from npuops.loadgen.percentiles import LatencySummary
from npuops.loadgen.results import StageResult

WIDTH: Final = 60
HEIGHT: Final = 14
_SVG: Final = (720, 420)
_MARGIN: Final = (70, 20, 30, 60)
"""Left, right, top, bottom."""
_STEPS: Final = (1, 2, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve: points of load (requests a second) and latency (ms)."""

    name: str
    sign: str
    colour: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A range on a length; `log` for a logarithmic one."""

    low: float
    high: float
    length: float
    log: bool

    def at(self, value: float) -> float:
        """Where the value lies, from 0 to `length`."""
        low, high, place = (
            (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.length * (place - low) / (high - low)


def lines(stages: Sequence[StageResult]) -> tuple[Line, ...]:
    """p50, p95 and p99 of every stage that has them; load is what was answered, in an open loop what was asked for."""
    wanted: tuple[tuple[str, str, str, Callable[[LatencySummary], float | None]], ...] = (
        ("p50", "o", "#2a7", lambda latency: latency.p50_ms),
        ("p95", "+", "#c80", lambda latency: latency.p95_ms),
        ("p99", "#", "#c33", lambda latency: latency.p99_ms),
    )
    opened = [stage for stage in stages if stage.load.kind == "open"]
    shown = opened or stages  # load means another thing in each; a search for the capacity has one closed stage
    found = []
    for name, sign, colour, read in wanted:
        points = [
            (_load(stage), value)
            for stage in sorted(shown, key=_asked)
            if stage.latency is not None and (value := read(stage.latency)) is not None and value > 0
        ]
        if points:
            found.append(Line(name=name, sign=sign, colour=colour, points=tuple(points)))
    return tuple(found)


def _asked(stage: StageResult) -> float:
    """The order along the curve: beyond a server's best, more in flight may mean less answered."""
    return float(stage.load.concurrency or 0) if stage.load.rate is None else stage.load.rate


def _load(stage: StageResult) -> float:
    return stage.throughput if stage.load.rate is None else stage.load.rate


def text_plot(stages: Sequence[StageResult]) -> str:
    """The plot as lines of text, or "" with fewer than two points on each curve."""
    drawn = lines(stages)
    if not any(len(line.points) > 1 for line in drawn):
        return ""
    across, up = _axes(drawn, WIDTH - 1, HEIGHT - 1)
    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    for line in drawn:
        for load, latency in line.points:
            cells[HEIGHT - 1 - round(up.at(latency))][round(across.at(load))] = line.sign
    labels = {HEIGHT - 1 - round(up.at(value)): f"{value:g}" for value in _log_ticks(up)}
    rows = [f"{labels.get(row, ''):>8} |{''.join(cell).rstrip()}" for row, cell in enumerate(cells)]
    ticks = _linear_ticks(across)
    scale = [" "] * (WIDTH + 10)
    for value in ticks:
        label = f"{value:g}"
        place = round(across.at(value))
        scale[place : place + len(label)] = label
    keys = "  ".join(f"{line.sign} {line.name}" for line in drawn)
    return "\n".join(
        [
            f"      ms   {keys}",
            *rows,
            f"{'':8} +{'-' * WIDTH}",
            f"{'':10}{''.join(scale).rstrip()}  req/s",
        ]
    )


def svg_plot(stages: Sequence[StageResult], title: str) -> str:
    """The plot as one SVG file that loads nothing; points without a line where a curve has one."""
    drawn = lines(stages)
    width, height = _SVG
    left, right, top, bottom = _MARGIN
    across, up = _axes(drawn, width - left - right, height - top - bottom)
    floor = height - bottom
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"',
        f'width="{width}" height="{height}" font-size="12" role="img" aria-label="{html.escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="18" font-size="14">{html.escape(title)}</text>',
    ]
    for value in _log_ticks(up):
        y = floor - up.at(value)
        parts.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _linear_ticks(across):
        x = left + across.at(value)
        parts.append(f'<path d="M{x:.1f} {floor}v5" stroke="#333"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 20}" text-anchor="middle">{value:g}</text>')
    for place, line in enumerate(drawn):
        points = [(left + across.at(load), floor - up.at(latency)) for load, latency in line.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{line.colour}"/>' for x, y in points]
        x = width - right - 60 * (len(drawn) - place)
        parts.append(f'<text x="{x}" y="18" fill="{line.colour}">● {line.name}</text>')
    parts += [
        f'<path d="M{left} {top}V{floor}H{width - right}" fill="none" stroke="#333"/>',
        f'<text x="{(width + left - right) / 2:g}" y="{height - 14}" text-anchor="middle">requests/s</text>',
        f'<text x="16" y="{height / 2:g}" text-anchor="middle" transform="rotate(-90 16 {height / 2:g})">ms</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axes(drawn: Sequence[Line], width: float, height: float) -> tuple[Axis, Axis]:
    loads = [load for line in drawn for load, _ in line.points] or [1.0]
    latencies = [latency for line in drawn for _, latency in line.points] or [1.0]
    return (
        Axis(low=0.0, high=max(loads) * 1.05 or 1.0, length=width, log=False),
        Axis(low=min(latencies) * 0.8, high=max(latencies) * 1.25, length=height, log=True),
    )


def _log_ticks(axis: Axis) -> list[float]:
    lowest, highest = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
    all_steps = [step * 10.0**power for power in range(lowest, highest + 1) for step in _STEPS]
    inside = [float(f"{value:.1g}") for value in all_steps if axis.low <= value <= axis.high]
    return inside if len(inside) <= 9 else [value for value in inside if f"{value:e}".startswith("1")]


def _linear_ticks(axis: Axis) -> list[float]:
    power = 10.0 ** math.floor(math.log10(axis.high / 5))
    step = next((step * power for step in (*_STEPS, 10) if axis.high / (step * power) <= 6), 10 * power)
    return [float(f"{count * step:.6g}") for count in range(int(axis.high / step) + 1)]
