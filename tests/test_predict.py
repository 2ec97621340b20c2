from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from npuops.errors import OptionError
from npuops.models.model import Model, TensorInfo
from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.models.zoo import zoo_model
from npuops.units import Basis
from npuops.vnpu.crossing import Border, border_of
from npuops.vnpu.power import power_w
from npuops.vnpu.predict import (
    HOST_CALL_US,
    HOST_SPREAD,
    energy_of,
    estimate,
    host_part_us,
    log_rates_of,
    uncounted,
    unpriced,
)
from npuops.vnpu.pricing import program_of
from npuops.vnpu.profile import Profile, load_profile, machine_spec, profile_names
from npuops.vnpu.profile_sections import Effective, Interval
from npuops.vnpu.work import workload_of
from npuops.vnpu.work_kinds import Kind

CHIPS = profile_names()


def digits() -> Model:
    return open_model(zoo_model("digits-cnn").model)


def everywhere(model: Model, *on_cpu: int) -> tuple[Placement, ...]:
    return tuple(
        Placement(name=one.name, op=one.op, runs_on=RunsOn.CPU if at in on_cpu else RunsOn.NPU, rule="a test")
        for at, one in enumerate(model.layers)
    )


@pytest.mark.parametrize("name", CHIPS)
def test_layers_fixed_cost_and_transfer_add_up_to_the_whole(name: str) -> None:
    model, chip = digits(), load_profile(name)
    for number_format in chip.formats:
        found = estimate(workload_of(model), chip, everywhere(model, 2), number_format)
        assert found.us == pytest.approx(sum(layer.us for layer in found.layers) + found.fixed_us + found.transfer_us)
        assert len(found.layers) == len(model.layers)
        assert found.low_us < found.us < found.high_us


def test_a_chip_that_nobody_fitted_says_so_and_has_the_widest_interval() -> None:
    model = digits()
    unfitted = replace(load_profile("intel-npu-4"), effective=None)
    found = estimate(workload_of(model), unfitted, everywhere(model))
    assert "nobody measured" in found.latency.source
    assert found.latency.basis is Basis.MODELLED
    assert found.high_us / found.low_us > 5


def fitted(chip: Profile, **rates: float) -> Profile:
    named = {name.replace("_", "."): rate for name, rate in rates.items()}
    effective = Effective(rates=named, source="fitted on rows of a test", interval=Interval(low=0.9, high=1.2))
    return replace(chip, effective=effective)


def test_fitted_rates_replace_those_of_the_data_sheet_and_their_interval_too() -> None:
    model, chip = digits(), load_profile("rk3588")
    found = estimate(workload_of(model), fitted(chip, overhead_layer=1000.0), everywhere(model))
    assert found.us > 1000
    assert (found.low_us, found.high_us) == pytest.approx((0.9 * found.us, 1.2 * found.us))
    assert found.source == "in int8, profile rk3588: fitted on rows of a test"
    plain = log_rates_of(replace(chip, effective=None))
    changed = log_rates_of(fitted(chip, overhead_layer=1000.0))
    assert np.flatnonzero(plain != changed).size == 1


def test_each_stretch_that_falls_back_costs_a_call() -> None:
    model, chip = digits(), load_profile("rk3588")
    whole = estimate(workload_of(model), chip, everywhere(model))
    once = estimate(workload_of(model), chip, everywhere(model, 1, 2))
    twice = estimate(workload_of(model), chip, everywhere(model, 1, 3))
    assert once.fixed_us - whole.fixed_us == pytest.approx(HOST_CALL_US)
    assert twice.fixed_us - whole.fixed_us == pytest.approx(2 * HOST_CALL_US)
    assert once.transfer_us == whole.transfer_us
    assert [layer.runs_on for layer in once.layers[1:3]] == [RunsOn.CPU, RunsOn.CPU]
    assert {layer.bound for layer in once.layers[1:3]} == {"host"}


def test_a_format_that_the_chip_does_not_run_is_an_error() -> None:
    with pytest.raises(OptionError, match="does not run fp32"):
        estimate(workload_of(digits()), load_profile("coral-edgetpu"), everywhere(digits()), "fp32")


