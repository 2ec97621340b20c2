"""Plots of an experiment, as SVG and PNG: rivals on each mix side by side, and single plays over time.

matplotlib is loaded when something is drawn.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from npuops.eevdf.mix import Mix
from npuops.errors import MissingToolchainError
from npuops.hostsched.plan import NORMAL
from npuops.hostsched.timeline import COLOURS
from npuops.report.output_file import write_output
from npuops.schedlab.comparison import Estimate
from npuops.schedlab.experiment_figures import Standing
from npuops.schedlab.played import Film, Played
from npuops.schedlab.program_figures import ProgramStanding
from npuops.schedlab.rival_names import DEFAULT, place_of

_SMOOTH: Final = 3
"""Columns of a film that one point of its line spans."""
_LANE: Final = 0.22
_LEVELS: Final = {"demote": 0, "idle": 1, "boost": 2, "reserve 25 %": 3, "reserve 50 %": 4, "fifo": 5}
"""Colours of levels, so that all plots agree."""


def draw(
    folder: Path,
    plays: Sequence[Played],
    standings: Sequence[Standing],
    mixes: Mapping[str, Mix],
    programs: Sequence[ProgramStanding] = (),
) -> list[Path]:
    """All plots of an experiment into a folder.

    Returns:
        The files.

    Raises:
        MissingToolchainError: no matplotlib.
        StorageError: a file cannot be written.
    """
    written = []
    if any(one.compared is not None for one in standings):
        written += _write(folder / "rivals", bars(standings))
    if any(one.plays for one in programs):
        written += _write(folder / "programs", program_bars(programs))
    filmed = [played for played in plays if played.film is not None and played.mix in mixes]
    for mix in dict.fromkeys(played.mix for played in filmed):
        these = sorted((one for one in filmed if one.mix == mix), key=lambda one: place_of(one.label))
        if any(sum(one.film.arrivals) for one in these if one.film is not None):
            written += _write(folder / f"over-time-{mix}", over_time(mixes[mix], these))
    return written


def bars(standings: Sequence[Standing]) -> Any:
    """Panels for each mix that was played: the share in time and the worst job, of each rival, with its interval."""
    rows = [
        _Row(one.mix, one.label, one.compared.slo_share, one.compared.worst_task_progress)
        for one in standings
        if one.compared is not None
    ]
    return _side_by_side(rows, "requests in time, %", "worst job, % of its default")


def program_bars(standings: Sequence[ProgramStanding]) -> Any:
    """Likewise for each load of real programs: the share in time, and what is left to the batch side."""
    rows = [_Row(one.load, one.label, one.slo_share, one.batch_share) for one in standings if one.plays]
    return _side_by_side(rows, "requests in time, %", "batch, % of its default")


class _Row(NamedTuple):
    load: str
    label: str
    left: Estimate | None
    right: Estimate | None


def _side_by_side(rows: Sequence[_Row], left: str, right: str) -> Any:
    """Two panels for each load, with these titles."""
    loads = list(dict.fromkeys(row.load for row in rows))
    heights = [sum(row.load == load for row in rows) for load in loads]
    figure = _figure(figsize=(12, 0.9 + sum(height * _LANE + 0.9 for height in heights)))
    panels = figure.subplots(len(loads), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, load in zip(panels, loads, strict=True):
        these = [row for row in rows if row.load == load]
        labels = [row.label for row in these]
        for axis, title, figures in (
            (axes[0], left, [row.left for row in these]),
            (axes[1], right, [row.right for row in these]),
        ):
            _panel(axis, labels, figures)
            axis.set_title(f"{load}: {title}", fontsize=9, loc="left")
        axes[1].set_yticklabels([])
    return figure


def _panel(axis: Any, labels: Sequence[str], figures: Sequence[Estimate | None]) -> None:
    rows = np.arange(len(labels))
    medians = [100 * one.median if one is not None else np.nan for one in figures]
    reach = [
        (100 * (one.median - one.low), 100 * (one.high - one.median)) if one is not None else (0.0, 0.0)
        for one in figures
    ]
    colours = ["#888" if label.startswith(DEFAULT) else "#c80" if "oracle" in label else "#27a" for label in labels]
    axis.barh(rows, np.nan_to_num(medians), color=colours, height=0.7)
    axis.errorbar(np.nan_to_num(medians), rows, xerr=np.array(reach).T, fmt="none", ecolor="#333", capsize=2, lw=0.8)
    axis.set_yticks(rows, labels, fontsize=7)
    axis.set_xlim(0, max(105.0, float(np.nanmax([*medians, 0.0])) * 1.05))
    axis.tick_params(axis="x", labelsize=7)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)


def over_time(mix: Mix, plays: Sequence[Played]) -> Any:
    """A panel for each rival: its share of requests in time, phases as lines, and below what was done to whom."""
    films = [(one.label, one.film) for one in plays if one.film is not None]
    players = [player.name for player in mix.players]
    heights = [2.0 + _LANE * 4 * len(_acted(film, players)) / 2 for _, film in films]
    figure = _figure(figsize=(11, 0.8 + sum(heights) * 0.6))
    panels = figure.subplots(len(films), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (label, film) in zip(panels, films, strict=True):
        _film(axis, mix, film, _acted(film, players))
        axis.set_title(label, fontsize=9, loc="left")
    panels[-1].set_xlabel("s")
    used = sorted({action.level for _, film in films for action in film.actions} - {NORMAL.name}, key=_place)
    handles = [_patch(_colour(level), level) for level in used]
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=7, frameon=False)
    figure.suptitle(f"{mix.name}: share of requests in time, and what was done", fontsize=10, x=0.01, ha="left")
    return figure


def _film(axis: Any, mix: Mix, film: Film, acted: Sequence[str]) -> None:
    arrivals, kept = (np.convolve(column, np.ones(_SMOOTH), "same") for column in (film.arrivals, film.in_slo))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(arrivals > 0, 100 * kept / arrivals, np.nan)
    axis.plot((np.arange(len(shares)) + 0.5) * film.bin_us / 1e6, shares, color="#27a", lw=1.2)
    for start in mix.starts_us()[1:-1]:
        axis.axvline(start / 1e6, color="#999", lw=0.8, ls=":")
    lanes = [-20.0 - 18.0 * number for number in range(len(acted))]
    for lane, player in zip(lanes, acted, strict=True):
        for start_us, end_us, name in _spans(film, player, mix.duration_us):
            axis.broken_barh([(start_us / 1e6, (end_us - start_us) / 1e6)], (lane - 7, 14), color=_colour(name))
    axis.set_yticks([0, 50, 100, *lanes], ["0", "50", "100 %", *acted], fontsize=7)
    axis.set_ylim(min([-5.0, *(lane - 10 for lane in lanes)]), 105)
    axis.set_xlim(0, mix.duration_us / 1e6)


def _acted(film: Film, players: Sequence[str]) -> list[str]:
    touched = {action.player for action in film.actions}
    return [player for player in players if player in touched]


def _spans(film: Film, player: str, end_us: int) -> Iterator[tuple[int, int, str]]:
    """From when to when it had a level that is not normal."""
    since, name = 0, NORMAL.name
    for action in film.actions:
        if action.player != player:
            continue
        if name != NORMAL.name:
            yield since, action.at_us, name
        since, name = action.at_us, action.level
    if name != NORMAL.name:
        yield since, end_us, name


def _place(level: str) -> tuple[int, str]:
    return _LEVELS.get(level, len(_LEVELS)), level


def _colour(level: str) -> str:
    if level in _LEVELS:
        return COLOURS[_LEVELS[level]]
    return COLOURS[len(_LEVELS) + sum(level.encode()) % (len(COLOURS) - len(_LEVELS))]


def _patch(colour: str, label: str) -> Any:
    return _matplotlib("matplotlib.patches").Patch(color=colour, label=label)


def _figure(*, figsize: tuple[float, float]) -> Any:
    return _matplotlib("matplotlib.figure").Figure(figsize=figsize, layout="constrained")


def _matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingToolchainError(
            "plots need matplotlib, which is not installed", advice="pip install 'npuops[hostsched]'"
        ) from error


def _write(path: Path, figure: Any) -> list[Path]:
    written = []
    for kind in ("svg", "png"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=110)
        target = path.with_name(f"{path.name}.{kind}")
        write_output(target, buffer.getvalue())
        written.append(target)
    return written
