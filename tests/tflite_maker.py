"""Writes small TFLite models for the tests, with LiteRT's own schema: one operator, real scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs npuops[ethos-u]")

_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9}


@dataclass(frozen=True)
class T:
    """A tensor: an activation when `data` is None."""

    shape: Sequence[int]
    dtype: str = "float32"
    data: Any = None
    scale: Any = None
    zero: Any = 0
    axis: int = 0


def constant(values: Any, dtype: str = "int32", **more: Any) -> T:
    array = np.asarray(values, dtype)
    return T(shape=array.shape, dtype=dtype, data=array, **more)


def write_tflite(
    path: Path,
    op: str,
    inputs: Sequence[T | None],
    outputs: Sequence[T],
    options: Mapping[str, Any] | None = None,
    kind: str = "",
) -> Path:
    """One operator `op` with the options table `kind`."""
    model, graph, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    empty = schema.BufferT()
    model.buffers = [empty]
    graph.tensors, graph.inputs, operator.inputs = [], [], []
    for place, tensor in enumerate([*inputs, *outputs]):
        index = -1 if tensor is None else _add(model, graph, tensor, f"t{place}")
        if place >= len(inputs):
            continue
        operator.inputs.append(index)
        if tensor is not None and tensor.data is None:
            graph.inputs.append(index)
    count = len(graph.tensors)
    operator.outputs = graph.outputs = list(range(count - len(outputs), count))
    if kind:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = getattr(schema, f"{kind}T")()
        for name, value in (options or {}).items():
            setattr(operator.builtinOptions, name, value)
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, op)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    # LiteRT registers its 8-bit kernels as version 2, apart from this one.
    code.version = 2 if op != "HARD_SWISH" and inputs[0] is not None and inputs[0].dtype == "int8" else 1
    graph.operators, model.subgraphs, model.operatorCodes, model.version = [operator], [graph], [code], 3
    model.description = "made by the tests"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _add(model: Any, graph: Any, tensor: T, name: str) -> int:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name, list(tensor.shape), _TYPES[tensor.dtype], 0
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        model.buffers.append(buffer)
        made.buffer = len(model.buffers) - 1
    if tensor.scale is not None:
        scales = np.atleast_1d(np.asarray(tensor.scale, np.float32))
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = scales
        made.quantization.zeroPoint = np.broadcast_to(np.asarray(tensor.zero, np.int64), scales.shape)
        made.quantization.quantizedDimension = tensor.axis
    graph.tensors.append(made)
    return len(graph.tensors) - 1
