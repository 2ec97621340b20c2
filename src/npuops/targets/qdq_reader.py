"""Reads a QDQ ONNX graph into quantized operators, as onnxruntime.quantization writes it and as others do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from npuops.errors import UnsupportedModelError
from npuops.models.onnx_file import read_onnx
from npuops.models.shapes import infer_shapes
from npuops.targets.qdq_graph import (
    SELF_SCALED,
    Activation,
    Array,
    Constant,
    GraphPort,
    NodeRefusedError,
    Operand,
    QuantizedGraph,
    QuantizedOp,
    read_bounds,
)

PASS_THROUGH = frozenset({"Identity", "Dropout"})
CLAMPS = frozenset({"Relu", "Clip"})


def read_qdq(path: Path) -> QuantizedGraph:
    """The quantized operators of an ONNX file.

    Raises:
        MalformedModelError: not a valid ONNX file.
        UnsupportedModelError: float tensors between operators, 16-bit activations, dynamic shapes: all places named.
    """
    return _Reader(infer_shapes(read_onnx(path))).read()


@dataclass(slots=True)
class _Reader:
    model: onnx.ModelProto
    constants: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    consumers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    folded: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)

    def read(self) -> QuantizedGraph:
        self._index()
        graph = self.model.graph
        inputs = tuple(self._collect("input", value, self._input) for value in graph.input if self._is_input(value))
        ops = tuple(self._ops())
        outputs = tuple(self._collect("output", value, self._output) for value in graph.output)
        if self.refused:
            raise UnsupportedModelError(
                "the quantized graph cannot be turned into integers:\n  " + "\n  ".join(self.refused),
                advice="quantize with `npuops build` (8-bit activations, all operators, static shapes)",
            )
        return QuantizedGraph(
            ops=ops,
            inputs=tuple(port for port in inputs if port is not None),
            outputs=tuple(port for port in outputs if port is not None),
        )

    def _index(self) -> None:
        graph = self.model.graph
        self.constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
            if value.type.tensor_type.HasField("shape") and all(dim > 0 for dim in dims):
                self.shapes[value.name] = tuple(dims)
            self.kinds[value.name] = value.type.tensor_type.elem_type
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = _constant_value(node)
            for name in node.output:
                self.producers[name] = node
            for name in filter(None, node.input):
                self.consumers.setdefault(name, []).append(node)

    def _is_input(self, value: onnx.ValueInfoProto) -> bool:
        return value.name not in self.constants

    def _collect(self, where: str, value: onnx.ValueInfoProto, read: Any) -> GraphPort | None:
        try:
            activation: Activation = read(value.name)
            dtype = str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            return GraphPort(name=value.name, dtype=dtype, shape=self._shape(value.name), activation=activation)
        except NodeRefusedError as error:
            self.refused.append(f"{where} {value.name}: {error.message}")
            return None

    def _input(self, name: str) -> Activation:
        readers = self.consumers.get(name, [])
        for node in readers:
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                quantized = node.output[0] if node.op_type == "QuantizeLinear" else name
                return self._activation(node, quantized, self._shape(name))
        raise NodeRefusedError("must be quantized at once", ", ".join(node.op_type for node in readers) or "unused")

    def _output(self, name: str) -> Activation:
        node = self.producers.get(self._source(name))
        if node is None:
            raise NodeRefusedError("must be computed", "an input or a constant is passed on")
        if node.op_type == "DequantizeLinear":
            return self._activation(node, node.input[0], self._shape(name))
        if node.op_type == "QuantizeLinear":
            return self._activation(node, node.output[0], self._shape(name))
        self._self_scaled(node, name)
        return self._result(node, self._source(name, forward=True), ())

    def _ops(self) -> Iterator[QuantizedOp]:
        needed = self._needed()
        for node in self.model.graph.node:
            if node.name + "\0" + "\0".join(node.output) not in needed or node.op_type in PASS_THROUGH | {"Constant"}:
                continue
            try:
                op = self._op(node)
            except NodeRefusedError as error:
                self.refused.append(f"{node.name or node.output[0]} ({node.op_type}): {error.message}")
                continue
            if op is not None:
                yield op

    def _needed(self) -> set[str]:
        """Nodes that outputs depend on; a Reshape depends on its data only, since shapes were inferred."""
        seen: set[str] = set()
        waiting = [output.name for output in self.model.graph.output]
        while waiting:
            node = self.producers.get(waiting.pop())
            if node is None:
                continue
            key = node.name + "\0" + "\0".join(node.output)
            if key not in seen:
                seen.add(key)
                waiting.extend(node.input[:1] if node.op_type == "Reshape" else node.input)
        return seen

    def _op(self, node: onnx.NodeProto) -> QuantizedOp | None:
        if node.op_type == "QuantizeLinear":
            return self._requantize(node)
        if node.op_type == "DequantizeLinear" or node.output[0] in self.folded:
            return None
        inputs = tuple(self._operand(name) for name in (node.input[:1] if node.op_type == "Reshape" else node.input))
        if node.domain not in {"", "ai.onnx"}:
            raise NodeRefusedError("operator must be a standard one", f"domain {node.domain}")
        clamp, ends = None, [self._source(name, forward=True) for name in node.output]
        if len(node.output) == 1:
            clamp, ends[0] = self._fold_clamps(node.output[0])
        outputs = tuple(self._result(node, end, inputs) for end in ends)
        return QuantizedOp(
            name=node.name or node.output[0],
            op=node.op_type,
            inputs=inputs,
            outputs=outputs,
            attributes={item.name: helper.get_attribute_value(item) for item in node.attribute},
            opset=self._opset(),
            clamp=clamp,
        )

    def _requantize(self, node: onnx.NodeProto) -> QuantizedOp | None:
        """A Q right behind a DQ changes the scale; any other belongs to the operator before it, which has one scale."""
        name = self._source(node.input[0])
        source = self.producers.get(name)
        before: Operand = None
        if source is not None and source.op_type == "DequantizeLinear":
            before = self._operand(name)
        elif name not in self.constants:
            readers = self.consumers[self._source(name, forward=True)]
            first = next((reader for reader in readers if reader.op_type == "QuantizeLinear"), node)
            if first is not node:
                before = self._activation(first, first.output[0], self._shape(name))
        if not isinstance(before, Activation):
            return None
        shape = self._shape(node.input[0])
        return QuantizedOp(
            name=node.name or node.output[0],
            op="QuantizeLinear",
            inputs=(before,),
            outputs=(self._activation(node, node.output[0], shape),),
            attributes={},
            opset=self._opset(),
        )

    def _operand(self, name: str) -> Operand:
        if not name:
            return None
        name = self._source(name)
        if name in self.constants:
            return Constant(name=name, data=self.constants[name])
        node = self.producers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            raise NodeRefusedError("every input must be behind a DequantizeLinear", f"float tensor {name!r}")
        if self._is_constant(node.input[0]):
            return self._constant(node)
        return self._activation(node, node.input[0], self._shape(name))

    def _is_constant(self, name: str) -> bool:
        node = self.producers.get(name)
        quantized = node is not None and node.op_type == "QuantizeLinear" and node.input[0] in self.constants
        return name in self.constants or quantized

    def _constant(self, dq: onnx.NodeProto) -> Constant:
        scale, zero, axis = self._scales(dq)
        name = dq.input[0]
        paired = name not in self.constants  # float weights behind a Q/DQ pair
        data = self.constants[self.producers[name].input[0] if paired else name]
        channels = data.shape[axis] if -data.ndim <= axis < data.ndim else 1
        if scale.size != zero.size or scale.size not in {1, channels}:
            raise NodeRefusedError(
                "scales must fit their tensor", f"{scale.size} for {name!r} {data.shape}, axis {axis}"
            )
        if paired:
            data = _quantize(data, scale, zero, axis)
        if data.dtype == np.uint8:
            data, zero = (data.astype(np.int16) - 128).astype(np.int8), zero.astype(np.int64) - 128
        elif data.dtype not in {np.dtype(np.int8), np.dtype(np.int32)}:
            raise NodeRefusedError("constants must have 8 bits, biases 32", f"{name!r} is {data.dtype}")
        return Constant(
            name=name, data=data, scale=scale, zero_point=zero.astype(np.int64), axis=axis % max(data.ndim, 1)
        )

    def _scales(self, node: onnx.NodeProto) -> tuple[Array, Array, int]:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if attributes.get("block_size", 0):
            raise NodeRefusedError("block-wise scales have no TFLite form", f"block_size {attributes['block_size']}")
        if node.input[1] not in self.constants:
            raise NodeRefusedError("scales must be constant", node.input[1])
        scale = np.atleast_1d(self.constants[node.input[1]]).astype(np.float32)
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise NodeRefusedError("scales must be positive and finite", f"{node.input[1]!r}")
        if len(node.input) > 2 and node.input[2]:
            if node.input[2] not in self.constants:
                raise NodeRefusedError("zero points must be constant", node.input[2])
            zero = np.atleast_1d(self.constants[node.input[2]])
        else:
            zero = np.zeros(
                scale.shape, self._dtype(node.output[0] if node.op_type == "QuantizeLinear" else node.input[0])
            )
        return scale, zero.astype(np.int64) if zero.dtype.itemsize > 2 else zero, int(attributes.get("axis", 1))

    def _dtype(self, name: str) -> np.dtype[Any]:
        """Of integers without a zero point: uint8 unless the graph says otherwise."""
        if name in self.constants:
            return self.constants[name].dtype
        return helper.tensor_dtype_to_np_dtype(self.kinds.get(name) or onnx.TensorProto.UINT8)

    def _activation(self, node: onnx.NodeProto, name: str, shape: tuple[int, ...]) -> Activation:
        scale, zero, _ = self._scales(node)
        if zero.dtype not in {np.dtype(np.uint8), np.dtype(np.int8)}:
            raise NodeRefusedError("activations must have 8 bits", f"{name!r} has {zero.dtype}")
        if scale.size != 1:
            raise NodeRefusedError("an activation must have one scale", f"{name!r} has {scale.size}")
        shift = 128 if zero.dtype == np.uint8 else 0
        return Activation(name=name, shape=shape, scale=float(scale[0]), zero_point=int(zero[0]) - shift)

    def _fold_clamps(self, name: str) -> tuple[tuple[float, float] | None, str]:
        low, high, name = -np.inf, np.inf, self._source(name, forward=True)
        while True:
            readers = self.consumers.get(name, [])
            if len(readers) != 1 or readers[0].op_type not in CLAMPS or name in self.outputs:
                break
            node = readers[0]
            bounds = _clip_bounds(node.op_type, [self._operand(i) for i in node.input[1:]], node)
            low, high = float(np.clip(low, *bounds)), float(np.clip(high, *bounds))
            self.folded.add(node.output[0])
            name = self._source(node.output[0], forward=True)
        return (None if (low, high) == (-np.inf, np.inf) else (low, high)), name

    def _result(self, node: onnx.NodeProto, name: str, inputs: tuple[Operand, ...]) -> Activation:
        readers = self.consumers.get(name, [])
        for reader in readers:
            if reader.op_type == "QuantizeLinear":
                return self._activation(reader, reader.output[0], self._shape(name))
        if not readers and node.op_type in SELF_SCALED:
            return self._self_scaled(node, name)
        first = inputs[0] if inputs else None
        if not readers and len(node.output) > 1 and isinstance(first, Activation):  # an output that nobody reads
            return Activation(name=name, shape=self._shape(name), scale=first.scale, zero_point=first.zero_point)
        raise NodeRefusedError("the output must be quantized", f"float tensor {name!r}")

    def _self_scaled(self, node: onnx.NodeProto, name: str) -> Activation:
        if node.op_type not in SELF_SCALED:
            raise NodeRefusedError("the output must be quantized", f"{node.op_type} in float")
        scale, zero_point = SELF_SCALED[node.op_type]
        return Activation(name=name, shape=self._shape(name), scale=scale, zero_point=zero_point)

    def _source(self, name: str, *, forward: bool = False) -> str:
        """Steps over Identity and Dropout, towards the producer or towards the only consumer."""
        while True:
            nodes = (
                self.consumers.get(name, []) if forward else [self.producers[name]] if name in self.producers else []
            )
            if len(nodes) != 1 or nodes[0].op_type not in PASS_THROUGH:
                return name
            name = nodes[0].output[0] if forward else nodes[0].input[0]

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise NodeRefusedError("shapes must be static", f"{name!r} has none")
        return self.shapes[name]

    def _opset(self) -> int:
        return next((entry.version for entry in self.model.opset_import if entry.domain in {"", "ai.onnx"}), 1)


def _constant_value(node: onnx.NodeProto) -> Array:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    return numpy_helper.to_array(value) if attribute.name == "value" else np.asarray(value)


def _quantize(data: Array, scale: Array, zero: Array, axis: int) -> Array:
    shape = [1] * data.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    limits = np.iinfo(zero.dtype)
    scaled = np.rint(data / scale.reshape(shape)) + zero.astype(np.int64).reshape(shape)
    return np.asarray(np.clip(scaled, limits.min, limits.max).astype(zero.dtype))


def _clip_bounds(op: str, operands: list[Operand], node: onnx.NodeProto) -> tuple[float, float]:
    """Bounds of a Relu or Clip, from constants (opset 11+) or attributes (before)."""
    if op == "Relu":
        return 0.0, float(np.inf)
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return read_bounds(operands, attributes)
