"""Activations alive at once when a chip runs a model, as its compiler lays them into buffers. Pure.

What is folded into its neighbour shares that one's buffer, and so do views (Reshape, Q/DQ pairs). Copies that some
compilers avoid (Concat, Split) count: a peak that is too high costs a warning, one that is too low a wrong promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from npuops.models.macs import peak_activation_bytes
from npuops.models.model import QDQ_OPS, Layer, Model, TensorInfo
from npuops.models.onnx_tensors import bytes_of
from npuops.vnpu.perf import ACTIVATION_BYTES
from npuops.vnpu.work import Fold, Work

GATE_BYTES: Final = 2
"""The function in `x * f(x)` keeps 16 bits where it is a pass of its own on an int8 chip: STM32N6 needs exactly four
times the largest activation of YOLOv8n at 416 and of EfficientNetV2-S (x, f(x) twice as wide, and the product)."""

_VIEWS: Final = QDQ_OPS | frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
)
_NUMBERS: Final = frozenset({"float32", "float16", "bfloat16", "float64", "int8", "uint8", "int16", "uint16"})
"""Types that become the chip's number format; indices and masks keep their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The activations of one inference.

    Attributes:
        peak_bytes: most bytes alive at once, a lower bound of any allocation; None where the size of an input, or of
            a tensor that the NPU touches, is unknown.
        unknown: tensors of unknown size that only the host touches; they are not counted.
    """

    peak_bytes: int | None
    unknown: tuple[str, ...] = ()


def live_activations(
    model: Model, works: Sequence[Work], on_npu: Sequence[bool], folds: frozenset[Fold], number_format: str
) -> Live:
    """The peak over the layers in their order.

    Args:
        model: from a file.
        works: of its layers, in their order.
        on_npu: for each layer; those on the host count too, for on a small board the memory is the same.
        folds: what the chip's compiler folds away.
        number_format: of the chip's formats, for every float and every quantized tensor.
    """
    width = ACTIVATION_BYTES[number_format]
    layers = [_counted(layer, here) for layer, here in zip(model.layers, on_npu, strict=True)]
    buffers = _Buffers(layers, model.outputs)
    sizes = {tensor.name: _bytes(tensor, width) for tensor in model.inputs}
    for index, (layer, work) in enumerate(zip(layers, works, strict=True)):
        wide = work.fold is Fold.GATE and Fold.GATE not in folds
        for tensor in layer.outputs:
            sizes[tensor.name] = _bytes(tensor, max(width, GATE_BYTES) if wide else width)
        if wide:
            buffers.gates.update(tensor.name for tensor in layer.outputs)
        shared = buffers.shared_by(layer, folded=work.fold in folds, index=index, sizes=sizes)
        if shared is not None:
            buffers.put(layer.outputs[0].name, shared)
    peak = peak_activation_bytes(
        [buffers.renamed(layer) for layer in layers],
        model.inputs,
        [buffers.of(tensor.name) for tensor in model.outputs],
        lambda tensor: sizes.get(tensor.name, _bytes(tensor, width)),
    )
    unknown = {one.name for layer in model.layers for one in (*layer.inputs, *layer.outputs) if one.elements is None}
    return Live(peak_bytes=peak, unknown=tuple(sorted(unknown)) if peak is not None else ())


class _Buffers:
    """Which tensor lies in the buffer of which other."""

    def __init__(self, layers: Sequence[Layer], outputs: Iterable[TensorInfo]) -> None:
        self._last = {tensor.name: index for index, layer in enumerate(layers) for tensor in layer.inputs}
        self._last |= dict.fromkeys((tensor.name for tensor in outputs), len(layers))
        self._of: dict[str, str] = {}
        self.gates: set[str] = set()

    def of(self, name: str) -> str:
        """The buffer of a tensor, by the name of the first tensor in it."""
        return self._of.get(name, name)

    def put(self, name: str, buffer: str) -> None:
        """A tensor goes into a buffer, which then lives as long as the tensor."""
        self._of[name] = buffer
        self._last[buffer] = max(self._last.get(buffer, 0), self._last.get(name, 0))

    def shared_by(self, layer: Layer, *, folded: bool, index: int, sizes: dict[str, int | None]) -> str | None:
        """The buffer that a layer's first output may share; None where it needs one of its own."""
        if not layer.outputs or not layer.inputs or layer.activation_bytes is None:
            return None
        buffers = [self.of(tensor.name) for tensor in layer.inputs]
        if layer.op in _VIEWS:
            return buffers[0]
        if not folded or self.gates.intersection(buffers):
            return None
        needed = sizes[layer.outputs[0].name] or 0
        dying = (one for one in buffers if self._last.get(one) == index and (sizes.get(one) or 0) >= needed)
        return next(dying, None)

    def renamed(self, layer: Layer) -> Layer:
        """The layer with buffers for tensors."""
        return replace(layer, inputs=self._renamed(layer.inputs), outputs=self._renamed(layer.outputs))

    def _renamed(self, tensors: Iterable[TensorInfo]) -> tuple[TensorInfo, ...]:
        return tuple(replace(tensor, name=self.of(tensor.name)) for tensor in tensors)


def _counted(layer: Layer, here: bool) -> Layer:
    """The layer; on the host without its tensors of unknown size."""
    if here or all(tensor.elements is not None for tensor in (*layer.inputs, *layer.outputs)):
        return layer
    known = [tuple(one for one in tensors if one.elements is not None) for tensors in (layer.inputs, layer.outputs)]
    return replace(layer, inputs=known[0], outputs=known[1], activation_bytes=1 if known[1] else 0)


def _bytes(tensor: TensorInfo, width: int) -> int | None:
    if tensor.elements is None:
        return None
    return tensor.elements * width if tensor.dtype in _NUMBERS else bytes_of(tensor.dtype, tensor.elements)
