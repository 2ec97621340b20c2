from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.vnpu.perf import FORMATS, RATES, Geometry, Table
from npuops.vnpu.work import Fold
from npuops.vnpu.work_kinds import Kind
from perf_nets import dense, move, net

AT = {name: index for index, name in enumerate(RATES)}
BIG = Geometry(sram_bytes=1 << 30)


def rates(**changes: float) -> np.ndarray:
    """All next to nothing, but those that are given (`mac_dense` for `mac.dense`)."""
    logs = np.full(len(RATES), -30.0)
    logs[[AT[name] for name in RATES if name.split(".")[1] in FORMATS]] = 0.0
    for name, value in changes.items():
        logs[AT[name.replace("__", "-").replace("_", ".", 1)]] = np.log(value)
    return logs


def us(*layers: object, number_format: str = "int8", geometry: Geometry = BIG, **changes: float) -> float:
    return float(Table([(net(*layers), number_format)], geometry).case_us(rates(**changes))[0])  # type: ignore[arg-type]


def test_a_layer_costs_its_padded_macs_times_the_rate_of_its_kind() -> None:
    layer = dense()
    assert us(layer, mac_dense=2.0) == pytest.approx(2.0 * layer.macs / 1e6)
    odd = dense(columns=33)
    assert us(odd, mac_dense=1.0) == pytest.approx(196 * 64 * 576 / 1e6)


def test_few_input_channels_waste_the_depth_of_the_array() -> None:
    first = dense(channels=3, depth=27)
    assert us(first, mac_dense=1.0) == pytest.approx(196 * 64 * 9 * 32 / 1e6)


def test_the_slowest_of_computing_and_memory_decides_and_both_together_cost_little_more() -> None:
    layer = dense()
    compute, weights = layer.macs / 1e6, layer.weight_elements / 1e6 * 100
    both = us(layer, mac_dense=1.0, memory_weights=100.0)
    assert max(compute, weights) < both < max(compute, weights) * 2 ** (1 / 4) + 1e-6


def test_weights_and_spilled_activations_share_the_way_to_the_dram() -> None:
    half = Geometry(sram_bytes=(2 * 196 * 64 + dense().weight_elements) // 2)
    weights, spill = us(dense(), memory_weights=1e3, geometry=half), us(dense(), memory_spill=1e3, geometry=half)
    assert us(dense(), memory_weights=1e3, memory_spill=1e3, geometry=half) == pytest.approx(weights + spill)


def test_the_next_layer_is_launched_while_this_one_computes() -> None:
    compute = us(dense(), mac_dense=1.0)
    assert us(dense(), mac_dense=1.0, overhead_layer=compute / 4) == pytest.approx(compute, rel=2e-3)
    assert us(dense(), mac_dense=1.0, overhead_layer=4 * compute) == pytest.approx(4 * compute, rel=2e-3)


def test_of_wider_numbers_the_array_adds_up_fewer_at_once() -> None:
    thin = dense(channels=16, depth=144)
    assert us(thin, mac_dense=1.0) == pytest.approx(2 * thin.macs / 1e6)
    assert us(thin, mac_dense=1.0, number_format="fp16") == pytest.approx(thin.macs / 1e6)


def test_activations_that_do_not_fit_on_the_chip_are_moved() -> None:
    held = 2 * 196 * 64 + dense().weight_elements
    assert us(dense(), memory_spill=1e3, geometry=Geometry(sram_bytes=held)) == pytest.approx(0, abs=1e-6)
    half = us(dense(), memory_spill=1e3, geometry=Geometry(sram_bytes=held // 2))
    assert half == pytest.approx(2 * 196 * 64 / 1e6 * 1e3 / 2, rel=0.01)


def test_weights_stay_where_a_cache_holds_them_and_the_rest_streams() -> None:
    whole = dense().weight_elements
    streamed = us(dense(), memory_weights=1e3)
    cached = us(dense(), memory_weights=1e3, geometry=Geometry(sram_bytes=1 << 30, weight_cache_bytes=whole // 4))
    assert cached == pytest.approx(streamed * 0.75, rel=1e-6)


def test_a_format_multiplies_the_arrays_rate_and_widens_what_moves() -> None:
    layer = dense()
    assert us(layer, mac_dense=1.0, mac_fp16=3.0, number_format="fp16") == pytest.approx(3 * layer.macs / 1e6)
    int8, fp16 = (us(layer, memory_local=1.0, number_format=name) for name in ("int8", "fp16"))
    assert fp16 == pytest.approx(2 * int8)


def test_what_the_compiler_folds_costs_nothing_and_what_it_does_not_fold_is_launched() -> None:
    joined = move(fold=Fold.JOIN)
    assert us(dense(), joined, overhead_layer=5.0) == pytest.approx(10, rel=1e-3)
    folding = BIG.folding(frozenset({Fold.ALL, Fold.JOIN}))
    assert us(dense(), joined, overhead_layer=5.0, geometry=folding) == pytest.approx(5, rel=1e-3)


def test_channels_are_stored_in_lanes() -> None:
    thin = replace(move(), tensors=((900, 3), (900, 3)))
    wide = Geometry(sram_bytes=1 << 30, lanes=32)
    assert us(thin, vector_move=1.0, geometry=wide) == pytest.approx(2 * 300 * 32 / 1e6)


def test_inputs_and_outputs_cross_from_the_host() -> None:
    assert us(dense(), memory_host=1e6) == pytest.approx(1010, rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-3, 3), min_size=len(RATES), max_size=len(RATES)), st.sampled_from(FORMATS))
def test_the_gradient_is_that_of_the_latency(logs: list[float], number_format: str) -> None:
    layers = (dense(), dense(kind=Kind.DEPTHWISE, groups=64, columns=1, depth=9, channels=1), move())
    table = Table([(net(*layers), number_format), (net(dense()), "int8")], Geometry(sram_bytes=10_000))
    point = np.array(logs)
    us_, slopes = table.gradient(point)
    assert us_ == pytest.approx(table.case_us(point))
    step = 1e-6
    for at in range(len(RATES)):
        shift = np.zeros(len(RATES))
        shift[at] = step
        numeric = (table.case_us(point + shift) - table.case_us(point - shift)) / (2 * step)
        assert slopes[:, at] == pytest.approx(numeric, rel=1e-4, abs=1e-6 * float(us_.max()))


def test_cases_do_not_touch_each_other() -> None:
    workloads = [net(dense()), net(move(), dense()), net(move())]
    together = Table([(one, "int8") for one in workloads], BIG).case_us(rates(mac_dense=1.0, vector_move=2.0))
    alone = [Table([(one, "int8")], BIG).case_us(rates(mac_dense=1.0, vector_move=2.0))[0] for one in workloads]
    assert together == pytest.approx(alone)


def test_only_rates_that_matter_to_a_case_are_used() -> None:
    used = Table([(net(dense()), "int8")], BIG).used(rates(mac_dense=1.0, vector_move=5.0))
    assert used[AT["mac.dense"]]
    assert not used[AT["vector.move"]]
