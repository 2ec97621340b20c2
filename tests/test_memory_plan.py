"""A model is said to fit where it does, and every byte of it has one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from made_layers import A, B, X, conv, layer, tensor
from npuops.models.model import Model, TensorInfo
from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.models.zoo import zoo_model
from npuops.targets.report import Fit
from npuops.vnpu.figures import Figure
from npuops.vnpu.memory_plan import CACHE_SHARE, CHIP, DRAM, FLASH, POOL_SHARE, MemoryPlan, fit_of, plan_memory
from npuops.vnpu.profile import Profile, load_profile, profile_names
from npuops.vnpu.work import workload_of
from rule_nets import model_of

MIB = 2**20


def digits() -> Model:
    return open_model(zoo_model("digits-cnn").model)


def plan(model: Model, chip: Profile, number_format: str = "int8", cpu: Sequence[int] = ()) -> MemoryPlan:
    placed = [
        Placement(name=one.name, op=one.op, runs_on=RunsOn.CPU if index in cpu else RunsOn.NPU, rule="a test")
        for index, one in enumerate(model.layers)
    ]
    return plan_memory(model, workload_of(model), placed, chip, number_format)


def chip(name: str, **figures: float | None) -> Profile:
    """A bundled chip with other memories; None: it has none of those."""
    found = load_profile(name)
    changed = {key: None if value is None else Figure(value, "memory", "") for key, value in figures.items()}
    return replace(found, memory=replace(found.memory, **changed))


def fits(model: Model, profile: Profile) -> Fit:
    return fit_of(plan(model, profile), profile)


@pytest.mark.parametrize("name", profile_names())
def test_every_byte_has_one_place_and_no_place_holds_more_than_it_has(name: str) -> None:
    profile = load_profile(name)
    found = plan(digits(), profile)
    fit = fit_of(found, profile)
    assert fit.ok
    for what, whole in (("weights", found.weights_bytes), ("activations", found.peak_bytes)):
        assert sum(use.bytes for use in fit.uses if use.what == what) == whole
    assert all(0 < use.bytes <= use.limit_bytes for use in fit.uses)


def test_activations_stay_in_the_pool_up_to_its_share_and_the_rest_leaves() -> None:
    model = digits()
    peak = plan(model, chip("rk3588")).peak_bytes or 0
    roomy, tight = chip("stm32n6", pool_kib=1024.0), chip("stm32n6", pool_kib=peak / 1024)
    assert (plan(model, roomy).pooled_bytes, plan(model, roomy).spilled_bytes) == (peak, 0)
    found = plan(model, tight)
    assert found.pooled_bytes == int(peak * POOL_SHARE)
    assert found.pooled_bytes + found.spilled_bytes == peak
    assert {(use.what, use.where) for use in fit_of(found, tight).uses} >= {
        ("activations", CHIP),
        ("activations", DRAM),
    }


def test_a_chip_without_a_pool_keeps_its_activations_in_dram() -> None:
    found = plan(digits(), load_profile("rk3588"))
    assert (found.pooled_bytes, found.spilled_bytes) == (0, found.peak_bytes)


def test_weights_are_cached_in_what_activations_leave_of_the_pool() -> None:
    model = digits()
    peak, weights = (
        value or 0 for value in (plan(model, chip("rk3588")).peak_bytes, plan(model, chip("rk3588")).weights_bytes)
    )
    pool = peak + weights // 2
    found = plan(model, chip("coral-edgetpu", pool_kib=pool / 1024))
    assert found.cached_bytes == int((pool - peak) * CACHE_SHARE)
    assert found.streamed_bytes == weights - found.cached_bytes
    assert plan(model, chip("coral-edgetpu")).streamed_bytes == 0
    assert plan(model, chip("coral-edgetpu", pool_kib=peak / 2048)).cached_bytes == 0


def test_what_the_flash_cannot_hold_does_not_fit_however_much_dram_there_is() -> None:
    model = digits()
    small_flash = chip("stm32n6", flash_mib=0.01, dram_mib=1024.0)
    assert not fits(model, small_flash).ok
    assert fits(model, small_flash).note.startswith("flash would have to hold")
    small_dram = chip("stm32n6", pool_kib=1.0, dram_mib=0.001)
    assert fits(model, small_dram).note.startswith("DRAM would have to hold")
    neither = chip("stm32n6", pool_kib=1.0, dram_mib=0.001, flash_mib=0.01)
    assert "DRAM" in fits(model, neither).note
    assert "flash" in fits(model, neither).note


def test_super_resolution_whose_activations_exceed_the_board_does_not_fit_it(shared_models: Path) -> None:
    """63 MiB of activations: the sum of the board's memories would hold them, none that may hold activations does."""
    model = open_model(shared_models / "vision" / "edsr_f32b5_int8.tflite")
    assert not fits(model, load_profile("stm32n6")).ok
    assert fits(model, load_profile("rk3588")).ok


