from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npuops.errors import DataError
from npuops.vnpu.fit_profile import Measured, fit_profile, with_effective
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
