from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.models.open import open_model
from npuops.models.zoo import zoo_model
from npuops.vnpu.work import Fold, Work, Workload, workload_of
from npuops.vnpu.work_kinds import MAC_KINDS, Kind
from rule_nets import one
from small_graphs import weight, written


def _only(folder: Path, op: str, *weights: tuple[int, ...], **attributes: object) -> Work:
    return workload_of(one(folder, op, *weights, **attributes)).layers[-1]


def _by_op(workload: Workload, op: str) -> list[Work]:
    return [layer for layer in workload.layers if layer.op == op]


@pytest.mark.parametrize("name", ["digits-cnn", "digits-transformer"])
def test_a_products_sizes_multiply_to_its_macs(name: str) -> None:
    workload = workload_of(open_model(zoo_model(name).model))
    products = [layer for layer in workload.layers if layer.kind in MAC_KINDS]
    assert products
    assert all(layer.groups * layer.rows * layer.columns * layer.depth == layer.macs for layer in products)
    assert workload.macs == open_model(zoo_model(name).model).macs


def test_real_tflite_files_give_the_macs_of_their_layers(shared_models: Path) -> None:
    for file in ("vision/mobilenet_v2_1.0_224_int8.tflite", "audio/kwt1_transformer_fp32.tflite"):
        model = open_model(shared_models / file)
        workload = workload_of(model)
        assert workload.macs == model.macs
        assert not _by_op(workload, "OTHER")


def test_convolutions_are_told_apart_by_window_and_groups(tmp_path: Path) -> None:
    assert _only(tmp_path, "Conv", (16, 8, 3, 3)).kind is Kind.DENSE
    assert _only(tmp_path, "Conv", (16, 8, 1, 1)).kind is Kind.POINTWISE
    assert _only(tmp_path, "Conv", (8, 1, 3, 3), group=8).kind is Kind.DEPTHWISE
    assert _only(tmp_path, "Conv", (16, 4, 3, 3), group=2).kind is Kind.GROUPED
    volume = _only(tmp_path, "Conv", (4, 2, 3, 3, 3), data=(1, 2, 8, 8, 8))
    assert volume.kind is Kind.VOLUMETRIC


def test_a_depthwise_filter_is_a_group_for_each_channel(tmp_path: Path) -> None:
    layer = _only(tmp_path, "Conv", (8, 1, 3, 3), group=8)
    assert (layer.groups, layer.rows, layer.columns, layer.depth) == (8, 12 * 12, 1, 9)


def test_a_matrix_with_one_row_uses_each_weight_once(tmp_path: Path) -> None:
    assert _only(tmp_path, "MatMul", (14, 5), data=(1, 14)).kind is Kind.FULLY_CONNECTED
    assert _only(tmp_path, "MatMul", (14, 5), data=(7, 14)).kind is Kind.POINTWISE


def test_two_activations_multiplied_are_attention_with_a_group_for_each_head(tmp_path: Path) -> None:
    layer = _only(tmp_path, "MatMul", data=((2, 4, 6, 8), (2, 4, 8, 6)))
    assert (layer.kind, layer.groups, layer.rows, layer.columns, layer.depth) == (Kind.ATTENTION, 8, 6, 6, 8)


def test_clamps_scales_and_residual_sums_follow_a_product(tmp_path: Path) -> None:
    text = """(float[1,8,6,6] x) => (float[1,8,6,6] y) {
      c = Conv <pads=[1,1,1,1]> (x, w)
      s = Mul (c, k)
      r = Relu (s)
      d = Conv <pads=[1,1,1,1]> (r, w)
      y = Add (d, r)
    }"""
    path = written(tmp_path / "m.onnx", text, w=weight(8, 8, 3, 3), k=np.full((1, 8, 1, 1), 2, np.float32))
    folds = {layer.op: layer.fold for layer in workload_of(open_model(path)).layers}
    assert folds == {"Conv": Fold.NO, "Mul": Fold.ALL, "Relu": Fold.ALL, "Add": Fold.ALL}


def test_the_gate_of_a_swish_is_folded_by_some_compilers_only(tmp_path: Path) -> None:
    text = """(float[1,8,6,6] x) => (float[1,8,6,6] y) {
      c = Conv <pads=[1,1,1,1]> (x, w)
      g = Sigmoid (c)
      y = Mul (c, g)
    }"""
    path = written(tmp_path / "m.onnx", text, w=weight(8, 8, 3, 3))
    folds = {layer.op: layer.fold for layer in workload_of(open_model(path)).layers}
    assert folds == {"Conv": Fold.NO, "Sigmoid": Fold.GATE, "Mul": Fold.ALL}


def test_what_stands_alone_or_joins_is_not_folded_by_all(tmp_path: Path) -> None:
    text = """(float[1,8,6,6] x) => (float[1,16,6,6] y) {
      r = Relu (x)
      y = Concat <axis=1> (r, x)
    }"""
    layers = workload_of(open_model(written(tmp_path / "m.onnx", text))).layers
    assert [layer.fold for layer in layers] == [Fold.NO, Fold.JOIN]


def test_quantizers_between_a_product_and_its_clamp_do_not_part_them(tmp_path: Path) -> None:
    text = """(float[1,8,6,6] x) => (float[1,8,6,6] y) {
      c = Conv <pads=[1,1,1,1]> (x, w)
      q = QuantizeLinear (c, scale)
      d = DequantizeLinear (q, scale)
      y = Relu (d)
    }"""
    path = written(tmp_path / "m.onnx", text, w=weight(8, 8, 3, 3), scale=np.array(0.1, np.float32))
    layers = workload_of(open_model(path)).layers
    assert [layer.fold for layer in layers] == [Fold.NO, Fold.NO, Fold.NO, Fold.ALL]
    assert [layer.kind for layer in layers[1:3]] == [Kind.FREE, Kind.FREE]
