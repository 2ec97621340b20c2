"""Opening models: every shared one, and everything that somebody could send instead."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from hostile_models import HOSTILE, external, relu
from npuops.errors import ModelError, NpuopsError, OptionError, StorageError
from npuops.models.model import ModelFormat
from npuops.models.open import as_onnx, open_model

SHARED = [
    "audio/dtln_1_fp32.onnx",
    "audio/dtln_2_fp32.onnx",
    "graphs/light_bvlc_alexnet.onnx",
    "graphs/light_inception_v1.onnx",
    "graphs/light_inception_v2.onnx",
    "graphs/light_resnet50.onnx",
    "graphs/light_vgg19.onnx",
    "graphs/light_zfnet512.onnx",
    "tiny/mnist_fp32.onnx",
    "vision/mobilenet_v1_0.25_128_fp32.onnx",
    "vision/mobilenet_v2_1.0_224_fp32.onnx",
    "vision/ultraface_rfb_320_fp32.onnx",
    "vision/yunet_n_640_fp32.onnx",
]


LONG = {"five million empty nodes"}


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.slow] if what in LONG else []) for what in HOSTILE]
)
def test_a_hostile_file_gets_a_clear_error_from_both_doors(what: str, tmp_path: Path) -> None:
    write, error = HOSTILE[what]
    path = tmp_path / "models" / "model.onnx"
    path.parent.mkdir()
    write(path)
    with pytest.raises(error) as caught:
        open_model(path)
    assert str(caught.value)
    with pytest.raises(NpuopsError):
        as_onnx(path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny/mnist_fp32.onnx", "audio/dtln_1_fp32.onnx", "tiny/kws_dscnn_int8.tflite"])
def test_a_cut_or_flipped_file_never_raises_anything_else(name: str, shared_models: Path, tmp_path: Path) -> None:
    content = (shared_models / name).read_bytes()
    path, refused = tmp_path / "damaged", 0
    for seed in range(80):
        chance = random.Random(seed)  # noqa: S311 - reproducible damage, no secret
        damaged = bytearray(content)
        if seed % 2:
            damaged = damaged[: chance.randrange(1, len(content))]
        for _ in range(chance.choice((1, 4, 30))):
            damaged[chance.randrange(min(len(damaged), 6000))] = chance.choice(
                (0, 127, 128, 255, chance.randrange(256))
            )
        path.write_bytes(damaged)
        try:
            as_onnx(path, tmp_path / "out.onnx")
        except NpuopsError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("name", SHARED)
def test_every_shared_onnx_model_is_understood(name: str, shared_models: Path) -> None:
    model = open_model(shared_models / name)
    assert model.format is ModelFormat.ONNX
    assert model.is_static
    assert model.macs
    assert model.peak_activation_bytes
    assert model.weight_bytes > 0
    assert all(tensor.is_static for layer in model.layers for tensor in layer.outputs)


@pytest.mark.parametrize("name", SHARED[6:])
def test_as_onnx_changes_no_answer(name: str, shared_models: Path, tmp_path: Path) -> None:
    if name.startswith("graphs"):
        pytest.skip("half a gigabyte of constant weights")
    out = as_onnx(shared_models / name, tmp_path / "out.onnx")
    answers = []
    for path in (shared_models / name, out):
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        feed = {slot.name: rng.random(slot.shape).astype(np.float32) for slot in session.get_inputs()}
        answers.append(session.run(None, feed))
    for before, after in zip(*answers, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_graph_without_weights_opens_with_a_fact_but_is_not_passed_on(shared_models: Path, tmp_path: Path) -> None:
    path = shared_models / "graphs/resnet18_v1_noweights.onnx"
    model = open_model(path)
    assert "weights-missing" in {fact.kind for fact in model.facts}
    assert model.macs == pytest.approx(1.814e9, rel=0.001)
    with pytest.raises(ModelError, match="no values"):
        as_onnx(path, tmp_path / "out.onnx")


def test_the_content_decides_not_the_suffix(shared_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "misnamed.onnx"
    path.write_bytes((shared_models / "tiny/kws_dscnn_int8.tflite").read_bytes())
    assert open_model(path).format is ModelFormat.TFLITE


def test_a_dynamic_model_is_fixed_by_shapes(tmp_path: Path) -> None:
    model = relu()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    path = tmp_path / "dynamic.onnx"
    onnx.save(model, path)
    assert {fact.kind for fact in open_model(path).facts} >= {"dynamic-shape"}
    with pytest.raises(OptionError, match="no fixed shape"):
        as_onnx(path, tmp_path / "out.onnx")
    fixed = open_model(path, shapes={"x": (3, 4)})
    assert fixed.outputs[0].shape == (3, 4)
    assert open_model(as_onnx(path, tmp_path / "out.onnx", shapes={"x": (3, 4)})).is_static


def test_a_tflite_batch_is_resized_where_the_file_allows(shared_models: Path, tmp_path: Path) -> None:
    path = shared_models / "tiny/vww_mobilenet_v1_96_fp32.tflite"
    one = open_model(path)
    (name,) = (tensor.name for tensor in one.inputs)
    four = open_model(path, shapes={name: (4, 96, 96, 3)})
    assert four.outputs[0].shape == (4, 2)
    assert four.macs == 4 * (one.macs or 0)
    with pytest.raises(OptionError, match="fixes a dimension"):
        open_model(path, shapes={name: (4, 95, 96, 3)})
    session = ort.InferenceSession(str(as_onnx(path, tmp_path / "out.onnx", shapes={name: (4, 96, 96, 3)})))
    (scores,) = session.run(None, {name: np.random.default_rng(0).random((4, 96, 96, 3), np.float32)})
    assert scores.shape == (4, 2)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_the_digest_covers_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(external("weights.data").SerializeToString())
    (tmp_path / "weights.data").write_bytes(b"\0" * 16)
    before = open_model(path)
    assert before.file_bytes == path.stat().st_size + 16
    (tmp_path / "weights.data").write_bytes(b"\0" * 15 + b"\1")
    assert open_model(path).digest != before.digest


def test_an_unwritable_place_is_a_storage_error(shared_models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        as_onnx(shared_models / "tiny/mnist_fp32.onnx", tmp_path / "file" / "out.onnx")
    assert caught.value.advice


def test_a_quantized_weight_belongs_to_the_layer_that_multiplies_with_it(tmp_path: Path) -> None:
    constants = {
        "w": np.ones((8, 3, 3, 3), np.int8),
        "s": np.float32(0.1),
        "z": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 6, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "qdq.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    model = open_model(path)
    conv = next(layer for layer in model.layers if layer.op == "Conv")
    assert [(tensor.name, tensor.dtype) for tensor in conv.weights] == [("w", "int8")]
    assert conv.macs == 8 * 6 * 6 * 27
    assert conv.weight_bytes == 216
    assert model.weight_bytes == 216 + 4 + 1
    assert model.is_quantized
    assert model.peak_activation_bytes == 3 * 64 * 4 + 3 * 64


@pytest.mark.parametrize(
    ("op", "macs"), [("NhwcConv", None), ("MoE", None), ("BiasGelu", 0), ("FusedMatMul", 2 * 4 * 3)]
)
def test_a_foreign_operator_that_multiplies_in_a_way_of_its_own_is_not_called_free(
    op: str, macs: int | None, tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], domain="com.microsoft")],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(np.zeros((4, 3), np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    assert open_model(tmp_path / "m.onnx").macs == macs


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (12, 1), (13, None)])
def test_a_softmax_without_an_axis_is_over_axis_1_before_opset_13(opset: int, axis: int | None, tmp_path: Path) -> None:
    shape = [1, 8, 4, 4]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y", "z")]
    nodes = [helper.make_node("Softmax", ["x"], ["y"]), helper.make_node("Softmax", ["y"], ["z"], axis=2)]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[2:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    assert [layer.attributes.get("axis") for layer in open_model(path).layers] == [axis, 2]
