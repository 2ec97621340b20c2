"""The plot of what happened over time: in text at the end, and as .svg, or .png where matplotlib is installed."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any, Final

import numpy as np

from npuops.artifacts.disk import storage_errors
from npuops.errors import MissingToolchainError, OptionError
from npuops.events import Event
from npuops.hostsched.agent_facts import Stepped
from npuops.hostsched.frame import Frame
from npuops.hostsched.plan import NORMAL, Plan
from npuops.hostsched.timeline import COLOURS, Timeline, svg_timeline, timeline
from npuops.report.output_file import refuse_place, write_output

TITLE: Final = "CPU share of the busiest tasks, and their levels"
_MOST_LOOKS: Final = 4096


class Looks:
    """An observer that keeps looks for a plot: all of a short run, evenly fewer of a long one."""

    def __init__(self) -> None:
        self._kept: list[tuple[Frame, Plan]] = []
        self._every = 1
        self._seen = 0

    def __call__(self, event: Event) -> None:
        """Keep a step, perhaps."""
        if not isinstance(event, Stepped):
            return
        if self._seen % self._every == 0:
            self._kept.append((event.state.frame, event.plan))
        self._seen += 1
        if len(self._kept) >= _MOST_LOOKS:
            self._kept = self._kept[::2]
            self._every *= 2

    def timeline(self) -> Timeline:
        """Of what was kept."""
        return timeline(self._kept)


def refuse_plot(path: Path) -> None:
    """Call it before the work.

    Raises:
        OptionError: neither .svg nor .png.
        MissingToolchainError: .png without matplotlib.
        UsageError: nothing can be written there.
    """
    if path.suffix not in {".svg", ".png"}:
        raise OptionError(f"{path} is neither .svg nor .png", advice="name a file that ends so")
    if path.suffix == ".png":
        _matplotlib()
    refuse_place(path)


def write_plot(path: Path, line: Timeline) -> None:
    """Draw it.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_output(path, _png(line) if path.suffix == ".png" else svg_timeline(line, TITLE).encode())


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingToolchainError(
            "a .png needs matplotlib, which is not installed",
            advice="take .svg, or pip install 'npuops[hostsched]'",
        ) from error


def _png(line: Timeline) -> bytes:
    figure = _matplotlib().Figure(figsize=(10, 1.2 + 0.6 * max(len(line.lanes), 1)), layout="constrained")
    axes = figure.subplots(max(len(line.lanes), 1), 1, sharex=True, squeeze=False)[:, 0]
    names = sorted({name for lane in line.lanes for name in lane.levels} - {"", NORMAL.name})
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    for axis, lane in zip(axes, line.lanes, strict=False):
        edges = np.linspace(0.0, line.seconds, len(lane.shares) + 1)
        axis.stairs(np.nan_to_num(lane.shares), edges, fill=True, color="#9ab")
        for column, level in enumerate(lane.levels):
            if level in colours:
                axis.axvspan(edges[column], edges[column + 1], ymax=0.12, color=colours[level])
        axis.set_ylim(0, 1)
        axis.set_yticks([])
        axis.set_ylabel(f"{lane.command[:15]}\n{lane.task.tid}", rotation=0, ha="right", va="center", parse_math=False)
    axes[-1].set_xlabel("s")
    figure.suptitle("   ".join([TITLE, *(f"{name}: {colour}" for name, colour in colours.items())]), fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
