import os
from dataclasses import replace

import numpy as np
import pytest

from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import SchedPolicy
from npuops.events import Event, StepProgressed, Warned
from npuops.hostsched.knobs import KnobError, read_setting
from npuops.schedlab.load_program import calibrate, load_program
from npuops.schedlab.outcome import Outcome, judge
from npuops.schedlab.recording import Origin
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.stage import open_stage
from npuops.schedlab.validate import FITTED, Bench, local_rules, pace, play_kernel, simulate
from npuops.schedlab.validation_cases import closed_forms
from npuops.schedlab.validation_cells import Cell, cells, mix_of, treatment_of


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(load_program())


def cell(mix: str = "interactive", setting: str = "default", seconds: float = 0.5) -> Cell:
    return Cell(mix_of(mix, seconds), treatment_of(setting))


def test_the_simulator_is_asked_what_the_kernel_is_asked() -> None:
    alike = simulate(cell(), 3, Rules())
    again = simulate(cell(), 3, Rules())
    other = simulate(cell(), 4, Rules())
    assert np.array_equal(alike.of("A").done_ns, again.of("A").done_ns)
    assert not np.array_equal(alike.of("A").arrivals_ns, other.of("A").arrivals_ns)


def test_a_setting_counts_in_the_simulator() -> None:
    shares = [
        judge(simulate(cell(setting=name, seconds=4.0), 1, Rules())).slo_share for name in ("default", "others idle")
    ]
    assert shares[0] is not None
    assert shares[1] is not None
    assert shares[1] > shares[0] + 0.3


def test_a_session_counts_in_the_simulator() -> None:
    shares = [
        judge(simulate(cell("apart", name, 4.0), 1, Rules())).slo_share
        for name in ("default", "group -10", "A nice -10")
    ]
    assert shares[0] is not None
    assert shares[1] is not None
    assert shares[1] > shares[0] + 0.3
    assert shares[2] == pytest.approx(shares[0], abs=0.1)


def test_a_slow_processor_makes_dear_requests() -> None:
    """What made the loudest cell of the fact sheet: near saturation a few percent of speed are most of the SLO."""
    shares = [
        judge(simulate(cell("burst", "hogs idle", 4.0), 1, Rules(), speed=speed)).slo_share
        for speed in (1.0, 0.97, 0.9)
    ]
    quick, plain, slow = (share or 0.0 for share in shares)
    assert quick > plain > slow
    assert quick - slow > 0.5


def test_the_pace_is_what_was_done_in_the_time() -> None:
    nominal = pace(simulate(cell(seconds=2.0), 1, Rules(switch_cost_ns=0)))
    slow = pace(simulate(cell(seconds=2.0), 1, Rules(switch_cost_ns=0), speed=0.5))
    assert nominal == pytest.approx(1.0, abs=0.01)
    assert slow == pytest.approx(0.5, abs=0.01)


def test_fitting_finds_the_cost_that_a_kernel_has() -> None:
    dear = replace(local_rules(), switch_cost_ns=6_000, cache_refill_ns=80_000)
    chosen = cells(["burst", "interactive"], [treatment_of(name) for name in ("default", "hogs nice 19")], 2.0)
    bench = Bench(chosen, 1, 1, 0, Calibration(compute_per_ms=1_000_000, scan_per_ms=1_000_000))
    for one in chosen:
        bench.kernel[one] = [(judge(simulate(one, 0, dear), one.treatment.name), 1.0)]
    before = bench.report(fitted=False, complete=True).all.mean_error_points
    bench.fit()
    after = bench.report(fitted=True, complete=True).all.mean_error_points
    assert before is not None
    assert after is not None
    assert after < before
    untouched = replace(bench.rules, **{name: getattr(dear, name) for name in FITTED})
    assert untouched == dear


@pytest.mark.slow
def test_the_kernel_plays_what_the_simulator_plays(calibration: Calibration) -> None:
    found = play_kernel(cell(), 3, calibration)
    beside = simulate(cell(), 3, Rules())
    assert found.origin is Origin.KERNEL
    assert np.array_equal(found.of("A").arrivals_ns, beside.of("A").arrivals_ns)
    assert 0 < pace(found) < 2


@pytest.mark.slow
def test_each_player_has_its_setting_before_the_mix_begins(calibration: Calibration) -> None:
    treatment = treatment_of("nice=3@A,idle@H*")
    mix = mix_of("interactive", 0.5)
    with open_stage(mix, 0, calibration=calibration) as stage:
        assert read_setting(stage.pids["H0"]).policy is SchedPolicy.OTHER
    assert judge(play_kernel(Cell(mix, treatment), 0, calibration)).parts


@pytest.mark.slow
def test_plays_are_kept_one_by_one_and_what_is_refused_is_told(calibration: Calibration) -> None:
    events: list[Event] = []
    kept: list[Outcome] = []
    refused = Cell(mix_of("interactive", 0.5), treatment_of("reserve 1/4"))  # pinned: no privilege helps
    if (os.cpu_count() or 1) == 1:
        pytest.skip("one CPU only: no task is pinned to a part of them")
    bench = Bench([cell(), refused], 1, 1, 0, calibration, observer=events.append, keep=kept.append)
    bench.play()
    found = bench.report(fitted=False, complete=True)
    assert [row.setting for row in found.rows] == ["default"]
    assert [outcome.setting for outcome in kept] == ["default"]
    assert len(found.skipped) == 1
    assert any(isinstance(event, Warned) for event in events)
    assert sum(isinstance(event, StepProgressed) for event in events) == 2


@pytest.mark.slow
def test_cases_worked_out_by_hand_come_out_in_the_simulator(calibration: Calibration) -> None:
    try:
        found = list(closed_forms(calibration, local_rules()))
    except KnobError as refused:
        pytest.skip(f"this process may not set nice values: {refused}")
    assert len(found) == 2
    for case in found:
        assert case.simulator == pytest.approx(case.expected, rel=0.05)
        assert case.kernel > 0
