"""Builds the ONNX graph of a TFLite one: constants, layouts on demand, Q/DQ around every quantized tensor.

Every tensor exists in TFLite's own layout or, when rank 4, as NCHW; whoever needs the other gets one Transpose,
made once. So transposes appear only where layouts really meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from npuops.errors import UnsupportedModelError
from npuops.models.tflite_graph import NUMPY_DTYPES, TfliteGraph, TfliteOp, TfliteTensor

Array = NDArray[Any]
QUANTIZED: Final = frozenset({"int8", "uint8"})
ONNX_TYPES: Final = {name: helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for name, kind in NUMPY_DTYPES.items()}


class Layout(StrEnum):
    """Order of dimensions."""

    TF = "tf"
    """As in the TFLite file (NHWC where it is an image)."""
    NCHW = "nchw"


class OnnxBuilder:
    """Collects nodes and initializers while operators are imported one after the other."""

    def __init__(self, graph: TfliteGraph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.layer = "graph"
        self._values: dict[tuple[int, Layout], str] = {}
        self._native: dict[int, Layout] = {}
        self._folded: dict[int, Array] = {}
        self._shared: dict[tuple[str, bytes], str] = {}
        self._count = 0

    # What is known about tensors.

    def tensor(self, index: int) -> TfliteTensor:
        """Tensor `index` of the TFLite graph."""
        return self.graph.tensors[index]

    def sizes(self, index: int) -> tuple[int, ...]:
        """Fixed sizes in TFLite's layout."""
        return self.graph.tensors[index].sizes

    def array(self, index: int) -> Array | None:
        """Stored values of a constant (quantized ones stay integers), or None."""
        if index in self._folded:
            return self._folded[index]
        values = self.graph.constant(index)
        return values.astype(np.float32) if values is not None and values.dtype == np.float16 else values

    def numbers(self, index: int, what: str) -> list[int]:
        """A constant vector of integers; raises UnsupportedModelError when it is computed at run time."""
        values = self.array(index)
        if values is None:
            raise UnsupportedModelError(f"{self.layer}: {what} is computed at run time", advice="fix it at conversion")
        return [int(value) for value in values.ravel()]

    def fold(self, index: int, values: Array) -> None:
        """Declare tensor `index` a constant."""
        self._folded[index] = values

    def is_quantized(self, index: int) -> bool:
        """Stored as 8-bit integers with a scale."""
        tensor = self.graph.tensors[index]
        return index not in self._folded and tensor.dtype in QUANTIZED and tensor.scales is not None

    def layout(self, *indices: int) -> Layout:
        """The layout in which an operator on these tensors costs no transpose of the first kind."""
        flows = [index for index in indices if index >= 0 and self.array(index) is None]
        natural = any(self._native.get(index) is Layout.NCHW for index in flows)
        same = all(len(self.sizes(index)) == 4 for index in flows)
        return Layout.NCHW if natural and same else Layout.TF

    # Values in and out.

    def value(self, index: int, layout: Layout = Layout.TF) -> str:
        """Name of the (dequantized) tensor in `layout`; makes the transpose or initializer it takes."""
        if (index, layout) in self._values:
            return self._values[index, layout]
        values = self.array(index)
        if values is not None:
            name = self._constant(index, to_nchw(values) if layout is Layout.NCHW else values)
        else:
            other = Layout.TF if layout is Layout.NCHW else Layout.NCHW
            if (index, other) not in self._values:
                raise UnsupportedModelError(
                    f"{self.layer} reads {self.tensor(index).name!r}, a variable that keeps state between inferences",
                    advice="convert the model without stateful operators",
                )
            name = self._turn(index, self._values[index, other], layout)
        self._values[index, layout] = name
        return name

    def weight(self, index: int, arrange: Callable[[Array], Array], axis: int) -> str:
        """A constant weight rearranged for ONNX, dequantized along `axis` where it is per channel."""
        values = self.array(index)
        if values is None:
            raise UnsupportedModelError(
                f"{self.layer}: its weights are computed at run time", advice="see docs/inspect.md"
            )
        return self._constant(index, arrange(values), axis)

    def bias(self, index: int, data: int, weight: int) -> str | None:
        """The bias as float, or None; an int32 one has the scale of input times weight (TFLite's kernels)."""
        if index < 0:
            return None
        values = self.array(index)
        if values is None:  # computed: it flows like any tensor
            if self.tensor(index).dtype != "float32":
                raise UnsupportedModelError(
                    f"{self.layer}: its bias is computed at run time, in integers", advice="fix it at conversion"
                )
            return self.reshape(self.value(index), [math.prod(self.sizes(index))])
        given, kernel = self.tensor(data).scales, self.tensor(weight).scales
        if values.dtype != np.int32 or given is None or kernel is None:
            return self.initializer(values.astype(np.float32).ravel())
        scale = np.asarray(kernel.scale, np.float32) * np.float32(given.scale[0])
        ints = self.initializer(values.ravel())
        if len(scale) == 1:
            return self.node("DequantizeLinear", [ints, self.initializer(scale.reshape(()))])
        return self.node("DequantizeLinear", [ints, self.initializer(scale)], axis=0)

    def put(self, index: int, name: str, layout: Layout = Layout.TF, activation: str = "NONE") -> None:
        """`name` holds tensor `index`: apply the fused activation and its quantization."""
        self._values[index, layout] = self.rounded(index, self.activated(index, name, activation))
        self._native[index] = layout

    def rounded(self, index: int, name: str) -> str:
        """`name` through Q and DQ with the scale of tensor `index`, when that is quantized."""
        if not self.is_quantized(index):
            return name
        scale, zero = self._parameters(index)
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [name, scale, zero]), scale, zero])

    def activated(self, index: int, name: str, activation: str) -> str:
        """The fused activation, left out where the range of the quantized output does the same."""
        bounds = {"RELU": (0.0, math.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}.get(activation)
        if activation == "TANH":
            return self.node("Tanh", [name])
        if bounds is None and activation != "NONE":
            raise UnsupportedModelError(f"{self.layer}: fused activation {activation}")
        if bounds is None or self._saturates(index, *bounds):
            return name
        if bounds[1] == math.inf:
            return self.node("Relu", [name])
        low, high = (self.initializer(np.asarray(bound, np.float32)) for bound in bounds)
        return self.node("Clip", [name, low, high])

    # ONNX pieces.

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """One node with one output."""
        return self.nodes_out(op, inputs, 1, **attributes)[0]

    def nodes_out(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """One node with `count` outputs; returns their names."""
        self._count += 1
        outputs = [f"{self.layer}/{op}_{self._count}:{position}" for position in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=outputs[0][:-2], **attributes))
        return outputs

    def initializer(self, values: Array) -> str:
        """A constant of the ONNX graph; equal ones are stored once."""
        solid = np.ascontiguousarray(values).reshape(values.shape)
        key = (f"{solid.dtype}{solid.shape}", solid.tobytes())
        if key not in self._shared:
            name = f"constant_{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(solid, name))
            self._shared[key] = name
        return self._shared[key]

    def ints(self, values: Sequence[int]) -> str:
        """An int64 vector, as shapes, axes and pads are given."""
        return self.initializer(np.asarray(values, np.int64))

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Reshape to fixed sizes."""
        return self.node("Reshape", [name, self.ints(shape)])

    def _constant(self, index: int, values: Array, axis: int = 0) -> str:
        name = self.initializer(values)
        if not self.is_quantized(index):
            return name
        scales = self.tensor(index).scales
        along = {"axis": axis} if scales is not None and scales.per_channel else {}
        return self.node("DequantizeLinear", [name, *self._parameters(index)], **along)

    def _parameters(self, index: int) -> tuple[str, str]:
        tensor = self.tensor(index)
        if tensor.scales is None:
            raise ValueError(tensor.name)
        scale = np.asarray(tensor.scales.scale, np.float32)
        zero = np.asarray(tensor.scales.zero_point).astype(NUMPY_DTYPES[tensor.dtype])
        if len(scale) == 1:
            scale, zero = scale.reshape(()), zero.reshape(())
        return self.initializer(scale), self.initializer(zero)

    def _turn(self, index: int, name: str, layout: Layout) -> str:
        batch, high, wide, channels = self.sizes(index)
        if high == wide == 1:
            shape = (batch, channels, 1, 1) if layout is Layout.NCHW else (batch, 1, 1, channels)
            return self.rounded(index, self.reshape(name, shape))
        order = [0, 3, 1, 2] if layout is Layout.NCHW else [0, 2, 3, 1]
        return self.rounded(index, self.node("Transpose", [name], perm=order))

    def _saturates(self, index: int, low: float, high: float) -> bool:
        """The quantized range lies within the bounds, so that rounding clips by itself."""
        tensor = self.tensor(index)
        if not self.is_quantized(index) or tensor.scales is None:
            return False
        limits = np.iinfo(tensor.dtype)
        scale, zero = tensor.scales.scale[0], tensor.scales.zero_point[0]
        return (limits.min - zero) * scale >= low - scale / 2 and (limits.max - zero) * scale <= high + scale / 2


Importer = Callable[[OnnxBuilder, TfliteOp], None]
"""Adds one operator to the builder."""

NCHW_AXIS: Final = (0, 2, 3, 1)
"""Axis of an NHWC tensor → its place in NCHW."""


def to_nchw(values: Array) -> Array:
    """A constant operand that broadcasts against NHWC, turned to broadcast against NCHW."""
    if values.ndim == 0:
        return values
    return values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(0, 3, 1, 2)


def axis_in(layout: Layout, axis: int, rank: int) -> int:
    """Where an axis of TFLite's layout is in `layout`."""
    axis %= rank
    return NCHW_AXIS[axis] if layout is Layout.NCHW else axis
