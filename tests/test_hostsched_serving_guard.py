"""Whatever a policy wants of a served model, the guard keeps it within bounds, patient, and reversible."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.hostsched.serving_forecast import ServingForecast, candidates_of, forecast, spills_of
from npuops.hostsched.serving_guard import OPTIONS, ServingGuard
from npuops.hostsched.serving_policies import CurveScorer
from npuops.hostsched.serving_state import DeviceLoad, ServingFrame, ServingSetting
from npuops.runtime.batch_curve import BatchCurve

OWN = ServingSetting(10_000.0, 100)
DEVICE = DeviceLoad(BatchCurve(((1, 2_500.0), (8, 6_000.0), (32, 18_000.0))), 1.0)
PROMISE = ServingForecast(0.0, 0.0, 100.0, 5_000.0, 1_000.0)


def frame(at_us: int = 0, *, setting: ServingSetting = OWN, late: int = 0, **rest: object) -> ServingFrame:
    values = {"arrived": 100, "in_time": 100 - late, "refused": 0, "waiting": 3, "devices": (DEVICE,), **rest}
    return ServingFrame(at_us=at_us, seconds=0.1, slo_us=15_000, late=late, setting=setting, **values)  # type: ignore[arg-type]


settings_ = st.builds(ServingSetting, st.floats(1.0, 1e9), st.integers(1, 1 << 20), st.floats(0.0, 1e9))
SLOW = DeviceLoad(BatchCurve(((1, 12_000.0),)), 1.0)


@given(st.lists(settings_, min_size=1, max_size=20))
def test_no_queue_gets_longer_than_the_owner_said_and_no_run_longer_than_the_slo(wishes: list[ServingSetting]) -> None:
    guard, present = ServingGuard(OWN), OWN
    for turn, wish in enumerate(wishes):
        present = guard.allow(frame(turn * 1_000_000, setting=present), wish, None)
        assert present.queue_requests <= OWN.queue_requests
        assert present.budget_us <= 15_000
        assert present.spill_us <= 15_000


@given(st.lists(settings_, min_size=2, max_size=30), st.integers(1_000, 300_000))
def test_a_setting_stays_for_its_dwell(wishes: list[ServingSetting], step_us: int) -> None:
    guard, present, changed_us = ServingGuard(OWN), OWN, None
    for turn, wish in enumerate(wishes):
        at_us = turn * step_us
        found = guard.allow(frame(at_us, setting=present), wish, None)
        if found != present:
            assert changed_us is None or present == OWN or at_us - changed_us >= OPTIONS.dwell_us
            present, changed_us = found, at_us


def test_forecasts_that_do_not_come_true_bring_the_own_rule_back_for_a_while() -> None:
    guard, other = ServingGuard(OWN), ServingSetting(6_000.0, 8, 5_000.0)
    for turn in range(OPTIONS.surprises):
        found = guard.allow(frame(turn * 100_000, setting=other, late=90), other, PROMISE)
    assert (found, guard.paused) == (OWN, True)
    later = OPTIONS.surprises * 100_000 + OPTIONS.pause_us
    assert guard.allow(frame(later), other, PROMISE) == other


def test_without_a_device_that_was_measured_nothing_is_changed() -> None:
    scorer = CurveScorer(OWN)
    for devices in ((), (DeviceLoad(BatchCurve(()), 1.0),)):
        assert scorer.decide(frame(devices=devices)) == OWN
    assert ServingGuard(OWN).allow(frame(devices=()), ServingSetting(1.0, 1), None) == OWN


@given(st.floats(0, 1e6), st.floats(0.2, 8.0), st.integers(1_000, 1_000_000), st.integers(0, 5_000))
@example(rate=5e-324, pace=1.0, slo_us=1_000, waiting=0)
def test_every_forecast_is_a_share_and_no_candidate_asks_for_more_places(
    rate: float, pace: float, slo_us: int, waiting: int
) -> None:
    seen = frame(devices=(DeviceLoad(DEVICE.curve, pace), SLOW), waiting=waiting)
    candidates = candidates_of(seen.devices, slo_us, OWN, 1.1)
    for each in [spilled for one in candidates for spilled in spills_of(seen.devices, slo_us, one)]:
        found = forecast(seen, each, rate, 1.1)
        assert 0 <= found.miss_share <= 1
        assert 0 <= found.goodput <= rate
        assert each.queue_requests <= OWN.queue_requests


def test_a_spill_that_is_none_is_refused() -> None:
    for spill_us in (-1.0, float("inf"), float("nan")):
        with pytest.raises(OptionError):
            ServingSetting(1.0, 1, spill_us)


def test_only_a_device_that_the_router_leaves_out_is_worth_a_spill_and_only_within_the_slo() -> None:
    lone = ServingSetting(1.0, 8)
    assert spills_of([DEVICE, DEVICE], 15_000, lone) == [lone]
    assert spills_of([DEVICE, SLOW], 15_000, lone) == [lone, ServingSetting(1.0, 8, 1.25 * 9_500)]
    assert spills_of([DEVICE, SLOW], 11_000, lone) == [lone]
    assert spills_of([DEVICE, SLOW], 15_000, ServingSetting(18_000.0, 8)) == [ServingSetting(18_000.0, 8)]


def test_a_device_that_the_router_leaves_out_adds_nothing_to_a_forecast_until_it_is_spilled_to() -> None:
    lone = ServingSetting(1.0, 4)
    alone, both = (forecast(frame(devices=each), lone, 1_000, 1.1) for each in ((DEVICE,), (DEVICE, SLOW)))
    assert alone == both
    spilled = forecast(frame(devices=(DEVICE, SLOW)), ServingSetting(1.0, 4, 9_500.0), 1_000, 1.1)
    assert spilled.capacity == pytest.approx(alone.capacity + 1e6 / 12_000 / 1.1)
    assert spilled.miss_share < alone.miss_share
