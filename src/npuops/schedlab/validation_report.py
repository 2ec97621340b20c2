"""How near the simulator comes to the kernel: cell by cell, and in the figures that were promised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.schedlab.comparison import progress_by_task
from npuops.schedlab.outcome import Outcome

SCHEMA: Final = "npuops.hostsched.validation/1"
MOST_POINTS: Final = 5.0
"""Promised: mean error of the SLO share over held-out cells, in points."""
LEAST_RANK: Final = 0.9
"""Promised: rank correlation of the SLO share over held-out cells."""
EQUAL_POINTS: Final = 1.0
"""SLO shares nearer than this are one rank: both hopeless, or both perfect."""


class Side(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one of the two said of a cell: means over its plays, of the p99 the median.

    Attributes:
        slo_points: requests answered in time, in percent; None without requests.
        spread_points: how far a single play lies from the mean, on average; None with one play.
        p99_ms: of the response times.
        worst_progress: of the slowest batch task, relative to the default in the same mix; None without.
        switches_per_s: of all tasks.
        plays: so many.
    """

    slo_points: float | None
    spread_points: float | None
    p99_ms: float | None
    worst_progress: float | None
    switches_per_s: float
    plays: int


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cell.

    Attributes:
        mix: its name.
        setting: its name.
        held_out: nothing was fitted to it.
        speed: of the CPUs in the kernel's plays, 1 as calibrated; the simulator was told.
        unclean: kernel plays among those counted that others disturbed.
        kernel: what the kernel did.
        simulator: what the simulator said.
    """

    mix: str
    setting: str
    held_out: bool
    speed: float
    unclean: int
    kernel: Side
    simulator: Side

    @property
    def error_points(self) -> float | None:
        """Of the simulator's SLO share; None without requests."""
        if self.kernel.slo_points is None or self.simulator.slo_points is None:
            return None
        return self.simulator.slo_points - self.kernel.slo_points


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of some cells together; each None where too few have it.

    Attributes:
        cells: with requests.
        mean_error_points: mean of the SLO share's absolute error.
        worst_error_points: the largest.
        rank: Spearman's, of the SLO share.
        p99_error: median of the larger p99 over the smaller, less 1.
        progress_error: mean absolute error of the worst progress.
        spread_points: what the kernel itself differs by from play to play.
    """

    cells: int
    mean_error_points: float | None
    worst_error_points: float | None
    rank: float | None
    p99_error: float | None
    progress_error: float | None
    spread_points: float | None


class ClosedForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A case whose answer can be worked out by hand.

    Attributes:
        what: it is.
        expected: by hand.
        kernel: what it did.
        simulator: what it said.
        unit: of the three.
    """

    what: str
    expected: float
    kernel: float
    simulator: float
    unit: str


