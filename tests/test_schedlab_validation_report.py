import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.eevdf.mix import Doing
from npuops.schedlab.outcome import Outcome, Part
from npuops.schedlab.recording import Origin
from npuops.schedlab.validation_plot import plot
from npuops.schedlab.validation_report import (
    Figures,
    Plays,
    Validation,
    figures,
    goal_lines,
    report_lines,
    rows_of,
    spearman,
)

SHARES = st.lists(st.floats(0, 100), min_size=2, max_size=12)


def outcome(kept: int, work: float, seed: int = 0, origin: Origin = Origin.KERNEL, clean: float = 1.0) -> Outcome:
    blank = {"phase": 0, "cpu_us": 10, "voluntary": 1, "involuntary": 1}
    late = {"p50_us": 500.0, "p99_us": 2000.0, "max_us": 3000.0}
    none = {"p50_us": None, "p99_us": None, "max_us": None}
    app = Part(player="A", doing=Doing.SERVE, arrivals=100, served=100, in_slo=kept, progress=1.0, **blank, **late)
    hog = Part(player="H", doing=Doing.SCAN, arrivals=0, served=0, in_slo=0, progress=work, **blank, **none)
    share = clean if origin is Origin.KERNEL else None
    return Outcome(
        mix="m",
        seed=seed,
        setting="s",
        origin=origin,
        duration_us=1_000_000,
        clean_share=share,
        p50_us=500.0,
        p99_us=2000.0,
        parts=(app, hog),
    )


def plays(setting: str, kernel: list[Outcome], simulated: list[Outcome], *, held_out: bool = True) -> Plays:
    return Plays(
        mix="m", setting=setting, held_out=held_out, speed=0.98, kernel=tuple(kernel), simulator=tuple(simulated)
    )


def validation(rows: tuple[Plays, ...]) -> Validation:
    found = rows_of(rows, "default")
    held_out = figures([row for row in found if row.held_out])
    return Validation(
        kernel="6.18",
        rules={"switch_cost_ns": 1500},
        fitted=True,
        rows=found,
        held_out=held_out,
        all=figures(found),
        closed_forms=(),
        repeated=1,
        skipped=("m with r: refused",),
        complete=False,
    )


TWO = (
    plays(
        "default",
        [outcome(40, 8.0), outcome(50, 8.0, seed=1)],
        [outcome(47, 8.0, 0, Origin.SIMULATOR)],
        held_out=False,
    ),
    plays("nice", [outcome(90, 4.0, clean=0.5)], [outcome(87, 6.0, 0, Origin.SIMULATOR)]),
)


def test_a_cell_is_the_mean_of_its_plays_beside_the_default_of_its_side() -> None:
    default, nice = rows_of(TWO, "default")
    assert default.kernel.slo_points == 45
    assert default.kernel.spread_points == 5
    assert default.error_points == pytest.approx(2)
    assert nice.error_points == pytest.approx(-3)
    assert (nice.kernel.worst_progress, nice.simulator.worst_progress) == (0.5, 0.75)
    assert (default.unclean, nice.unclean) == (0, 1)


def test_a_cell_without_plays_of_both_sides_is_left_out() -> None:
    assert rows_of([plays("default", [outcome(1, 1.0)], [])], "default") == ()


def test_figures_say_how_far_apart_they_are() -> None:
    found = figures(rows_of(TWO, "default"))
    assert (found.cells, found.mean_error_points, found.worst_error_points) == (2, 2.5, 3)
    assert found.rank == pytest.approx(1.0)
    assert found.progress_error == pytest.approx(0.125)
    assert found.p99_error == 0


def test_nothing_played_is_no_figure_and_no_verdict() -> None:
    found = figures(())
    assert found == Figures(
        cells=0,
        mean_error_points=None,
        worst_error_points=None,
        rank=None,
        p99_error=None,
        progress_error=None,
        spread_points=None,
    )
    assert list(goal_lines(found)) == []


@given(SHARES)
def test_the_same_order_is_rank_1_and_the_reverse_is_rank_minus_1(shares: list[float]) -> None:
    values = np.array(shares)
    found = spearman(values, values)
    assert found is None or found == pytest.approx(1.0)
    reverse = spearman(values, np.round(values) * -1)
    assert reverse is None or reverse == pytest.approx(-1.0)


def test_shares_that_differ_by_noise_only_are_one_rank() -> None:
    assert spearman(np.array([0.0, 0.2, 80.0]), np.array([0.3, 0.1, 70.0])) == pytest.approx(1.0)
    assert spearman(np.array([0.0, 0.2]), np.array([0.3, 50.0])) is None


def test_the_report_names_cells_verdicts_and_what_went_wrong() -> None:
    lines = "\n".join(report_lines(validation(TWO)))
    assert "met: mean SLO error 3.0 points" in lines
    assert "fitted" in lines
    assert "not played: m with r: refused" in lines
    assert "interrupted" in lines
    assert "1 plays that are counted were disturbed" in lines


def test_a_missed_goal_is_said() -> None:
    far = [plays("default", [outcome(10, 1.0)], [outcome(90, 1.0, 0, Origin.SIMULATOR)])]
    assert any(line.startswith("missed: mean SLO error 80.0") for line in goal_lines(validation(tuple(far)).held_out))


def test_the_picture_is_svg_even_of_nothing() -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    assert b"<svg" in plot(validation(TWO))
    assert b"<svg" in plot(validation(()))
