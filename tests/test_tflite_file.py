"""Reading TFLite: offsets that lie, counts that explode, weights outside the FlatBuffer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

from npuops.errors import MalformedModelError, NpuopsError, UnsafeModelError, UnsupportedModelError
from npuops.models.open import as_onnx
from npuops.models.tflite_file import read_tflite
from tflite_maker import T, constant, schema, write_tflite

WEIGHT = np.arange(20, dtype=np.float32).reshape(5, 4)


def dense(path: Path) -> Path:
    return write_tflite(
        path,
        "FULLY_CONNECTED",
        [T((1, 4)), constant(WEIGHT, "float32"), None],
        [T((1, 5))],
        {},
        "FullyConnectedOptions",
    )


def changed(path: Path, change: Callable[[Any], None], tail: bytes = b"") -> Path:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(dense(path).read_bytes(), 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()) + tail)
    return path


def test_weights_and_scales_are_read_as_they_are_stored(shared_models: Path) -> None:
    graph = read_tflite(shared_models / "tiny/ic_resnet8_int8.tflite")
    weight = graph.tensors[graph.operators[0].inputs[1]]
    values = weight.values()
    assert values is not None
    assert values.dtype == np.int8
    assert values.shape == (16, 3, 3, 3)
    assert weight.scales is not None
    assert len(weight.scales.scale) == 16
    assert graph.operators[0].options["padding"] == "SAME"


def test_weights_after_the_flatbuffer_are_found(tmp_path: Path) -> None:
    """Models above 2 GiB keep their buffers behind the FlatBuffer; the form is the same in a small file."""
    path = tmp_path / "m.tflite"
    size = {"at": 1 << 20}

    def move(model: Any) -> None:
        buffer = model.buffers[1]
        buffer.data, buffer.offset, buffer.size = None, size["at"], WEIGHT.nbytes

    length = changed(path, move).stat().st_size
    size["at"] = length
    changed(path, move, WEIGHT.tobytes())
    graph = read_tflite(path)
    values = graph.constant(graph.operators[0].inputs[1])
    np.testing.assert_array_equal(values, WEIGHT)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(MalformedModelError):
        read_tflite(path)


def _set(where: str, value: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        owner = {
            "model": model,
            "graph": graph,
            "op": graph.operators[0],
            "weight": graph.tensors[1],
            "out": graph.tensors[2],
        }
        name, field = where.split(".")
        setattr(owner[name], field, value)

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_set("model.version", 2), UnsupportedModelError),
        (_set("model.subgraphs", []), MalformedModelError),
        (_set("graph.outputs", []), MalformedModelError),
        (_set("graph.outputs", [7]), MalformedModelError),
        (_set("graph.inputs", []), MalformedModelError),
        (_set("op.inputs", [0, 99, -1]), MalformedModelError),
        (_set("op.inputs", [2, 1, -1]), MalformedModelError),
        (_set("op.outputs", [0]), MalformedModelError),
        (_set("op.opcodeIndex", 5), MalformedModelError),
        (_set("op.builtinOptionsType", 1), MalformedModelError),
        (_set("weight.buffer", 50), MalformedModelError),
        (_set("weight.shape", [5, 5]), MalformedModelError),
        (_set("weight.shape", [-5, -4]), MalformedModelError),
        (_set("out.shape", [2**30, 2**30]), UnsafeModelError),
        (_set("out.shape", [1] * 100), MalformedModelError),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(
    change: Callable[[Any], None], error: type[NpuopsError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        read_tflite(changed(tmp_path / "m.tflite", change))


def test_an_input_of_operator_is_computed_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(MalformedModelError, match="before it is computed"):
        read_tflite(changed(tmp_path / "m.tflite", _set("op.inputs", [2, 1, -1])))


def test_every_truncation_is_refused_or_read_but_never_worse(tmp_path: Path) -> None:
    content = dense(tmp_path / "m.tflite").read_bytes()
    path, refused = tmp_path / "cut.tflite", 0
    for end in range(8, len(content), 3):
        path.write_bytes(content[:end])
        try:
            read_tflite(path)
        except MalformedModelError:
            refused += 1
    assert refused > len(content) // 3 * 0.9


def test_counts_beyond_reason_are_refused_before_they_are_walked(tmp_path: Path) -> None:
    """A vector of two million entries that all point at one operator."""
    builder = flatbuffers.Builder(1 << 24)
    model = schema.ModelT()
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [0], []
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], [], []
    graph.operators = [schema.OperatorT()] * 1
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytearray(builder.Output())
    table = schema.Model.GetRootAsModel(bytes(content), 0).Subgraphs(0)
    vector = table._tab.Vector(table._tab.Offset(10)) - 4
    struct.pack_into("<I", content, vector, 2_000_000)
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(UnsafeModelError, match="2000000"):
        read_tflite(tmp_path / "m.tflite")


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 256), ("uint8", -1), ("int8", 128)])
def test_a_zero_point_beyond_its_dtype_is_refused(dtype: str, zero: int, tmp_path: Path) -> None:
    """Cast to the dtype, it would be another number."""
    path = write_tflite(tmp_path / "m.tflite", "RELU", [T((1, 4), dtype, scale=0.1, zero=zero)], [T((1, 4))])
    with pytest.raises(MalformedModelError, match="zero point"):
        read_tflite(path)


def test_an_output_of_another_rank_than_its_operator_makes_is_refused(tmp_path: Path) -> None:
    window = {"padding": 0, "strideH": 1, "strideW": 1, "filterHeight": 1, "filterWidth": 1}
    path = write_tflite(
        tmp_path / "m.tflite", "MAX_POOL_2D", [T((1, 4, 4, 2))], [T((1, 4, 4))], window, "Pool2DOptions"
    )
    with pytest.raises(MalformedModelError, match="contradict"):
        as_onnx(path, tmp_path / "out.onnx")


def test_an_integer_bias_that_is_computed_is_refused_and_never_left_out(tmp_path: Path) -> None:
    path = write_tflite(
        tmp_path / "m.tflite",
        "FULLY_CONNECTED",
        [T((1, 4), "int8", scale=0.1), constant(np.ones((5, 4)), "int8", scale=0.1), T((5,), "int32")],
        [T((1, 5), "int8", scale=0.1)],
        {},
        "FullyConnectedOptions",
    )
    with pytest.raises(UnsupportedModelError, match="bias"):
        as_onnx(path, tmp_path / "out.onnx")


def test_tensors_that_share_a_name_or_have_none_get_one_each_and_inputs_and_outputs_keep_theirs(tmp_path: Path) -> None:
    """TFLite knows tensors by number; placement, liveness and folding know them by name."""

    def rename(model: Any) -> None:
        for tensor, name in zip(model.subgraphs[0].tensors, ("", "y", "y"), strict=True):
            tensor.name = name

    graph = read_tflite(changed(tmp_path / "m.tflite", rename))
    assert [tensor.name for tensor in graph.tensors] == ["tensor_0", "y_1", "y"]
    assert graph.tensors[graph.outputs[0]].name == "y"


def test_ten_thousand_tensors_of_one_name_do_not_make_names_longer_and_longer(tmp_path: Path) -> None:
    def crowd(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors += [graph.tensors[1]] * 10_000
        for tensor in graph.tensors:
            tensor.name = "x"

    names = [tensor.name for tensor in read_tflite(changed(tmp_path / "m.tflite", crowd)).tensors]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 20
