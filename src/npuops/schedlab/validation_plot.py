"""The simulator against the kernel, cell by cell, as a picture: on the diagonal they agree."""

from __future__ import annotations

import importlib
import io
from typing import Any, Final

from npuops.errors import MissingToolchainError
from npuops.schedlab.validation_report import MOST_POINTS, Row, Validation

_MARKS: Final = "os^Dvp*XP"


def require_matplotlib() -> Any:
    """Its module of figures.

    Raises:
        MissingToolchainError: it is not installed.
    """
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingToolchainError(
            "the picture needs matplotlib, which is not installed", advice="pip install 'npuops[hostsched]'"
        ) from error


def plot(found: Validation) -> bytes:
    """SVG: SLO shares beside each other, and response times.

    Raises:
        MissingToolchainError: without matplotlib.
    """
    figure = require_matplotlib().Figure(figsize=(11, 5.2), layout="constrained")
    slo, late = figure.subplots(1, 2)
    names = list(dict.fromkeys(row.mix for row in found.rows))
    for number, name in enumerate(names):
        rows = [row for row in found.rows if row.mix == name]
        style = {"marker": _MARKS[number % len(_MARKS)], "linestyle": "", "label": name}
        _draw(slo, [(row, row.kernel.slo_points, row.simulator.slo_points) for row in rows], style)
        _draw(late, [(row, row.kernel.p99_ms, row.simulator.p99_ms) for row in rows], style)
    slo.plot([0, 100], [0, 100], color="#888", linewidth=0.8)
    slo.fill_between(
        [0, 100], [-MOST_POINTS, 100 - MOST_POINTS], [MOST_POINTS, 100 + MOST_POINTS], color="#ccc", alpha=0.5
    )
    slo.set(
        xlabel="kernel: answered in time, %", ylabel="simulator: answered in time, %", xlim=(-3, 103), ylim=(-3, 103)
    )
    late.set(xscale="log", yscale="log", xlabel="kernel: p99, ms", ylabel="simulator: p99, ms")
    low, high = late.get_xlim()
    late.plot([low, high], [low, high], color="#888", linewidth=0.8)
    if names:
        slo.legend(fontsize=8)
    figure.suptitle(f"Simulator against Linux {found.kernel}; hollow: the simulator was fitted to it", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def _draw(axes: Any, points: list[tuple[Row, float | None, float | None]], style: dict[str, Any]) -> None:
    colour = None
    for held_out in (True, False):
        there = [(x, y) for row, x, y in points if row.held_out is held_out and x is not None and y is not None]
        if there:
            face = {} if held_out else {"markerfacecolor": "none", "label": None}
            (line,) = axes.plot(*zip(*there, strict=True), color=colour, **{**style, **face})
            colour = line.get_color()
