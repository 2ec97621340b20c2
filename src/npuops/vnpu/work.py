"""A model's layers as work for a MAC array: what is multiplied, what moves, and what a compiler folds away. Pure.

One `Work` per layer, in the order of `Model.layers`, from ONNX and TFLite alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from npuops.models.model import QDQ_OPS, Layer, Model, TensorInfo
from npuops.vnpu.work_kinds import CONVOLUTIONS, MAC_KINDS, RECURRENT, Kind, kind_of, number, sizes_of


class Fold(StrEnum):
    """Which compilers fold a layer into its neighbours, so that it costs no pass of its own."""

    NO = "no"
    ALL = "all"
    """Every compiler: activations that clamp, scales, residual sums."""
    GATE = "gate"
    """The function in `x * f(x)`: a lookup behind the array on some chips, a pass of its own on others."""
    JOIN = "join"
    """Concat, Split, Slice: some compilers let the neighbours write to, or read from, the right place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One layer. A product has, per group, `rows` x `depth` activations times `depth` x `columns` weights."""

    name: str
    op: str
    kind: Kind
    macs: int
    groups: int = 1
    rows: int = 0
    """Output positions."""
    columns: int = 0
    """Output channels per group."""
    depth: int = 0
    """Length of one dot product."""
    channels: int = 0
    """Input channels per group: the part of `depth` that is contiguous in memory."""
    weight_elements: int = 0
    tensors: tuple[tuple[int, int], ...] = ()
    """Elements and channels of every activation read and written: devices store channels in groups."""
    fold: Fold = Fold.NO


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One inference: the work of every layer in order, and what crosses from the host and back."""

    name: str
    layers: tuple[Work, ...]
    input_elements: int
    output_elements: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)


def workload_of(model: Model) -> Workload:
    """The work of a model; unknown sizes count as nothing, and `Model.facts` tells of them."""
    folds = folds_of(model.layers)
    return Workload(
        name=model.path.stem,
        layers=tuple(_work(layer, fold) for layer, fold in zip(model.layers, folds, strict=True)),
        input_elements=sum(_elements(tensor) for tensor in model.inputs),
        output_elements=sum(_elements(tensor) for tensor in model.outputs),
    )


def _work(layer: Layer, fold: Fold) -> Work:
    kind = kind_of(layer)
    weights = sum(_elements(tensor) for tensor in layer.weights)
    base = Work(
        name=layer.name,
        op=layer.op,
        kind=kind,
        macs=layer.macs or 0,
        weight_elements=weights if kind in MAC_KINDS or layer.macs else 0,
        tensors=tuple((_elements(tensor), _channels(tensor, layer)) for tensor in (*layer.inputs, *layer.outputs)),
        fold=fold,
    )
    return _product(base, layer) if kind in MAC_KINDS and layer.macs else base