def test_what_is_handed_over_goes_at_best_as_fast_as_the_dram() -> None:
    model, chip = digits(), load_profile("rk3588")
    without = estimate(workload_of(model), chip, everywhere(model, 2))
    with_it = estimate(workload_of(model), chip, everywhere(model, 2), border=Border(handed_elements=34_000_000))
    assert with_it.transfer_us - without.transfer_us >= 1000  # 34 MB at 34 GB/s
    assert with_it.us - without.us == pytest.approx(with_it.transfer_us - without.transfer_us)


def test_the_interval_holds_slow_and_fast_hosts_and_the_case_that_nothing_falls_back() -> None:
    model, chip = digits(), load_profile("rk3588")
    whole = estimate(workload_of(model), chip, everywhere(model))
    mixed = estimate(workload_of(model), chip, everywhere(model, 1, 2))
    on_host = HOST_CALL_US + sum(layer.us for layer in mixed.layers if layer.runs_on is RunsOn.CPU)
    assert chip.effective is not None
    interval = chip.effective.interval
    assert mixed.high_us == pytest.approx((mixed.us - on_host) * interval.high + on_host * HOST_SPREAD)
    assert mixed.low_us <= min(whole.low_us, (mixed.us - on_host) * interval.low + on_host / HOST_SPREAD) + 1e-9
    assert whole.us < mixed.us


def test_views_on_the_host_cost_nothing_and_call_nobody() -> None:
    model, chip = digits(), load_profile("rk3588")
    views = [at for at, work in enumerate(workload_of(model).layers) if work.kind is Kind.FREE]
    assert views
    on_npu, on_host = (estimate(workload_of(model), chip, everywhere(model, *at)) for at in ((), views))
    assert on_host.us == pytest.approx(on_npu.us)


def test_there_is_no_price_without_the_sizes_of_what_runs_on_the_npu_or_without_its_macs() -> None:
    model = digits()
    lost = TensorInfo(name="lost", dtype="float32", shape=(None, 10))
    at = len(model.layers) - 1
    loose = replace(model, layers=(*model.layers[:-1], replace(model.layers[-1], outputs=(lost,))))
    assert unpriced(model, everywhere(model)) == uncounted(model) == ()
    assert unpriced(loose, everywhere(loose)) == uncounted(loose) == (model.layers[-1].name,)
    assert unpriced(loose, everywhere(loose, at)) == ()
    strange = replace(model, layers=(*model.layers[:-1], replace(model.layers[-1], macs=None)))
    assert unpriced(strange, everywhere(strange, at)) == (model.layers[-1].name,)


@pytest.mark.parametrize(("name", "cores"), [("hailo-8", 1), ("rk3588", 3)])
def test_energy_is_datasheet_power_times_modelled_time_and_says_so(name: str, cores: int) -> None:
    model, chip = digits(), load_profile(name)
    found = estimate(workload_of(model), chip, everywhere(model))
    energy = energy_of(found, chip)
    watts = power_w(machine_spec(chip), len(chip.clock.points_mhz.value) - 1, busy_cores=1)
    assert chip.compute.cores.value == cores
    assert energy.mj == pytest.approx(found.us * watts / 1000), "the virtual device draws the same"
    assert "datasheet power" in energy.source
    assert (f"1 of {cores} cores" in energy.source) is (cores > 1)


@pytest.mark.parametrize("name", CHIPS)
def test_a_program_lasts_as_long_as_the_estimate_at_the_top_clock(name: str) -> None:
    model, chip = digits(), load_profile(name)
    placed = everywhere(model, 3)
    program = program_of(model, chip, placed, "int8")
    found = estimate(workload_of(model), chip, placed, border=border_of(model, placed))
    assert program.step_ends_ns(1.0, 1.0)[-1] / 1000 == pytest.approx(found.us, rel=1e-3)
    assert program.step_ends_ns(0.5, 1.0)[-1] >= program.step_ends_ns(1.0, 1.0)[-1]


def test_a_model_on_the_host_takes_as_long_as_the_published_one(shared_models: Path) -> None:
    """37.21 ms: MobileNetV2 on the Cortex-A55 cores of an i.MX 95."""
    model = open_model(shared_models / "vision" / "mobilenet_v2_1.0_224_int8.tflite")
    on_cpu = everywhere(model, *range(len(model.layers)))
    assert host_part_us(workload_of(model), on_cpu) == pytest.approx(37_210, rel=0.05)
