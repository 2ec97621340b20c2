"""The layer view of TFLite, judged by the MACs that another counter found (shared/models/MODELS.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.models.open import open_model

MEGA_MACS = {
    "vision/mobilenet_v2_1.0_224_int8.tflite": 300.8,
    "vision/mobilenet_v1_0.25_224_fp32.tflite": 41.0,
    "vision/mobilenet_v1_0.25_224_uint8.tflite": 41.0,
    "vision/ssd_mobilenet_v1_300_uint8.tflite": 728.0,
    "vision/deeplabv3_mnv2_dm05_513_uint8.tflite": 867.5,
    "vision/edsr_f32b5_fp32.tflite": 54792.8,
    "vision/edsr_f32b5_int8.tflite": 54792.8,
    "vision/mobilenet_v1_0.25_128_uint8.tflite": 13.6,
    "tiny/ic_resnet8_int8.tflite": 12.5,
    "tiny/ic_resnet8_fp32.tflite": 12.5,
    "tiny/vww_mobilenet_v1_96_int8.tflite": 7.5,
    "tiny/vww_mobilenet_v1_96_fp32.tflite": 7.5,
    "tiny/kws_dscnn_int8.tflite": 2.7,
    "tiny/kws_dscnn_fp32.tflite": 2.7,
    "tiny/ad_autoencoder_int8.tflite": 0.3,
    "tiny/ad_autoencoder_fp32.tflite": 0.3,
    "tiny/sww_1dcnn_int8.tflite": 0.8,
    "tiny/person_detect_int8.tflite": 7.2,
    "audio/kwt1_transformer_fp32.tflite": 98.9,
    "audio/dtln_1_dynq.tflite": 0.4,
    "audio/dtln_2_dynq.tflite": 0.6,
}


@pytest.mark.parametrize(("name", "mega"), MEGA_MACS.items())
def test_macs_agree_with_an_independent_count(name: str, mega: float, shared_models: Path) -> None:
    model = open_model(shared_models / name)
    assert model.macs is not None
    assert round(model.macs / 1e6, 1) == mega
    assert model.weight_bytes < model.file_bytes


def test_shapes_that_the_file_leaves_out_are_inferred(shared_models: Path) -> None:
    model = open_model(shared_models / "vision/mobilenet_edgetpu_224_uint8.tflite")
    assert model.outputs[0].shape == (1, 1001)
    assert all(tensor.is_static and tensor.shape for layer in model.layers for tensor in layer.outputs)
    assert model.macs == 990_670_464


def test_an_lstm_counts_its_gates(shared_models: Path) -> None:
    """28 steps, four gates, 28 inputs and 20 units; then 28*20 → 10."""
    model = open_model(shared_models / "tiny/lstm_mnist_int8.tflite")
    assert model.macs == 28 * 4 * (28 * 20 + 20 * 20) + 28 * 20 * 10


def test_two_formats_of_one_network_cost_the_same(shared_models: Path) -> None:
    for part in ("1", "2"):
        tflite = open_model(shared_models / f"audio/dtln_{part}_dynq.tflite")
        onnx = open_model(shared_models / f"audio/dtln_{part}_fp32.onnx")
        assert tflite.macs == onnx.macs


def test_a_compiled_graph_is_recognized_and_its_cost_is_unknown(shared_models: Path) -> None:
    model = open_model(shared_models / "tiny/person_detect_vela.tflite")
    assert model.op_histogram == {"CUSTOM:ethos-u": 1}
    assert model.macs is None
    assert "already-compiled" in {fact.kind for fact in model.facts}


def test_a_custom_operator_is_a_fact(shared_models: Path) -> None:
    model = open_model(shared_models / "vision/ssd_mobilenet_v1_300_uint8.tflite")
    fact = next(fact for fact in model.facts if fact.kind == "custom-op")
    assert "TFLite_Detection_PostProcess" in fact.message
    assert model.peak_activation_bytes is None
