from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npuops.errors import OptionError
from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.models.zoo import zoo_model
from npuops.units import Basis
from npuops.vnpu.predict import HOST_CALL_US, energy_of, estimate, log_rates_of
from npuops.vnpu.pricing import program_of
from npuops.vnpu.profile import Profile, load_profile, profile_names
from npuops.vnpu.profile_sections import Effective, Interval
from npuops.vnpu.work import workload_of

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
    assert found.source == "profile rk3588: fitted on rows of a test"
    plain = log_rates_of(replace(chip, effective=None))
    changed = log_rates_of(fitted(chip, overhead_layer=1000.0))
    assert np.flatnonzero(plain != changed).size == 1


def test_each_stretch_that_falls_back_costs_a_call_and_its_tensors_cross() -> None:
    model, chip = digits(), load_profile("rk3588")
    whole = estimate(workload_of(model), chip, everywhere(model))
    once = estimate(workload_of(model), chip, everywhere(model, 1, 2))
    twice = estimate(workload_of(model), chip, everywhere(model, 1, 3))
    assert once.fixed_us - whole.fixed_us == pytest.approx(HOST_CALL_US)
    assert twice.fixed_us - whole.fixed_us == pytest.approx(2 * HOST_CALL_US)
    assert once.transfer_us > whole.transfer_us
    assert [layer.runs_on for layer in once.layers[1:3]] == [RunsOn.CPU, RunsOn.CPU]
    assert {layer.bound for layer in once.layers[1:3]} == {"host"}


def test_a_format_that_the_chip_does_not_run_is_an_error() -> None:
    with pytest.raises(OptionError, match="does not run fp32"):
        estimate(workload_of(digits()), load_profile("coral-edgetpu"), everywhere(digits()), "fp32")


def test_energy_is_datasheet_power_times_modelled_time_and_says_so() -> None:
    model, chip = digits(), load_profile("hailo-8")
    found = estimate(workload_of(model), chip, everywhere(model))
    energy = energy_of(found, chip)
    assert energy.mj == pytest.approx(found.us * chip.power.busy_w.value / 1000)
    assert "datasheet power" in energy.source


@pytest.mark.parametrize("name", CHIPS)
def test_a_program_lasts_as_long_as_the_estimate_at_the_top_clock(name: str) -> None:
    model, chip = digits(), load_profile(name)
    placed = everywhere(model, 3)
    program = program_of(model, chip, placed, "int8")
    found = estimate(workload_of(model), chip, placed)
    assert program.step_ends_ns(1.0, 1.0)[-1] / 1000 == pytest.approx(found.us, rel=1e-3)
    assert program.step_ends_ns(0.5, 1.0)[-1] >= program.step_ends_ns(1.0, 1.0)[-1]
