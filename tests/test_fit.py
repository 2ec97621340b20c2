from __future__ import annotations

import sys

import numpy as np
import pytest

from npuops.errors import DataError, MissingToolchainError
from npuops.vnpu.fit import fit_chip
from npuops.vnpu.perf import RATES, Geometry, Table
from npuops.vnpu.prior import COMMON_RATIOS, Prior, broad_covariance, nominal_logs, prior_from, ratios_of
from npuops.vnpu.work import Fold
from npuops.vnpu.work_kinds import Kind
from perf_nets import dense, move, net

NOTHING = np.full(len(RATES), -np.inf)
AT = {name: index for index, name in enumerate(RATES)}
DEPTHWISE = {"kind": Kind.DEPTHWISE, "columns": 1, "depth": 9, "channels": 1}
NETS = [
    net(*[dense(f"c{index}", rows=196 * size) for index in range(depth)], *[move(elements=elements)] * moves)
    for size, depth, elements, moves in [(1, 2, 1000, 1), (4, 3, 9000, 2), (16, 2, 100_000, 1), (1, 20, 500, 3)]
] + [net(*[dense(f"d{index}", groups=64 * size, **DEPTHWISE) for index in range(4)]) for size in (1, 8, 32)]


def start() -> Prior:
    return prior_from(nominal_logs(1.0, 10.0, {}), ratios_of(COMMON_RATIOS), siblings=False)


def test_rows_that_the_law_explains_are_explained() -> None:
    truth = start().mean + 0.8
    geometry = Geometry(sram_bytes=100_000)
    cases = [(workload, "int8") for workload in NETS]
    us = Table(cases, geometry).case_us(truth)
    fitted = fit_chip(cases, us, geometry, start(), NOTHING)
    predicted = Table(cases, geometry.folding(fitted.folds)).case_us(fitted.log_rates)
    assert np.abs(predicted / us - 1).max() < 0.05


def test_the_folding_that_explains_the_rows_is_found() -> None:
    nets = [net(*[dense(f"c{i}") for i in range(3)], *[move(f"m{i}", 10**6, fold=Fold.JOIN)] * i) for i in range(6)]
    geometry = Geometry(sram_bytes=1 << 30, folds=frozenset({Fold.ALL, Fold.JOIN}))
    cases = [(workload, "int8") for workload in nets]
    us = Table(cases, geometry).case_us(start().mean)
    assert Fold.JOIN in fit_chip(cases, us, geometry, start(), NOTHING).folds
    moving = Table(cases, geometry.folding(frozenset({Fold.ALL}))).case_us(start().mean)
    assert Fold.JOIN not in fit_chip(cases, moving, geometry, start(), NOTHING).folds


def test_one_wild_row_does_not_lead_the_others_astray() -> None:
    geometry = Geometry(sram_bytes=100_000)
    cases = [(workload, "int8") for workload in NETS]
    us = Table(cases, geometry).case_us(start().mean)
    us[0] *= 20
    fitted = fit_chip(cases, us, geometry, start(), NOTHING)
    predicted = Table(cases, geometry.folding(fitted.folds)).case_us(fitted.log_rates)
    assert np.abs(predicted[1:] / us[1:] - 1).max() < 0.2


def test_no_array_becomes_faster_than_its_peak() -> None:
    floor = NOTHING.copy()
    floor[AT["mac.dense"]] = 0.0
    cases = [(workload, "int8") for workload in NETS]
    us = np.full(len(cases), 1.0)
    fitted = fit_chip(cases, us, Geometry(), start(), floor)
    assert fitted.log_rates[AT["mac.dense"]] >= 0


def test_without_rows_of_a_kind_the_prior_speaks() -> None:
    cases = [(net(dense()), "int8")]
    truth = start().mean
    fitted = fit_chip(cases, Table(cases, Geometry()).case_us(truth), Geometry(), start(), NOTHING)
    assert fitted.log_rates == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_latency_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="above 0"):
        fit_chip([(net(dense()), "int8")], np.array([bad]), Geometry(), start(), NOTHING)


def test_the_broad_covariance_is_one() -> None:
    covariance = broad_covariance()
    assert np.allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_a_missing_scipy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingToolchainError) as raised:
        fit_chip([(net(dense()), "int8")], np.array([1.0]), Geometry(), start(), NOTHING)
    assert "npuops[fit]" in raised.value.advice
