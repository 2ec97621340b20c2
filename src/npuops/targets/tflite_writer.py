"""Writes TFLite flatbuffers: tensors, operators, one subgraph; the same calls give the same bytes.

The schema's object API comes from the `ai_edge_litert` package (extra `ethos-u`), imported when a builder is made.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import IncompatibleArtifactError, MissingToolchainError

Array = NDArray[Any]
INSTALL = "pip install 'npuops[ethos-u]'"

VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "TRANSPOSE_CONV": 3,
    "RESHAPE": 1,
    "HARD_SWISH": 1,
    "PRELU": 1,
    "RESIZE_BILINEAR": 3,
    "RESIZE_NEAREST_NEIGHBOR": 3,
    "MIRROR_PAD": 2,
}
"""Operator version with int8 kernels, by TFLite's own version table; 2 for the ones not named here."""

FUSED = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
"""Fused activation functions as numbered in the TFLite schema."""

SAME, VALID = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What was written for a tensor; scale and zero point are None for plain integers and per-channel weights."""

    name: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None


@dataclass(slots=True)
class TfliteBuilder:
    """Collects one graph. Tensor handles are indices into the subgraph."""

    specs: list[TensorSpec] = field(default_factory=list)
    data: dict[int, Array] = field(default_factory=dict)
    """What constants hold, so that moving one around is done here and not by an operator."""
    _schema: Any = field(init=False)
    _tensors: list[Any] = field(default_factory=list)
    _buffers: list[Any] = field(default_factory=list)
    _shared: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _codes: dict[str, int] = field(default_factory=dict)
    _operators: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._schema = schema = _schema()
        self._buffers.append(schema.BufferT())  # buffer 0 means "no data" in the format

    def activation(self, name: str, shape: Sequence[int], scale: float, zero_point: int) -> int:
        """An int8 tensor that is computed."""
        spec = TensorSpec(name=name, shape=tuple(shape), scale=scale, zero_point=zero_point)
        return self._add(spec, np.dtype(np.int8), 0, self._quantization([scale], [zero_point], 0))

    def like(self, tensor: int, name: str, shape: Sequence[int]) -> int:
        """An int8 tensor with the scale and zero point of another."""
        scale, zero_point = self.params(tensor)
        return self.activation(name, shape, scale, zero_point)

    def params(self, tensor: int) -> tuple[float, int]:
        """Scale and zero point of an int8 tensor with one scale."""
        spec = self.specs[tensor]
        if spec.scale is None or spec.zero_point is None:
            raise ValueError(f"{spec.name} has no single scale")
        return spec.scale, spec.zero_point

    def constant(
        self, name: str, data: Array, scale: Array | None = None, zero_point: Array | None = None, axis: int = 0
    ) -> int:
        """A tensor with data (int8, int32); equal ones are written once."""
        scales = None if scale is None else [float(value) for value in scale]
        zeros = [0] * len(scales or ()) if zero_point is None else [int(value) for value in zero_point]
        packed = np.array(data, order="C")  # keeps a scalar a scalar
        key = (packed.tobytes(), packed.shape, str(packed.dtype), tuple(scales or ()), tuple(zeros), axis)
        if key not in self._shared:
            single = scales is not None and len(scales) == 1
            spec = TensorSpec(
                name=name,
                shape=packed.shape,
                scale=scales[0] if single and scales else None,
                zero_point=zeros[0] if single else None,
            )
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(key[0], np.uint8)
            self._buffers.append(buffer)
            quantization = None if scales is None else self._quantization(scales, zeros, axis)
            self._shared[key] = self._add(spec, packed.dtype, len(self._buffers) - 1, quantization)
            self.data[self._shared[key]] = packed
        return self._shared[key]

    def op(self, code: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **values: Any) -> None:
        """An operator; `options` names the schema's option table, `values` its fields. Input -1: absent."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array(outputs, np.int32)
        if options:
            table = getattr(self._schema, options + "T")()
            for name, value in values.items():
                if not hasattr(table, name):
                    raise ValueError(f"{options} has no field {name}")
                setattr(table, name, value)
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            operator.builtinOptions = table
        self._operators.append(operator)

    def build(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        import flatbuffers  # noqa: PLC0415 - comes with the extra ethos-u

        graph = self._schema.SubGraphT()
        graph.name = b"main"
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        model = self._schema.ModelT()
        model.version = 3
        model.description = b"npuops"
        model.operatorCodes = [self._opcode(name) for name in self._codes]
        model.subgraphs, model.buffers = [graph], self._buffers
        packer = flatbuffers.Builder(1 << 20)
        packer.Finish(model.Pack(packer), b"TFL3")
        return bytes(packer.Output())

    def _opcode(self, name: str) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode = getattr(self._schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # readers older than 2020 look here
        code.version = VERSIONS.get(name, 2)
        return code

    def _add(self, spec: TensorSpec, dtype: np.dtype[Any], buffer: int, quantization: Any) -> int:
        tensor = self._schema.TensorT()
        tensor.name = spec.name.encode()
        tensor.shape = np.array(spec.shape, np.int32)
        tensor.type = getattr(self._schema.TensorType, str(dtype).upper())
        tensor.buffer = buffer
        tensor.quantization = quantization
        tensor.hasRank = True
        self._tensors.append(tensor)
        self.specs.append(spec)
        return len(self._tensors) - 1

    def _quantization(self, scales: Sequence[float], zeros: Sequence[int], axis: int) -> Any:
        table = self._schema.QuantizationParametersT()
        table.scale = np.array(scales, np.float32)
        table.zeroPoint = np.array(zeros, np.int64)
        table.quantizedDimension = axis
        return table


def with_fixed_shapes(data: bytes) -> bytes:
    """The same model without shape signatures: Keras notes a dynamic batch there, which TOSA graphs cannot have.

    Raises:
        MissingToolchainError: ai-edge-litert is absent.
        IncompatibleArtifactError: not a whole TFLite file.
    """
    schema = _schema()
    import flatbuffers  # noqa: PLC0415 - comes with the extra ethos-u

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    except (struct.error, ValueError, IndexError, TypeError) as error:
        raise IncompatibleArtifactError(
            f"not a whole TFLite file: {error}", advice="build the artifact again"
        ) from error
    tensors = [tensor for graph in model.subgraphs or () for tensor in graph.tensors or ()]
    if all(tensor.shapeSignature is None for tensor in tensors):
        return data
    for tensor in tensors:
        tensor.shapeSignature = None
    packer = flatbuffers.Builder(len(data))
    packer.Finish(model.Pack(packer), b"TFL3")
    return bytes(packer.Output())


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated  # noqa: PLC0415 - vendor package, extra ethos-u
    except ImportError as error:
        raise MissingToolchainError(f"ai-edge-litert is not installed: {error}", advice=INSTALL) from error
    return schema_py_generated
