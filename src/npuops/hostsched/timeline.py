"""What happened over time, small enough to draw: CPU shares and levels of the busiest tasks, in text and as SVG.

Both are made without any library; a PNG is the command line's business (matplotlib).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.hostsched.frame import RUN_NS, Frame, Task, TaskId
from npuops.hostsched.plan import NORMAL, Plan

COLUMNS: Final = 72
MOST_TASKS: Final = 12
_SHADES: Final = " .:-=+*#%@"
COLOURS: Final = (
    "#27a",
    "#c33",
    "#2a7",
    "#c80",
    "#75b",
    "#0aa",
    "#a55",
    "#888",
    "#5a2",
    "#d5a",
    "#36d",
    "#963",
)
_WIDTH: Final = 760
_LEFT: Final = 150
_LANE: Final = 34
_TOP: Final = 44


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """One task over time.

    Attributes:
        task: whom.
        command: its name.
        shares: CPU share in each column, 0 to 1; NaN where it was not there.
        levels: name of the level that held at the end of each column; "" where it was not there.
    """

    task: TaskId
    command: str
    shares: NDArray[np.float64]
    levels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Lanes of the busiest tasks, over columns of equal time.

    Attributes:
        seconds: from the first look to the last.
        lanes: the busiest first.
        left_out: tasks for which there was no lane.
    """

    seconds: float
    lanes: tuple[Lane, ...]
    left_out: int


