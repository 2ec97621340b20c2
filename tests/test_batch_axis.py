"""Freeing the batch axis: what stands for one row is left open, and what cannot be is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from npuops.errors import UnsupportedModelError
from npuops.models.batch_axis import free_batch, has_free_batch, is_open, one_row, with_rows
from npuops.models.model import TensorInfo
from npuops.models.onnx_file import read_onnx, write_onnx
from npuops.models.open import open_model
from npuops.models.shapes import infer_shapes
from npuops.models.zoo import zoo_model

FLOAT = TensorProto.FLOAT
X = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)


def model(nodes: list[onnx.NodeProto], shapes: dict[str, list[int | str]], **constants: object) -> onnx.ModelProto:
    """Inputs are called x…, outputs y…; the constants are what `numpy.array` makes of them."""
    values = {name: helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [value for name, value in values.items() if name.startswith("x")],
        [value for name, value in values.items() if name.startswith("y")],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    return infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def answer(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def rows_alone(proto: onnx.ModelProto) -> np.ndarray:
    return np.concatenate([answer(proto, X[row : row + 1]) for row in range(len(X))])


@pytest.mark.parametrize("name", ["digits-cnn", "digits-transformer"])
def test_the_zoo_at_batch_one_answers_every_row_of_a_batch_as_it_answers_it_alone(name: str, tmp_path: Path) -> None:
    zoo = zoo_model(name)
    alone = infer_shapes(read_onnx(zoo.model))
    write_onnx(free_batch(alone), tmp_path / "free.onnx")
    free = open_model(tmp_path / "free.onnx")
    assert free.inputs == (TensorInfo(name="image", dtype="float32", shape=("batch", 1, 8, 8)),)
    assert free.outputs == (TensorInfo(name="logits", dtype="float32", shape=("batch", 10)),)
    images = np.load(zoo.evaluation)["image"][:7].reshape(7, 1, 8, 8).astype(np.float32)
    together = ort.InferenceSession(str(tmp_path / "free.onnx")).run(None, {"image": images})[0]
    session = ort.InferenceSession(str(zoo.model))
    single = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    np.testing.assert_allclose(together, single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "opened"),
    [
        ([1, 3, 4], [-1, 3, 4]),
        ([1, -1, 4], [-1, 3, 4]),
        ([3, 4], [-1, 4]),
        ([-1, 4], [-1, 4]),
        ([0, -1, 4], [0, -1, 4]),
        ([3, -1], [3, -1]),
    ],
)
def test_only_the_first_size_of_a_reshape_is_left_open(sizes: list[int], opened: list[int]) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["m"]), helper.make_node("Reshape", ["m", "t"], ["y"])]
    before = model(nodes, {"x": [1, 12], "y": [1, 12]}, s=np.array(sizes, np.int64), t=np.array([-1, 12], np.int64))
    freed = free_batch(before)
    constants = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in freed.graph.initializer}
    assert constants[freed.graph.node[0].input[1]] == opened
    assert len(constants) == 2, "what is not read any more is gone"
    if sizes != [3, -1]:  # there the batch would be in the middle, and a comparison of rows says so
        np.testing.assert_array_equal(answer(freed, X), rows_alone(before))


def test_a_weight_that_an_old_file_lists_among_its_inputs_does_not_stay_there_as_one() -> None:
    before = model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        {"x": [1, 12], "y": [1, 3, 4]},
        s=np.array([1, 3, 4], np.int64),
    )
    before.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [3]))
    assert [value.name for value in free_batch(before).graph.input] == ["x"]


def test_a_constant_that_is_reshaped_keeps_its_sizes() -> None:
    nodes = [helper.make_node("Reshape", ["w", "s"], ["v"]), helper.make_node("Add", ["x", "v"], ["y"])]
    shapes: dict[str, list[int | str]] = {"x": [1, 12], "y": [1, 12]}
    before = model(nodes, shapes, w=np.arange(12, dtype=np.float32), s=np.array([1, 12], np.int64))
    freed = free_batch(before)
    assert freed.graph.node[0].input[1] == "s"
    np.testing.assert_array_equal(answer(freed, X), rows_alone(before))


def test_sizes_that_the_graph_computes_from_its_input_stay_as_they_are() -> None:
    """A class token: one row of a parameter, expanded to as many rows as come in."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "rest"], ["sizes"], axis=0),
        helper.make_node("Expand", ["token", "sizes"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x"], ["y"], axis=1),
    ]
    constants = {"rest": np.array([4], np.int64), "token": np.ones((1, 4), np.float32)}
    before = model(nodes, {"x": [1, 12], "y": [1, 16]}, **constants)
    np.testing.assert_array_equal(answer(free_batch(before), X), rows_alone(before))


def test_a_constant_of_one_row_that_is_joined_to_the_rows_is_refused() -> None:
    before = model(
        [helper.make_node("Concat", ["token", "x"], ["y"], axis=1, name="join")],
        {"x": [1, 12], "y": [1, 16]},
        token=np.ones((1, 4), np.float32),
    )
    with pytest.raises(UnsupportedModelError, match="3 rows do not go through") as caught:
        free_batch(before)
    assert "join" in caught.value.message or "Concat" in caught.value.message
    assert "--dynamic-batch" in caught.value.advice


def test_an_output_that_a_reshape_flattens_is_refused_with_its_name() -> None:
    before = model(
        [helper.make_node("Reshape", ["x", "s"], ["y"], name="flat")],
        {"x": [1, 12], "y": [12]},
        s=np.array([12], np.int64),
    )
    with pytest.raises(UnsupportedModelError, match=r"output 'y' has the shape \[36\] for 3 rows; Reshape 'flat'"):
        free_batch(before)


def test_an_output_without_rows_is_refused() -> None:
    before = model(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        {"x": [1, 12], "y": [12]},
        axes=np.array([0], np.int64),
    )
    with pytest.raises(UnsupportedModelError, match="output 'y'"):
        free_batch(before)


def test_an_operator_whose_rows_know_of_each_other_is_refused() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="quantizer"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    with pytest.raises(UnsupportedModelError, match="'quantizer' takes its scale from all rows together"):
        free_batch(model(nodes, {"x": [1, 12], "y": [1, 12]}))


@pytest.mark.parametrize("shape", [[4, 12], []])
def test_a_first_axis_that_is_no_batch_of_one_is_refused(shape: list[int | str]) -> None:
    with pytest.raises(UnsupportedModelError, match="input 'x'"):
        free_batch(model([helper.make_node("Relu", ["x"], ["y"])], {"x": shape, "y": shape}))


def test_a_symbol_of_the_exporter_becomes_ours() -> None:
    freed = free_batch(model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 12], "y": ["N", 12]}))
    assert freed.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert freed.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def info(*shape: int | str | None) -> TensorInfo:
    return TensorInfo(name="x", dtype="float32", shape=shape)


def test_only_an_open_first_axis_is_a_batch() -> None:
    assert has_free_batch([info("n", 3)], [info(None, "m")])
    assert not has_free_batch([info("n", "t")], [info("n", 3)])
    assert not has_free_batch([info("n", 3), info(1, 3)], [info("n", 3)])
    assert not has_free_batch([info("n", 3)], [info(1, 3)])
    assert not has_free_batch([], [])
    assert not is_open(TensorInfo(name="x", dtype="float32", shape=None))
    assert not is_open(info())


def test_rows_are_filled_in_where_the_axis_is_open() -> None:
    assert with_rows([info("n", 3), info(2, 3), info()], 5) == (info(5, 3), info(2, 3), info())
    assert one_row([info("n", 3)], {}) == {"x": (1, 3)}
    assert one_row([info("n", "t")], {}) == {}, "a second open axis is for the user to fix"
    assert one_row([info("n", 3)], {"x": (4, 3)}) == {"x": (4, 3)}
