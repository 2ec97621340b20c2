from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from npuops.errors import UnsupportedModelError
from npuops.evaluate.metrics import cosine, top1_agreement
from npuops.evaluate.reference import run_reference
from npuops.evaluate.sample_sources import random_samples
from npuops.events import Event, Warned
from npuops.models.model import TensorInfo
from npuops.quantize import prepare as module
from npuops.quantize.prepare import prepare
from npuops.quantize.quantize import QuantizeOptions, quantize
from small_graphs import BLOCK_INPUT, CNN_INPUT, noise, save, small_cnn, weight, written


def _ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_batch_normalization_is_merged_and_names_and_io_stay(tmp_path: Path) -> None:
    prepared = prepare(small_cnn(tmp_path / "f.onnx"), noise(CNN_INPUT, 2, 0))
    assert "BatchNormalization" not in _ops(prepared.model)
    assert [value.name for value in prepared.model.graph.output] == ["y"]
    assert all(node.name for node in prepared.model.graph.node)
    assert prepared.notes


def test_an_erf_gelu_and_a_spelled_out_layernorm_become_one_operator_each(tmp_path: Path) -> None:
    node = helper.make_node
    gelu = [
        node("Div", ["x", "root"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["a"]),
        node("Mul", ["x", "a"], ["m"]),
        node("Mul", ["m", "half"], ["g"]),
    ]
    norm = [
        node("ReduceMean", ["g", "axes"], ["mean"]),
        node("Sub", ["g", "mean"], ["centred"]),
        node("Pow", ["centred", "two"], ["squared"]),
        node("ReduceMean", ["squared", "axes"], ["variance"]),
        node("Add", ["variance", "epsilon"], ["safe"]),
        node("Sqrt", ["safe"], ["deviation"]),
        node("Div", ["centred", "deviation"], ["normed"]),
        node("Mul", ["normed", "gamma"], ["scaled"]),
        node("Add", ["scaled", "beta"], ["y"]),
    ]
    constants = {"root": 2**0.5, "one": 1, "half": 0.5, "two": 2, "epsilon": 1e-5}
    path = save(
        tmp_path / "f.onnx",
        [*gelu, *norm],
        ([4, 32], [4, 32]),
        axes=np.array([-1]),
        gamma=np.ones(32, np.float32),
        beta=np.zeros(32, np.float32),
        **{name: np.array(value, np.float32) for name, value in constants.items()},
    )
    assert sorted(_ops(prepare(path, noise(BLOCK_INPUT, 2, 0)).model)) == ["Gelu", "LayerNormalization"]


def test_a_rewrite_that_changes_the_answer_is_refused_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(base: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        broken = onnx.ModelProto()
        broken.CopyFrom(base)
        for tensor in broken.graph.initializer:
            if tensor.name == "w2":
                tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), "w2"))
        return broken, ("broken",)

    monkeypatch.setattr(module, "_rewrite", wrong)
    events: list[Event] = []
    prepared = prepare(small_cnn(tmp_path / "f.onnx"), noise(CNN_INPUT, 2, 0), observe=events.append)
    assert prepared.notes == ()
    assert "BatchNormalization" in _ops(prepared.model)
    assert any(isinstance(event, Warned) and "refused" in event.message for event in events)


def test_dynamic_shapes_and_other_floats_are_refused_with_advice(tmp_path: Path) -> None:
    model = onnx.load(small_cnn(tmp_path / "f.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "d.onnx")
    with pytest.raises(UnsupportedModelError, match="dynamic") as caught:
        prepare(tmp_path / "d.onnx", noise(CNN_INPUT, 2, 0))
    assert "--shape" in caught.value.advice
    integers = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "integers",
        [helper.make_tensor_value_info("x", TensorProto.INT32, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 2])],
    )
    onnx.save(
        helper.make_model(integers, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "i.onnx"
    )
    with pytest.raises(UnsupportedModelError, match="float32"):
        prepare(tmp_path / "i.onnx", random_samples((TensorInfo(name="x", dtype="int32", shape=(1, 2)),), 2, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["light_inception_v1", "light_zfnet512"])
def test_weights_made_by_constant_of_shape_are_folded(shared_models: Path, name: str) -> None:
    path = shared_models / "graphs" / f"{name}.onnx"
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    (value,) = (value for value in model.graph.input if value.name not in constants)
    shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    info = TensorInfo(name=value.name, dtype="float32", shape=shape)
    prepared = prepare(path, random_samples((info,), 2, 0))
    assert "ConstantOfShape" not in _ops(prepared.model)
    assert [found.name for found in prepared.model.graph.input] == [value.name]


def test_a_gemm_bias_with_a_leading_one_is_quantized_per_channel(tmp_path: Path, shared_models: Path) -> None:
    """The MNIST net of the ONNX examples ends in MatMul + Add of [1, 10], which folds into such a Gemm."""
    info = TensorInfo(name="Input3", dtype="float32", shape=(1, 1, 28, 28))
    samples = random_samples((info,), 8, 0)
    model = shared_models / "tiny" / "mnist_fp32.onnx"
    done = quantize(model, samples, QuantizeOptions(), tmp_path / "q.onnx")
    wanted, got = (next(iter(run_reference(path, samples).values())) for path in (model, done.path))
    assert top1_agreement(got, wanted) == 1


@pytest.mark.parametrize("shape", [(), (1,), (1, 32), (32,), (4, 32), (4, 1)])
def test_any_gemm_bias_and_beta_survive_quantization(tmp_path: Path, shape: tuple[int, ...]) -> None:
    text = """(float[4,32] x) => (float[4,32] y) { a = Gemm <beta = 2.0> (x, w, b)  t = Tanh (a)
        y = Gemm <beta = 3.0, transB = 1> (t, w, b) }"""
    path = written(tmp_path / "f.onnx", text, w=weight(32, 32), b=weight(*shape, seed=1))
    done = quantize(path, noise(BLOCK_INPUT, 8, 0), QuantizeOptions(), tmp_path / "q.onnx")
    held_out = noise(BLOCK_INPUT, 8, 1)
    assert cosine(run_reference(done.path, held_out)["y"], run_reference(path, held_out)["y"]) > 0.998  # type: ignore[operator]


def test_a_matmul_and_an_add_of_positions_are_quantized_apart(tmp_path: Path) -> None:
    text = "(float[4,32] x) => (float[4,32] y) { a = MatMul (x, w)  y = Add (a, positions) }"
    path = written(tmp_path / "f.onnx", text, w=weight(32, 32), positions=weight(4, 32, seed=1))
    prepared = prepare(path, noise(BLOCK_INPUT, 2, 0))
    assert _ops(prepared.model) == ["Gemm", "Add"]


def test_half_precision_is_refused_but_weights_stored_in_it_are_not(tmp_path: Path) -> None:
    half = weight(32, 32).astype(np.float16)
    computes = "(float[4,32] x) => (float[4,32] y) { h = Cast <to = 10> (x)  a = MatMul (h, w)  y = Cast <to = 1> (a) }"
    with pytest.raises(UnsupportedModelError, match=r"MatMul 'a' in float16") as caught:
        prepare(written(tmp_path / "h.onnx", computes, w=half), noise(BLOCK_INPUT, 2, 0))
    assert "float32" in caught.value.advice
    stores = "(float[4,32] x) => (float[4,32] y) { c = Cast <to = 1> (w)  y = MatMul (x, c) }"
    prepared = prepare(written(tmp_path / "s.onnx", stores, w=half), noise(BLOCK_INPUT, 2, 0))
    assert _ops(prepared.model) == ["MatMul"]