def timeline(
    looks: Iterable[tuple[Frame, Plan]], columns: int = COLUMNS, *, wanted: Callable[[Task], bool] | None = None
) -> Timeline:
    """Sum a trace up.

    Args:
        looks: frames with the plan that held after each, in order.
        columns: over which its time is spread.
        wanted: tasks to draw; None for all.
    """
    seen = list(looks)
    if not seen:
        return Timeline(0.0, (), 0)
    first, last = seen[0][0].at_us, seen[-1][0].at_us
    long_us = max(last - first, 1)
    sums: dict[TaskId, _Sum] = {}
    before: dict[TaskId, tuple[int, int]] = {}
    looked = set()
    for frame, plan in seen:
        column = min((frame.at_us - first) * columns // long_us, columns - 1)
        looked.add(column)
        now: dict[TaskId, tuple[int, int]] = {}
        for place, task in enumerate(frame.tasks):
            if wanted is not None and not wanted(task):
                continue
            ran = int(frame.counters[place, RUN_NS])
            now[task.id] = (frame.at_us, ran)
            one = sums.setdefault(task.id, _Sum(task.command, np.zeros(columns), np.zeros(columns), [""] * columns))
            one.levels[column] = plan.levels.get(task.id, NORMAL).name
            if (old := before.get(task.id)) is not None and frame.at_us > old[0]:
                one.run[column] += max(ran - old[1], 0)
                one.time[column] += (frame.at_us - old[0]) * 1000
        before = now
    for column in set(range(max(looked))) - looked:
        later = min(each for each in looked if each > column)  # a look tells of the time since the one before it
        for one in sums.values():
            one.run[column], one.time[column], one.levels[column] = one.run[later], one.time[later], one.levels[later]
    busiest = sorted(sums, key=lambda task: (-float(sums[task].run.sum()), task))
    lanes = [
        Lane(task, sums[task].command, _filled(sums[task].run, sums[task].time), tuple(sums[task].levels))
        for task in busiest[:MOST_TASKS]
    ]
    return Timeline(long_us / 1e6, tuple(lanes), max(len(busiest) - MOST_TASKS, 0))


@dataclass(slots=True)
class _Sum:
    """Of one task, in each column: nanoseconds run, nanoseconds seen, level at the end."""

    command: str
    run: NDArray[np.float64]
    time: NDArray[np.float64]
    levels: list[str]


def _filled(run: NDArray[np.float64], time: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.where(time > 0, run / time, np.nan), 0.0, 1.0)


def text_timeline(line: Timeline) -> str:
    """A line of shades for each task, and below it what was not normal; "" without tasks."""
    if not line.lanes:
        return ""
    signs = _level_signs(line.lanes)
    rows = [f"{'':>24}   share of a CPU: '{_SHADES[1]}' little to '{_SHADES[-1]}' all of it"]
    for lane in line.lanes:
        label = f"{lane.command[:15]} {lane.task.tid}"
        rows.append(f"{label:>24} |{''.join(_shade(share) for share in lane.shares)}|")
        if any(name not in {"", NORMAL.name} for name in lane.levels):
            rows.append(f"{'':>24} |{''.join(signs.get(name, ' ') for name in lane.levels)}|")
    width = len(line.lanes[0].levels)
    end = f"{line.seconds:.1f} s"
    rows.append(f"{'':>24}  0{end:>{width - 1}}")
    if signs:
        rows.append(f"{'':>24}  " + "  ".join(f"{sign} {name}" for name, sign in signs.items()))
    if line.left_out:
        rows.append(f"{'':>24}  and {line.left_out} tasks that ran less")
    return "\n".join(rows)


def _shade(share: float) -> str:
    if np.isnan(share):
        return " "
    return _SHADES[0] if share < 0.005 else _SHADES[1 + min(int(share * (len(_SHADES) - 1)), len(_SHADES) - 2)]


def _level_signs(lanes: Sequence[Lane]) -> dict[str, str]:
    """A letter for each level that appears: its first one that is free."""
    signs: dict[str, str] = {}
    for name in sorted({name for lane in lanes for name in lane.levels} - {"", NORMAL.name}):
        letters = [c for c in name + "abcdefghijklmnopqrstuvwxyz" if c.isalnum() and c not in signs.values()]
        signs[name] = letters[0]
    return signs


def svg_timeline(line: Timeline, title: str) -> str:
    """One SVG file that loads nothing: a lane for each task, shares as an area, levels as bars below."""
    height = _TOP + _LANE * len(line.lanes) + 40
    names = sorted({name for lane in line.lanes for name in lane.levels} - {"", NORMAL.name})
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"',
        f'width="{_WIDTH}" height="{height}" font-size="11" role="img" aria-label="{html.escape(title)}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="18" font-size="14">{html.escape(title)}</text>',
    ]
    for place, name in enumerate(names):
        left = _LEFT + 110 * place
        parts.append(f'<text x="{left}" y="34" fill="{colours[name]}">■ {html.escape(name)}</text>')
    for place, lane in enumerate(line.lanes):
        parts += _svg_lane(lane, _TOP + _LANE * place, colours)
    floor = _TOP + _LANE * len(line.lanes)
    for tick in range(5):
        x = _LEFT + (_WIDTH - _LEFT - 20) * tick / 4
        parts.append(f'<path d="M{x:.1f} {_TOP}V{floor + 4}" stroke="#ccc"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{line.seconds * tick / 4:.3g} s</text>')
    if line.left_out:
        parts.append(f'<text x="10" y="{floor + 34}">and {line.left_out} tasks that ran less</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _svg_lane(lane: Lane, top: int, colours: dict[str, str]) -> list[str]:
    step = (_WIDTH - _LEFT - 20) / max(len(lane.levels), 1)
    floor, room = top + 24, 20
    label = html.escape(f"{lane.command[:15]} {lane.task.tid}")
    parts = [f'<text x="{_LEFT - 8}" y="{floor - 6}" text-anchor="end">{label}</text>']
    for column, (share, level) in enumerate(zip(lane.shares, lane.levels, strict=True)):
        x = _LEFT + column * step
        if share > 0.005:  # also false for NaN
            y = floor - room * share
            size = f'width="{step:.2f}" height="{room * share:.1f}"'
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="#9ab"/>')
        if level in colours:
            parts.append(f'<rect x="{x:.1f}" y="{floor + 1}" width="{step:.2f}" height="5" fill="{colours[level]}"/>')
    return parts
