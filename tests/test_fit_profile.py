from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npuops.errors import DataError
from npuops.events import Event, StepProgressed, Warned
from npuops.vnpu.fit_profile import LEAST_GROUPS, Measured, fit_profile, with_effective
from npuops.vnpu.perf import Table
from npuops.vnpu.predict import UNFITTED, log_rates_of
from npuops.vnpu.profile import Profile, geometry_of, load_profile, profile_text, read_profile
from perf_nets import dense, move, net

SIZES = [(1, 2), (2, 3), (4, 4), (8, 3), (16, 2), (1, 12), (3, 6), (6, 9), (12, 4), (24, 3)]


def board(chip: Profile, slower: float) -> list[Measured]:
    """Rows of a board that runs everything so much slower than the profile says."""
    rows = []
    for size, depth in SIZES:
        layers = [dense(f"c{index}", rows=196 * size) for index in range(depth)]
        workload = net(*layers, move(elements=10_000 * size), name=f"net-{size}-{depth}")
        us = Table([(workload, "int8")], geometry_of(chip)).case_us(log_rates_of(chip))[0] * slower
        rows.append(Measured(workload=workload, format="int8", us=float(us), group=workload.name))
    return rows


def test_ten_measurements_calibrate_a_chip_and_tell_the_error_it_will_have() -> None:
    chip = replace(load_profile("rk3588"), effective=None)
    rows = board(chip, slower=2.0)
    effective = fit_profile(chip, rows, source="a test")
    assert effective.error is not None
    assert effective.error.mape < 0.1
    assert effective.error.rows == len(rows)
    calibrated = replace(chip, effective=effective)
    for row in rows:
        table = Table([(row.workload, "int8")], geometry_of(calibrated))
        assert table.case_us(log_rates_of(calibrated))[0] == pytest.approx(row.us, rel=0.1)
    assert effective.interval.high / effective.interval.low < UNFITTED[1] / UNFITTED[0]


def test_a_few_rows_keep_the_interval_of_a_chip_that_nobody_measured() -> None:
    chip = replace(load_profile("rk3588"), effective=None)
    effective = fit_profile(chip, board(chip, slower=1.0)[:4], source="a test")
    assert (effective.interval.low, effective.interval.high) == UNFITTED


def test_too_few_rows_and_foreign_formats_are_refused() -> None:
    chip = load_profile("coral-edgetpu")
    rows = board(chip, slower=1.0)
    with pytest.raises(DataError, match="2 rows cannot calibrate"):
        fit_profile(chip, rows[:2], source="a test")
    with pytest.raises(DataError, match="10 rows cannot calibrate a chip: they are of 2 models"):
        fit_profile(chip, [replace(row, group=f"g{index % 2}") for index, row in enumerate(rows)], source="a test")
    with pytest.raises(DataError, match="does not run fp32"):
        fit_profile(chip, [*rows, replace(rows[0], format="fp32")], source="a test")


@pytest.mark.parametrize("name", ["rk3588", "intel-npu-4"])
def test_what_was_fitted_is_written_behind_the_figures_and_read_again(name: str) -> None:
    text, where = profile_text(name)
    chip = replace(read_profile(text, where=where), effective=None)
    effective = fit_profile(chip, board(chip, slower=1.5), source="a test")
    written = with_effective(text, effective)
    again = read_profile(written, where="written")
    assert again.effective is not None
    assert again.effective.folds == effective.folds
    assert again.effective.rates == pytest.approx(effective.rates, rel=1e-3)
    assert replace(again, effective=None) == chip
    assert with_effective(written, effective) == written


def test_the_peak_is_respected_whatever_the_rows_say() -> None:
    chip = replace(load_profile("rk3588"), effective=None)
    effective = fit_profile(chip, board(chip, slower=0.01), source="a test")
    assert effective.rates["mac.dense"] >= chip.nominal_us_per_mmac
    assert np.isfinite(list(effective.rates.values())).all()


def test_a_source_in_any_words_is_read_again() -> None:
    text, where = profile_text("rk3588")
    chip = read_profile(text, where=where)
    words = 'rows "of" C:\\boards\\new\n[effective]\x7f\u00e4\U0001f600.csv'
    assert chip.effective is not None
    written = with_effective(text, replace(chip.effective, source=words))
    again = read_profile(written, where="written")
    assert again.effective is not None
    assert again.effective.source == words
    assert read_profile(with_effective(text, replace(chip.effective, source="\udce4")), where="a name in no encoding")


def test_sections_behind_the_fitted_ones_are_kept() -> None:
    """A user's own profile may have its sections in any order."""
    text, where = profile_text("rk3588")
    chip = read_profile(text, where=where)
    assert chip.effective is not None
    body, fitted = text.split("[effective]")
    front, compute = body.split("[compute]")
    turned = f"{front}[effective]{fitted}\n  [compute]{compute}"
    assert read_profile(turned, where="turned") == chip
    assert read_profile(with_effective(turned, chip.effective), where="again") == chip


def test_a_row_that_the_others_contradict_is_named() -> None:
    chip = replace(load_profile("rk3588"), effective=None)
    rows = board(chip, slower=1.0)
    rows[3] = replace(rows[3], us=rows[3].us * 1000, where="rows.csv, line 5")
    heard: list[Event] = []
    fit_profile(chip, rows, source="a test", observe=heard.append)
    warned = [event for event in heard if isinstance(event, Warned)]
    assert ["rows.csv, line 5" in event.message for event in warned] == [True]
    assert len([event for event in heard if isinstance(event, StepProgressed)]) == len(rows)


@pytest.mark.slow
def test_the_interval_keeps_its_promise_for_new_models() -> None:
    """80 % are promised."""
    chip = replace(load_profile("rk3588"), effective=None)
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(6):
        rows = [replace(row, us=row.us * np.exp(rng.normal(0, 0.1))) for row in board(chip, slower=1.3)]
        effective = fit_profile(chip, rows, source="a test")
        calibrated = replace(chip, effective=effective)
        for row in board(chip, slower=1.3):
            table = Table([(row.workload, "int8")], geometry_of(calibrated))
            predicted = table.case_us(log_rates_of(calibrated))[0]
            truth = row.us * np.exp(rng.normal(0, 0.1, 20))
            inside.append(
                np.mean((truth > predicted * effective.interval.low) & (truth < predicted * effective.interval.high))
            )
    assert 0.75 < np.mean(inside) < 0.9


def test_as_few_groups_as_are_allowed_are_enough() -> None:
    chip = replace(load_profile("rk3588"), effective=None)
    assert fit_profile(chip, board(chip, slower=1.0)[:LEAST_GROUPS], source="a test").error is not None


@pytest.mark.parametrize(("slower", "warnings"), [(1000.0, 1), (0.001, 1), (1.0, 0), (3.0, 0)])
def test_rows_in_another_unit_are_noticed(slower: float, warnings: int) -> None:
    chip = replace(load_profile("rk3588"), effective=None)
    heard: list[Event] = []
    fit_profile(chip, board(chip, slower)[:LEAST_GROUPS], source="a test", observe=heard.append)
    found = [event.message for event in heard if isinstance(event, Warned) and "data sheet" in event.message]
    assert len(found) == warnings