class Validation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it.

    Attributes:
        kernel: its release.
        rules: figures of the simulator that are measured, by name, in ns.
        fitted: whether they were fitted to the cells that are not held out.
        rows: the cells.
        held_out: figures of the cells that nothing is fitted to.
        all: of all cells.
        closed_forms: cases worked out by hand.
        repeated: plays that were thrown away because others disturbed them.
        skipped: what could not be played, and why.
        complete: False if it was interrupted.
        schema: of this document.
    """

    kernel: str
    rules: dict[str, int]
    fitted: bool
    rows: tuple[Row, ...]
    held_out: Figures
    all: Figures
    closed_forms: tuple[ClosedForm, ...]
    repeated: int
    skipped: tuple[str, ...]
    complete: bool
    schema: str = SCHEMA


class Plays(msgspec.Struct, frozen=True, kw_only=True):
    """The plays of a cell, as they were judged.

    Attributes:
        mix: its name.
        setting: its name.
        held_out: nothing is fitted to it.
        speed: of the CPUs on the kernel, 1 as calibrated.
        kernel: on the kernel.
        simulator: in the simulator.
    """

    mix: str
    setting: str
    held_out: bool
    speed: float
    kernel: tuple[Outcome, ...]
    simulator: tuple[Outcome, ...]


def rows_of(plays: Sequence[Plays], default: str) -> tuple[Row, ...]:
    """One for each cell that was played on both sides; `default` names the setting that progress is relative to."""
    bases = {each.mix: each for each in plays if each.setting == default}
    return tuple(
        Row(
            mix=each.mix,
            setting=each.setting,
            held_out=each.held_out,
            speed=each.speed,
            unclean=sum(not one.is_clean for one in each.kernel),
            kernel=_side(each.kernel, bases[each.mix].kernel if each.mix in bases else ()),
            simulator=_side(each.simulator, bases[each.mix].simulator if each.mix in bases else ()),
        )
        for each in plays
        if each.kernel and each.simulator
    )


def _side(outcomes: Sequence[Outcome], defaults: Sequence[Outcome]) -> Side:
    points = np.array([100 * one.slo_share for one in outcomes if one.slo_share is not None])
    late = [one.p99_us / 1000 for one in outcomes if one.p99_us is not None]
    by_seed = {one.seed: one for one in defaults}
    pairs = [(one, by_seed[one.seed]) for one in outcomes if one.seed in by_seed]
    progress = [min(shares.values()) for pair in pairs if (shares := progress_by_task(*pair))]
    return Side(
        slo_points=float(points.mean()) if len(points) else None,
        spread_points=float(np.abs(points - points.mean()).mean()) if len(points) > 1 else None,
        p99_ms=float(np.median(late)) if late else None,
        worst_progress=float(np.mean(progress)) if progress else None,
        switches_per_s=float(np.mean([one.switches * 1e6 / one.duration_us for one in outcomes])),
        plays=len(outcomes),
    )


def figures(rows: Sequence[Row]) -> Figures:
    """Of these cells together."""
    pairs = [(row, error) for row in rows if (error := row.error_points) is not None]
    errors = np.abs([error for _, error in pairs])
    shares = np.array([(row.kernel.slo_points, row.simulator.slo_points) for row, _ in pairs], float).reshape(-1, 2)
    late = [(row.kernel.p99_ms, row.simulator.p99_ms) for row in rows]
    ratios = [max(one, other) / min(one, other) - 1 for one, other in late if one and other]
    worst = [(row.kernel.worst_progress, row.simulator.worst_progress) for row in rows]
    progress = [abs(one - other) for one, other in worst if one is not None and other is not None]
    spreads = [row.kernel.spread_points for row in rows if row.kernel.spread_points is not None]
    return Figures(
        cells=len(pairs),
        mean_error_points=float(errors.mean()) if len(errors) else None,
        worst_error_points=float(errors.max()) if len(errors) else None,
        rank=spearman(shares[:, 0], shares[:, 1]),
        p99_error=float(np.median(ratios)) if ratios else None,
        progress_error=float(np.mean(progress)) if progress else None,
        spread_points=float(np.mean(spreads)) if spreads else None,
    )


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Rank correlation; shares within `EQUAL_POINTS` are of one rank. None if one side has no two ranks."""
    ranks, others = _ranks(np.round(one / EQUAL_POINTS)), _ranks(np.round(other / EQUAL_POINTS))
    if len(one) < 2 or np.ptp(ranks) == 0 or np.ptp(others) == 0:
        return None
    return float(np.corrcoef(ranks, others)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: NDArray[np.float64] = (ends - (counts + 1) / 2)[place]
    return means


def report_lines(found: Validation) -> Iterator[str]:
    """As text: a table of each mix, then the figures and whether they are as promised."""
    by_mix: defaultdict[str, list[Row]] = defaultdict(list)
    for row in found.rows:
        by_mix[row.mix].append(row)
    for mix, rows in by_mix.items():
        width = max(len(row.setting) for row in rows)
        yield f"{mix:{width}}  SLO %: kernel  sim  error   p99 ms: kernel     sim   worst batch: kernel  sim   CPU pace"
        yield from (_row_line(row, width) for row in rows)
        yield ""
    for case in found.closed_forms:
        told = ", ".join(f"{who} {figure:.4g}" for who, figure in (("kernel", case.kernel), ("sim", case.simulator)))
        yield f"{case.what}: {case.expected:.4g} {case.unit} by hand; {told}"
    yield from _figure_lines("held out", found.held_out)
    yield from _figure_lines("all cells", found.all)
    yield (
        "rules: "
        + ", ".join(f"{name} {value}" for name, value in found.rules.items())
        + (" (fitted to the cells marked f)" if found.fitted else "")
    )
    if found.repeated:
        yield f"{found.repeated} plays were thrown away: others took more than 5 % of their CPUs"
    disturbed = sum(row.unclean for row in found.rows)
    if disturbed:
        yield f"{disturbed} plays that are counted were disturbed all the same: cells marked ~"
    yield from (f"not played: {why}" for why in found.skipped)
    if not found.complete:
        yield "interrupted: these are the plays until then"
    yield from goal_lines(found.held_out)


def goal_lines(held_out: Figures) -> Iterator[str]:
    """Met or missed."""
    error, rank = held_out.mean_error_points, held_out.rank
    if error is not None:
        verdict = "met" if error <= MOST_POINTS else "missed"
        yield f"{verdict}: mean SLO error {error:.1f} points, promised {MOST_POINTS:g} at most"
    if rank is not None:
        verdict = "met" if rank >= LEAST_RANK else "missed"
        yield f"{verdict}: rank correlation {rank:.2f}, promised {LEAST_RANK:g} at least"


def _row_line(row: Row, width: int) -> str:
    kernel, sim = row.kernel, row.simulator
    marks = ("" if row.held_out else "f") + ("~" if row.unclean else "")
    error = "" if row.error_points is None else f"{row.error_points:+.1f}"
    return (
        f"{row.setting:{width}} {marks:2}{_cell(kernel.slo_points, 12)}{_cell(sim.slo_points, 5)}{error:>7}"
        f"{_cell(kernel.p99_ms, 17)}{_cell(sim.p99_ms, 8)}"
        f"{_cell(kernel.worst_progress, 22, 2)}{_cell(sim.worst_progress, 5, 2)}{row.speed:11.3f}"
    )


def _figure_lines(whose: str, found: Figures) -> Iterator[str]:
    if found.mean_error_points is None:
        return
    rank = "-" if found.rank is None else f"{found.rank:.2f}"
    late = "-" if found.p99_error is None else f"{100 * found.p99_error:.0f} %"
    progress = "-" if found.progress_error is None else f"{found.progress_error:.2f}"
    spread = "" if found.spread_points is None else f" (the kernel from itself: {found.spread_points:.1f})"
    yield (
        f"{whose}: {found.cells} cells, SLO error mean {found.mean_error_points:.1f} points{spread},"
        f" worst {found.worst_error_points:.1f}; rank {rank}; p99 off by {late} in the median;"
        f" worst progress by {progress}"
    )


def _cell(value: float | None, width: int, digits: int = 1) -> str:
    return f"{'-' if value is None else format(value, f'.{digits}f'):>{width}}"
