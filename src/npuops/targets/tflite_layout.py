"""Where each ONNX tensor lies in the TFLite graph: its axis order, its scale, and the conversions between them.

ONNX images are NCHW, TFLite's are NHWC. Nothing is transposed until an operator needs another order: a `Value` says
which ONNX axis each stored axis is, so an ONNX Transpose costs nothing, and a Flatten in front of a fully connected
layer is paid by permuting its weights here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from npuops.targets.qdq_graph import Activation, Array, Constant, NodeRefusedError, Operand, QuantizedOp
from npuops.targets.tflite_writer import FUSED, TfliteBuilder

CHANNELS_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1)}
Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Stored axis `i` is ONNX axis `axes[i]`; `shape` is in ONNX order.

    With `flat_of`, this is a [N, K] view of that value and `axes` are its axes: nothing was written for the view yet.
    """

    tensor: int
    shape: tuple[int, ...]
    axes: Axes
    flat_of: Value | None = None


@dataclass(slots=True)
class Lowering:
    """The graph being written, and where each activation is."""

    builder: TfliteBuilder = field(default_factory=TfliteBuilder)
    values: dict[str, Value] = field(default_factory=dict)
    _converted: dict[tuple[int, str, tuple[int | float, ...]], int] = field(default_factory=dict)
    _fused: bool = False

    def value(self, operand: Operand) -> Value:
        """Where an operand lies, with the scale that the operand declares (a QUANTIZE is added where it differs)."""
        if operand is None:
            raise NodeRefusedError("an operand is missing")
        if isinstance(operand, Constant):
            return self._constant(operand)
        value = self.values[operand.name]
        return self.rescaled(value, operand.scale, operand.zero_point)

    def rescaled(self, value: Value, scale: float, zero_point: int) -> Value:
        """The same value at another scale."""
        old_scale, old_zero = self.builder.params(value.tensor)
        if (old_scale, old_zero) == (scale, zero_point):
            return value
        if value.tensor in self.builder.data:
            real = (self.builder.data[value.tensor].astype(np.float64) - old_zero) * old_scale
            levels = np.clip(np.rint(real / scale) + zero_point, -128, 127).astype(np.int8)
            name = self.builder.specs[value.tensor].name
            moved = self.builder.constant(name, levels, np.array([scale]), np.array([zero_point]))
            return Value(tensor=moved, shape=value.shape, axes=value.axes)
        key = (value.tensor, "quantize", (scale, zero_point))
        if key not in self._converted:
            spec = self.builder.specs[value.tensor]
            self._converted[key] = self.builder.activation(f"{spec.name}/quantize", spec.shape, scale, zero_point)
            self.builder.op("QUANTIZE", [value.tensor], [self._converted[key]], "QuantizeOptions")
        flat = None if value.flat_of is None else self.rescaled(value.flat_of, scale, zero_point)
        return Value(tensor=self._converted[key], shape=value.shape, axes=value.axes, flat_of=flat)

    def _constant(self, operand: Constant) -> Value:
        if operand.scale is None or operand.zero_point is None or operand.data.dtype != np.int8:
            found = f"{operand.name!r} is {operand.data.dtype}"
            raise NodeRefusedError("every operand must be quantized to 8 bits", found)
        if operand.scale.size != 1:
            raise NodeRefusedError("this constant must have one scale", f"{operand.name!r} has {operand.scale.size}")
        tensor = self.builder.constant(operand.name, operand.data, operand.scale, operand.zero_point)
        return Value(tensor=tensor, shape=operand.data.shape, axes=tuple(range(operand.data.ndim)))

    def stored(self, value: Value, axes: Axes) -> int:
        """The tensor with its axes in that order: as it is, reshaped where only axes of size 1 move, or transposed."""
        if value.flat_of is not None:
            whole, plain = value.flat_of, tuple(range(len(value.shape)))
            rows = self.stored(whole, tuple(range(len(whole.shape))))
            value = Value(tensor=self.reshaped(rows, value.shape), shape=value.shape, axes=plain)
        if value.axes == axes:
            return value.tensor
        shape = [value.shape[axis] for axis in axes]
        if _order(value.axes, value.shape) == _order(axes, value.shape):
            return self.reshaped(value.tensor, shape)
        moves = tuple(value.axes.index(axis) for axis in axes)
        if value.tensor in self.builder.data:
            return self._moved(value.tensor, self.builder.data[value.tensor].transpose(moves))
        key = (value.tensor, "transpose", moves)
        if key not in self._converted:
            name = f"{self.builder.specs[value.tensor].name}/transpose"
            self._converted[key] = self.builder.like(value.tensor, name, shape)
            order = self.builder.constant(f"{name}/order", np.array(moves, np.int32))
            self.builder.op("TRANSPOSE", [value.tensor, order], [self._converted[key]], "TransposeOptions")
        return self._converted[key]

    def plain(self, operand: Operand) -> int:
        """The operand's tensor in ONNX axis order."""
        value = self.value(operand)
        return self.stored(value, tuple(range(len(value.shape))))

    def reshaped(self, tensor: int, shape: Sequence[int], name: str = "") -> int:
        """The same bytes under another shape."""
        spec = self.builder.specs[tensor]
        if spec.shape == tuple(shape):
            return tensor
        if tensor in self.builder.data:
            return self._moved(tensor, self.builder.data[tensor].reshape(shape))
        key = (tensor, "reshape", tuple(shape))
        if key not in self._converted:
            out = self.builder.like(tensor, name or f"{spec.name}/reshape", shape)
            self.reshape_into(tensor, out)
            self._converted[key] = out
        return self._converted[key]

    def _moved(self, tensor: int, data: Array) -> int:
        """A constant in another order, at its own scale."""
        scale, zero_point = self.builder.params(tensor)
        name = self.builder.specs[tensor].name
        return self.builder.constant(name, data, np.array([scale]), np.array([zero_point]))

    def reshape_into(self, tensor: int, out: int) -> None:
        """A RESHAPE between two tensors that exist."""
        shape = np.array(self.builder.specs[out].shape, np.int32)
        handle = self.builder.constant(f"{self.builder.specs[out].name}/shape", shape)
        self.builder.op("RESHAPE", [tensor, handle], [out], "ReshapeOptions", newShape=shape)

    def spatial(self, operand: Operand) -> int:
        """The tensor as NHWC; a sequence [N, C, L] becomes [N, 1, L, C]."""
        value = self.value(operand)
        rank = len(value.shape)
        if rank not in CHANNELS_LAST:
            raise NodeRefusedError("rank must be 3 or 4", f"rank {rank}")
        tensor = self.stored(value, CHANNELS_LAST[rank])
        return tensor if rank == 4 else self.reshaped(tensor, nhwc(value.shape))

    def set(self, activation: Activation, tensor: int, axes: Axes | None = None, flat_of: Value | None = None) -> None:
        """Say where an activation lies; plain ONNX order when `axes` is None."""
        axes = tuple(range(len(activation.shape))) if axes is None else axes
        self.values[activation.name] = Value(tensor=tensor, shape=activation.shape, axes=axes, flat_of=flat_of)

    def output(self, op: QuantizedOp, axes: Axes | None = None, index: int = 0) -> int:
        """A new tensor for an output of `op`, with the scale that the graph declares."""
        made = op.outputs[index]
        return self.output_as(op, (made.scale, made.zero_point), axes, index)

    def output_as(self, op: QuantizedOp, params: tuple[float, int], axes: Axes | None = None, index: int = 0) -> int:
        """A new tensor for an output of `op` with a scale that the TFLite kernel demands."""
        made = op.outputs[index]
        order = tuple(range(len(made.shape))) if axes is None else axes
        name = op.name if len(op.outputs) == 1 else f"{op.name}:{index}"
        tensor = self.builder.activation(name, [made.shape[axis] for axis in order], *params)
        self.set(made, tensor, order)
        return tensor

    def spatial_output(self, op: QuantizedOp, params: tuple[float, int] | None = None) -> int:
        """A new NHWC tensor for the output of `op`; `close_spatial` gives sequences their rank back."""
        made = op.outputs[0]
        scale_and_zero = params or (made.scale, made.zero_point)
        if len(made.shape) == 4:
            return self.output_as(op, scale_and_zero, CHANNELS_LAST[4])
        return self.builder.activation(f"{op.name}/image", nhwc(made.shape), *scale_and_zero)

    def close_spatial(self, op: QuantizedOp, tensor: int) -> None:
        """Register the output of a sequence operator."""
        made = op.outputs[0]
        if len(made.shape) == 3:
            shape = [made.shape[axis] for axis in CHANNELS_LAST[3]]
            self.set(made, self.reshaped(tensor, shape, op.name), CHANNELS_LAST[3])

    def fused(self, op: QuantizedOp) -> int:
        """The fused activation that stands for the operator's clamp, if TFLite has it; `apply_clamp` does the rest."""
        code = _fusable(op)
        self._fused = code is not None
        return FUSED[code or "NONE"]

    def apply_clamp(self, op: QuantizedOp) -> None:
        """Clamp the output by MAXIMUM and MINIMUM where it was not fused; clamping integers is exact."""
        fused, self._fused = self._fused, False
        if op.clamp is None or fused:
            return
        made = op.outputs[0]
        self.values[made.name] = self.clamped(self.values[made.name], op.clamp, op.name)

    def clamped(self, value: Value, bounds: tuple[float, float], name: str) -> Value:
        """The value limited to the real interval `bounds`."""
        scale, zero_point = self.builder.params(value.tensor)
        tensor = value.tensor
        for code, bound, idle in (("MAXIMUM", bounds[0], -128), ("MINIMUM", bounds[1], 127)):
            level = idle if np.isinf(bound) else int(np.clip(np.rint(bound / scale) + zero_point, -128, 127))
            if level == idle:
                continue
            limit = self.builder.constant(
                f"{name}/{code.lower()}", np.array([level], np.int8), np.array([scale]), np.array([zero_point])
            )
            out = self.builder.like(tensor, f"{name}/{code.lower()}", self.builder.specs[tensor].shape)
            self.builder.op(code, [tensor, limit], [out], "MaximumMinimumOptions")
            tensor = out
        whole = None if value.flat_of is None else replace(value.flat_of, tensor=tensor)
        return replace(value, tensor=tensor, flat_of=whole)


def nhwc(shape: Sequence[int]) -> tuple[int, ...]:
    """[N, C, H, W] → [N, H, W, C]; [N, C, L] → [N, 1, L, C]."""
    if len(shape) == 3:
        return shape[0], 1, shape[2], shape[1]
    return shape[0], shape[2], shape[3], shape[1]


def _order(axes: Axes, shape: Sequence[int]) -> list[int]:
    return [axis for axis in axes if shape[axis] != 1]


def _fusable(op: QuantizedOp) -> str | None:
    """NONE where saturation already clamps, a fused activation, or None."""
    if op.clamp is None:
        return "NONE"
    scale, zero_point = op.outputs[0].scale, op.outputs[0].zero_point
    reach = (-128 - zero_point) * scale, (127 - zero_point) * scale
    low, high = op.clamp
    low = -np.inf if low <= reach[0] else low
    high = np.inf if high >= reach[1] else high
    names = {(-np.inf, np.inf): "NONE", (0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
    return names.get((low, high)) or names.get(op.clamp)
