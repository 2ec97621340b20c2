from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from npuops.errors import IncompatibleArtifactError, RunError, ToolchainError
from npuops.vnpu.numerics import Numerics
from npuops.vnpu.segment import Segment, make_segment
from npuops.vnpu.tensors import Layout, TensorSpec, layout_of
from virtual_devices import X, Y, relu_model

LAYOUT = layout_of(X, Y, 2)


def segment(layout: Layout = LAYOUT) -> Segment:
    return Segment(make_segment(layout), layout)


def ramp() -> np.ndarray:
    return np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)


def test_a_slot_is_computed_in_place_and_the_others_are_not_touched(tmp_path: Path) -> None:
    memory = segment()
    first, second = Numerics(relu_model(tmp_path), LAYOUT).on(memory)
    for inputs in memory.inputs:
        inputs["x"][:] = ramp()
    second.run()
    np.testing.assert_array_equal(memory.outputs[1]["y"], np.maximum(ramp(), 0))
    assert not memory.outputs[0]["y"].any()
    memory.inputs[0]["x"][:] = -ramp()
    first.run()
    np.testing.assert_array_equal(memory.outputs[0]["y"], np.maximum(-ramp(), 0))


def test_it_is_called_quick_only_when_it_is_known_to_be(tmp_path: Path) -> None:
    slot, other = Numerics(relu_model(tmp_path), LAYOUT).on(segment())
    assert not slot.is_quick
    slot.run()
    while not slot.is_quick:  # 32 numbers; only a machine that stands still takes half a millisecond for them
        slot.run()
    assert not other.is_quick


def test_a_slow_one_is_not_called_quick(tmp_path: Path) -> None:
    size = 1024
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "x"], ["z"]), helper.make_node("MatMul", ["z", "x"], ["y"])]
    graph = helper.make_graph(nodes, "slow", shapes[:1], shapes[1:])
    path = tmp_path / "slow.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    layout = layout_of([TensorSpec("x", "float32", (size, size))], [TensorSpec("y", "float32", (size, size))], 1)
    (slot,) = Numerics(path, layout).on(segment(layout))
    slot.run()  # 4 GFLOP
    assert not slot.is_quick


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([TensorSpec("z", "float32", (4, 8))], Y, "disagree on inputs: x, z"),
        ([], Y, "disagree on inputs: x"),
        (X, [TensorSpec("z", "float32", (4, 8))], "disagree on outputs: y, z"),
        (X, [*Y, TensorSpec("z", "float32", (4, 8))], "disagree on outputs: z"),
    ],
)
def test_a_graph_with_other_names_than_the_program_is_refused(
    tmp_path: Path, inputs: list[TensorSpec], outputs: list[TensorSpec], words: str
) -> None:
    with pytest.raises(IncompatibleArtifactError, match=words):
        Numerics(relu_model(tmp_path), layout_of(inputs, outputs, 1))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([TensorSpec("x", "float32", (4, 9))], Y),
        ([TensorSpec("x", "float64", (4, 8))], Y),
        ([TensorSpec("x", "float32", (32,))], Y),
        (X, [TensorSpec("y", "float32", (4, 7))]),
        (X, [TensorSpec("y", "float16", (4, 8))]),
    ],
)
def test_tensors_of_another_shape_or_kind_are_an_error_and_write_nothing_beyond_their_place(
    tmp_path: Path, inputs: list[TensorSpec], outputs: list[TensorSpec]
) -> None:
    guard = TensorSpec("~", "uint8", (4096,))
    layout = layout_of([*inputs, guard], [*outputs, guard], 1)
    memory = segment(layout)
    for views in (memory.inputs[0], memory.outputs[0]):
        views["~"][:] = 77
    numerics = Numerics(relu_model(tmp_path), layout_of(inputs, outputs, 1))
    narrow = segment(layout)
    narrow.inputs = ({inputs[0].name: memory.inputs[0][inputs[0].name]},)
    narrow.outputs = ({outputs[0].name: memory.outputs[0][outputs[0].name]},)
    with pytest.raises(RunError, match="host runner"):
        numerics.on(narrow)[0].run()
    assert (memory.inputs[0]["~"] == 77).all()
    assert (memory.outputs[0]["~"] == 77).all()


def test_what_is_no_model_is_onnxruntimes_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(relu_model(tmp_path).read_bytes()[:40])
    with pytest.raises(ToolchainError, match=r"cannot load bad\.onnx"):
        Numerics(path, LAYOUT)
    with pytest.raises(ToolchainError):
        Numerics(tmp_path / "none.onnx", LAYOUT)