def _product(base: Work, layer: Layer) -> Work:
    """Fill in the product's sizes; `groups * rows * columns * depth` is the layer's MACs."""
    if layer.op in RECURRENT:
        depth = channels = max(1, (sizes_of(layer.weights[0]) or (1,))[-1])
        groups, columns = 1, max(1, base.weight_elements // depth)
    else:
        groups, columns, depth, channels = _sizes(layer)
    rows = max(1, round((layer.macs or 0) / (groups * columns * depth)))
    return replace(base, groups=groups, rows=rows, columns=columns, depth=depth, channels=channels)


def _sizes(layer: Layer) -> tuple[int, int, int, int]:
    """Groups, columns, depth, channels of a product."""
    weight = sizes_of(layer.weights[0]) if layer.weights else ()
    result = sizes_of(layer.outputs[0])
    if layer.op in CONVOLUTIONS and len(weight) > 2:
        groups = _groups(layer)
        return groups, max(1, weight[0] // groups), max(1, math.prod(weight[1:])), max(1, weight[1])
    if layer.op in {"ConvTranspose"} and len(weight) > 2:
        groups = _groups(layer)
        depth = max(1, weight[0] // groups)
        return groups, max(1, weight[1] * math.prod(weight[2:])), depth, depth
    if layer.op in {"CONV_2D", "CONV_3D"} and len(weight) > 2:
        return 1, weight[0], math.prod(weight[1:]), weight[-1]
    if layer.op == "TRANSPOSE_CONV" and len(weight) > 2:
        return 1, weight[0] * weight[1] * weight[2], weight[-1], weight[-1]
    if layer.op == "DEPTHWISE_CONV_2D" and len(weight) > 2:
        return weight[-1], 1, weight[1] * weight[2], 1
    columns = result[-1] if result else 1
    depth = _inner(layer)
    batches = math.prod(result[:-2]) if kind_of(layer) is Kind.ATTENTION else 1
    return batches, columns, depth, depth


def _groups(layer: Layer) -> int:
    """A group count below 1 is malformed, and says nothing."""
    return max(1, number(layer.attributes, "group", 1))


def _inner(layer: Layer) -> int:
    """Length of the dot product of a matrix product."""
    results = math.prod(sizes_of(layer.outputs[0]) or (1,))
    return max(1, round((layer.macs or 0) / max(1, results)))


def folds_of(layers: Sequence[Layer]) -> tuple[Fold, ...]:
    """How each layer may be folded.

    Clamps, scales by a constant and residual sums follow a product on every NPU; `x * Sigmoid(x)` and
    `x * HardSigmoid(x)` are one activation (SiLU, HardSwish), whose gate only some chips compute on the way.
    """
    source = _sources(layers)
    readers = Counter(source(one.name) for layer in layers if layer.op not in QDQ_OPS for one in layer.inputs)
    maker = {tensor.name: index for index, layer in enumerate(layers) for tensor in layer.outputs}
    folds = [Fold.JOIN if layer.op in _JOINS else Fold.NO for layer in layers]

    def behind_product(tensor: TensorInfo) -> bool:
        index = maker.get(source(tensor.name))
        return index is not None and (kind_of(layers[index]) in MAC_KINDS or folds[index] is Fold.ALL)

    for index, layer in enumerate(layers):
        gate = _gate_of(layer, layers, maker, source)
        if gate is not None:
            folds[gate], folds[index] = Fold.GATE, Fold.ALL
        elif layer.inputs and (layer.op in _CLAMPS or (layer.op in _AFFINE and len(layer.inputs) == 1)):
            folds[index] = Fold.ALL if behind_product(layer.inputs[0]) else Fold.NO
        elif layer.op in _SUMS and any(behind_product(one) and readers[source(one.name)] == 1 for one in layer.inputs):
            folds[index] = Fold.ALL
    return tuple(folds)


def _sources(layers: Sequence[Layer]) -> Callable[[str], str]:
    """Tensor → the tensor that was computed, behind the Q/DQ pairs that only change its format."""
    behind: dict[str, str] = {}
    for layer in layers:
        if layer.op in QDQ_OPS and layer.inputs and layer.outputs:
            before = layer.inputs[0].name
            behind[layer.outputs[0].name] = behind.get(before, before)
    return lambda name: behind.get(name, name)


def _gate_of(
    layer: Layer, layers: Sequence[Layer], maker: Mapping[str, int], source: Callable[[str], str]
) -> int | None:
    """Index of the f in `x * f(x)`, if the layer is such a product."""
    if layer.op not in _PRODUCTS or len(layer.inputs) != 2:
        return None
    for gate, other in (layer.inputs, layer.inputs[::-1]):
        index = maker.get(source(gate.name))
        if index is None or layers[index].op not in _GATES:
            continue
        gated = layers[index].inputs
        if gated and source(gated[0].name) == source(other.name):
            return index
    return None


def _channels(tensor: TensorInfo, layer: Layer) -> int:
    """ONNX keeps pictures as NCHW, and rows of features with the features last; TFLite has channels last."""
    shape = sizes_of(tensor)
    if not shape:
        return 1
    return max(1, shape[1] if len(shape) > 3 and not layer.op.isupper() else shape[-1])


def _elements(tensor: TensorInfo) -> int:
    return tensor.elements or 0


_CLAMPS: Final = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "PRELU"}
)
_AFFINE: Final = frozenset({"BatchNormalization", "Add", "Sub", "Mul", "Div", "ADD", "SUB", "MUL", "DIV"})
"""With a constant operand they are a scale and a bias, which a product has anyway."""
_SUMS: Final = frozenset({"Add", "ADD", "Sum"})
_PRODUCTS: Final = frozenset({"Mul", "MUL"})
_JOINS: Final = frozenset({"Concat", "Split", "Slice", "CONCATENATION", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE"})
_GATES: Final = frozenset({"Sigmoid", "HardSigmoid", "LOGISTIC", "Tanh"})