def test_a_model_that_just_fills_the_memory_is_not_said_to_fit() -> None:
    model = digits()
    found = plan(model, load_profile("rk3588"))
    need = found.weights_bytes + (found.peak_bytes or 0)
    assert not fits(model, chip("rk3588", dram_mib=need / MIB)).ok
    assert fits(model, chip("rk3588", dram_mib=2 * need / MIB)).ok


def test_every_constant_counts_once_also_tables_that_are_only_looked_up() -> None:
    table, rows = tensor("table", 30_000, 768), tensor("rows", 1, 16, dtype="int64")
    words = tensor("words", 1, 16, 768)
    one = layer("Gather", [rows], words, weights=[table])
    again = layer("Gather", [rows], tensor("more", 1, 16, 768), weights=[table])
    found = plan(model_of(one, again), load_profile("rk3588"))
    assert found.weights_bytes == 30_000 * 768


def test_a_constant_that_two_layers_use_counts_once() -> None:
    first = replace(conv([X], A), weights=(tensor("w", 8, 8, 1, 1, dtype="int8"),))
    second = replace(conv([A], B), weights=(tensor("w", 8, 8, 1, 1, dtype="int8"),))
    other = replace(second, weights=(tensor("v", 8, 8, 1, 1, dtype="int8"),))
    assert plan(model_of(first, second), load_profile("rk3588")).weights_bytes == 64
    assert plan(model_of(first, other), load_profile("rk3588")).weights_bytes == 128


def test_weights_count_in_the_chips_format_and_biases_in_32_bits() -> None:
    filters, bias = tensor("w", 8, 8, 1, 1), tensor("bias", 8)
    model = model_of(replace(conv([X], A), weights=(filters, bias)))
    assert plan(model, load_profile("rk3588")).weights_bytes == 64 + 32
    assert plan(model, load_profile("rk3588"), "fp16").weights_bytes == 128 + 32
    stored = replace(filters, dtype="int4")
    packed = model_of(replace(conv([X], A), weights=(stored,)))
    assert plan(packed, load_profile("rk3588")).weights_bytes == 32


def test_filters_of_depthwise_layers_take_what_the_chip_stores_them_in() -> None:
    filters = TensorInfo(name="w", dtype="float32", shape=(8, 1, 3, 3))
    model = model_of(replace(conv([X], A), weights=(filters,), attributes={"group": 8}, macs=72 * 100))
    assert plan(model, load_profile("rk3588")).weights_bytes == 72
    assert plan(model, load_profile("stm32n6")).weights_bytes == int(72 * 10.8)


def test_what_is_unknown_on_the_npu_is_not_said_to_fit_and_on_the_host_it_is_told() -> None:
    boxes = tensor("boxes", None, 4)
    model = model_of(conv([X], A), layer("NonMaxSuppression", [A], boxes))
    profile = load_profile("rk3588")
    unknown = fit_of(plan(model, profile), profile)
    assert not unknown.ok
    assert "--shape" in unknown.note
    assert unknown.peak_activation_bytes is None
    told = fit_of(plan(model, profile, cpu=[1]), profile)
    assert told.ok
    assert told.note == "not counted: tensors of unknown size on the host (1)"


def test_a_model_of_nothing_but_moves_has_no_weights_and_fits() -> None:
    fit = fits(model_of(layer("Relu", [X], A), layer("Relu", [A], B)), load_profile("stm32n6"))
    assert fit.ok
    assert {use.what for use in fit.uses} == {"activations"}


def test_flash_is_for_weights() -> None:
    fit = fits(digits(), load_profile("stm32n6"))
    assert {use.where for use in fit.uses if use.what == "weights"} == {FLASH}
