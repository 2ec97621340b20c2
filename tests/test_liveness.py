"""Buffers that a compiler shares count once, those that it cannot share count each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from made_layers import BIG, A, B, C, X, conv, layer, tensor
from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.models.zoo import zoo_model
from npuops.vnpu.liveness import Live, live_activations
from npuops.vnpu.work import Fold, workload_of
from rule_nets import model_of

ALL = frozenset({Fold.ALL})


def live(model: Model, *, folds: frozenset[Fold] = ALL, cpu: Sequence[int] = (), number_format: str = "int8") -> Live:
    on_npu = [index not in cpu for index in range(len(model.layers))]
    return live_activations(model, workload_of(model).layers, on_npu, folds, number_format)


def test_a_clamp_behind_a_convolution_takes_no_buffer_of_its_own() -> None:
    model = model_of(conv([X], A), layer("Relu", [A], B), conv([B], C))
    assert live(model).peak_bytes == 2 * BIG


def test_every_tensor_counts_once_in_the_chips_number_format() -> None:
    model = model_of(conv([X], A), layer("Softmax", [A], B))
    assert live(model).peak_bytes == 2 * BIG
    assert live(model, number_format="w8a16").peak_bytes == 4 * BIG
    assert live(model, number_format="fp32").peak_bytes == 8 * BIG


def test_indices_keep_their_own_width() -> None:
    rows = tensor("rows", 100, dtype="int64")
    model = model_of(layer("Gather", [X, rows], A))
    assert live(model).peak_bytes == 2 * BIG + 800


def test_a_view_shares_the_buffer_and_keeps_it_alive() -> None:
    flat = tensor("flat", 1, BIG)
    model = model_of(conv([X], A), layer("Reshape", [A], flat), conv([X], B), layer("Concat", [flat, B], C))
    assert live(model).peak_bytes == 3 * BIG  # a (as flat), b and c; or x, a and b


def test_quantize_and_dequantize_are_one_tensor_of_the_chip() -> None:
    codes, back = tensor("codes", 1, 8, 10, 10, dtype="int8"), tensor("back", 1, 8, 10, 10)
    model = model_of(
        conv([X], A), layer("QuantizeLinear", [A], codes), layer("DequantizeLinear", [codes], back), conv([back], C)
    )
    assert live(model).peak_bytes == 2 * BIG


def test_a_residual_sum_goes_into_the_branch_that_ends_and_the_other_stays() -> None:
    model = model_of(conv([X], A), conv([A], B), layer("Add", [A, B], C))
    assert live(model).peak_bytes == 2 * BIG


def test_a_gate_of_its_own_needs_sixteen_bits_beside_its_input_and_the_product() -> None:
    model = model_of(conv([X], A), layer("Sigmoid", [A], B), layer("Mul", [A, B], C))
    assert live(model).peak_bytes == 4 * BIG
    assert live(model, folds=ALL | {Fold.GATE}).peak_bytes == 2 * BIG


def test_a_join_counts_whole_also_where_the_compiler_may_write_in_place() -> None:
    both = tensor("both", 1, 16, 10, 10)
    model = model_of(conv([X], A), conv([X], B), layer("Concat", [A, B], both))
    assert live(model, folds=ALL | {Fold.JOIN}).peak_bytes == 4 * BIG


def test_an_unknown_size_on_the_npu_leaves_the_peak_unknown_and_on_the_host_it_is_named() -> None:
    boxes = tensor("boxes", None, 4)
    model = model_of(conv([X], A), layer("NonMaxSuppression", [A], boxes))
    assert live(model).peak_bytes is None
    found = live(model, cpu=[1])
    assert (found.peak_bytes, found.unknown) == (2 * BIG, ("boxes",))
    dynamic = model_of(conv([tensor("x", None, 8, 10, 10)], A))
    assert live(dynamic).peak_bytes is live(dynamic, cpu=[0]).peak_bytes is None


def test_a_tensor_that_nobody_reads_is_alive_while_it_is_computed() -> None:
    unread = tensor("unread", 1, 8, 10, 10)
    model = model_of(layer("Split", [X], A, unread), conv([A], C))
    assert live(model).peak_bytes == 3 * BIG


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("mobilenet_v1_0.25_128_uint8.tflite", 96),  # 64x64x8 in, 64x64x16 out
        ("mobilenet_v2_1.0_224_int8.tflite", 1470),  # 112x112x96 in, 56x56x96 out
        ("mobilenet_v2_1.0_224_fp32.onnx", 1470),
    ],
)
def test_real_networks_peak_where_their_widest_layers_are(shared_models: Path, name: str, kib: int) -> None:
    assert live(open_model(shared_models / "vision" / name)).peak_bytes == kib * 1024


def test_folding_never_makes_the_peak_larger_than_the_models_own() -> None:
    model = open_model(zoo_model("digits-cnn").model)
    assert 0 < (live(model, number_format="fp32").peak_bytes or 0) <= (model.peak_activation_bytes or 0)
