"""One-layer models for the tests of operator rules: an ONNX node with a data input, and TFLite operators on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from npuops.models.model import Layer, Model, ModelFormat, TensorInfo
from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.vnpu.rules import Placing

IMAGE = (1, 8, 14, 14)


def one(
    folder: Path,
    op: str,
    *weights: Sequence[int] | np.ndarray,
    data: Sequence[int] | Sequence[Sequence[int]] = IMAGE,
    outputs: int = 1,
    **attributes: Any,
) -> Model:
    """A checked ONNX file with one node, read back: activations of the shapes `data`, float weights of those shapes.

    A weight given as an array keeps its values (sizes, axes, indices).
    """
    shapes = [tuple(shape) for shape in data] if data and not isinstance(data[0], int) else [tuple(data)]
    names = [f"x{index}" for index in range(len(shapes))]
    made = [value if isinstance(value, np.ndarray) else np.full(value, 0.5, np.float32) for value in weights]
    constants = [numpy_helper.from_array(value, f"w{index}") for index, value in enumerate(made)]
    node = helper.make_node(op, [*names, *(c.name for c in constants)], [f"y{i}" for i in range(outputs)], **attributes)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "one", inputs, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.save(model, folder / "one.onnx")
    return open_model(folder / "one.onnx")


def tflite(op: str, data: Sequence[int], made: Sequence[int], *weights: Sequence[int], **options: Any) -> Model:
    """A TFLite model with one 8-bit layer, without a file."""

    def tensor(name: str, shape: Sequence[int], dtype: str = "int8") -> TensorInfo:
        return TensorInfo(name=name, dtype=dtype, shape=tuple(shape))

    dtype = options.pop("dtype", "int8")
    layer = Layer(
        name=f"{op.lower()}_0",
        op=op,
        inputs=(tensor("x", data, dtype),),
        weights=tuple(tensor(f"w{index}", shape) for index, shape in enumerate(weights)),
        outputs=(tensor("y", made, dtype),),
        attributes=options,
        macs=0,
        weight_bytes=0,
        activation_bytes=0,
    )
    return model_of(layer, kind=ModelFormat.TFLITE)


def made(
    op: str, *shapes: Sequence[int], weights: Sequence[Sequence[int]] = (), out: Sequence[int] = (), **attributes: Any
) -> Model:
    """A made ONNX layer with activations of `shapes`, without a file: for sizes at a limit and just beyond it."""

    def tensor(name: str, shape: Sequence[int]) -> TensorInfo:
        return TensorInfo(name=name, dtype="float32", shape=tuple(shape))

    layer = Layer(
        name="it",
        op=op,
        inputs=tuple(tensor(f"x{index}", shape) for index, shape in enumerate(shapes)),
        weights=tuple(tensor(f"w{index}", shape) for index, shape in enumerate(weights)),
        outputs=(tensor("y", out or shapes[0]),),
        attributes=attributes,
        macs=0,
        weight_bytes=0,
        activation_bytes=0,
    )
    return model_of(layer)


def layer_called(op: str) -> Model:
    """A made ONNX layer of some operator on an image, with a weight: enough to ask whether a list names it."""
    image = TensorInfo(name="x", dtype="float32", shape=IMAGE)
    weight = TensorInfo(name="w", dtype="float32", shape=(8, 8, 1, 1))
    layer = Layer(
        name="it",
        op=op,
        inputs=(image,),
        weights=(weight,),
        outputs=(replace(image, name="y"),),
        attributes={},
        macs=0,
        weight_bytes=0,
        activation_bytes=0,
    )
    return model_of(layer)


def model_of(*layers: Layer, kind: ModelFormat = ModelFormat.ONNX) -> Model:
    """A model around layers, without a file."""
    return Model(
        path=Path("made"),
        format=kind,
        digest="sha256:0",
        opset=20 if kind is ModelFormat.ONNX else None,
        producer="tests",
        file_bytes=0,
        inputs=layers[0].inputs,
        outputs=layers[-1].outputs,
        layers=layers,
        peak_activation_bytes=None,
    )


def only(placing: Placing, model: Model) -> Placement:
    """The placement of a model's only layer."""
    (place,) = placing(model)
    return place


def on_npu(placing: Placing, model: Model) -> bool:
    return only(placing, model).runs_on is RunsOn.NPU
