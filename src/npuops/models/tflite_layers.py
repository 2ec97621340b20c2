"""The layer view of a TFLite graph, in TFLite's words and its NHWC shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from npuops.models.model import Fact, Layer
from npuops.models.onnx_layers import size_of
from npuops.models.tflite_graph import TfliteGraph, TfliteOp, TfliteTensor

_FREE_CUSTOM: Final = frozenset({"CUSTOM:TFLite_Detection_PostProcess"})
"""Custom operators that are known to multiply nothing worth counting."""


def tflite_layers(graph: TfliteGraph) -> tuple[Layer, ...]:
    """The layers of a graph whose shapes are known (`npuops.models.tflite_shapes`), in its order."""
    seen: set[int] = set()
    return tuple(_layer(op, index, graph.tensors, seen) for index, op in enumerate(graph.operators))


def tflite_facts(graph: TfliteGraph) -> Iterator[Fact]:
    """What is special about this file."""
    custom = sorted({op.op.removeprefix("CUSTOM:") for op in graph.operators if op.op.startswith("CUSTOM:")})
    if "ethos-u" in custom:
        yield Fact(
            kind="already-compiled",
            message="the graph holds an ethos-u command stream: Vela has compiled it",
            advice="take the TFLite file from before Vela; this one runs on its Ethos-U only",
        )
    elif custom:
        yield Fact(
            kind="custom-op",
            message=f"custom operators: {', '.join(custom[:5])}",
            advice="they run on the CPU on every NPU; cut them off and run them after the model",
        )
    free = [graph.tensors[index].name for index in graph.inputs if -1 in graph.tensors[index].signature]
    if free:
        yield Fact(
            kind="resizable",
            message=f"inputs that can be resized: {', '.join(free[:5])}; shown with the sizes in the file",
            advice="other sizes: --shape NAME=8x96x96x3",
        )
    if graph.subgraph_count > 1:
        yield Fact(
            kind="subgraphs",
            message=f"{graph.subgraph_count} subgraphs; the view shows the first",
            advice="control flow does not run on an NPU",
        )


def _layer(op: TfliteOp, index: int, tensors: Sequence[TfliteTensor], seen: set[int]) -> Layer:
    named = [position for position in dict.fromkeys(op.inputs) if position >= 0]
    weights = [position for position in named if tensors[position].data is not None]
    fresh = [position for position in weights if position not in seen]
    seen.update(weights)
    outputs = tuple(tensors[position].info for position in op.outputs if position >= 0)
    sizes = [size_of(tensor) for tensor in outputs]
    return Layer(
        name=f"{op.op.removeprefix('CUSTOM:').lower()}_{index}",
        op=op.op,
        inputs=tuple(tensors[position].info for position in named if tensors[position].data is None),
        weights=tuple(tensors[position].info for position in weights),
        outputs=outputs,
        attributes=op.options,
        macs=_count(op, tensors),
        weight_bytes=sum(len(data) for position in fresh if (data := tensors[position].data) is not None),
        activation_bytes=None if None in sizes else sum(size or 0 for size in sizes),
    )


def _count(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int | None:
    if op.op in _UNKNOWN or (op.op.startswith("CUSTOM:") and op.op not in _FREE_CUSTOM):
        return None
    if op.op not in _MACS:
        return 0
    try:
        return _MACS[op.op](op, tensors)
    except (ValueError, IndexError):
        return None


def _conv(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int:
    return math.prod(tensors[op.outputs[0]].sizes) * math.prod(tensors[op.inputs[1]].sizes[1:])


def _depthwise(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int:
    return math.prod(tensors[op.outputs[0]].sizes) * math.prod(tensors[op.inputs[1]].sizes[1:3])


def _transposed(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int:
    return math.prod(tensors[op.inputs[2]].sizes) * math.prod(tensors[op.inputs[1]].sizes[:3])


def _conv_3d(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int:
    return math.prod(tensors[op.outputs[0]].sizes) * math.prod(tensors[op.inputs[1]].sizes[:4])


def _fully_connected(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int:
    return math.prod(tensors[op.outputs[0]].sizes) * tensors[op.inputs[1]].sizes[-1]


def _batch_matmul(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int:
    first = tensors[op.inputs[0]].sizes
    return math.prod(tensors[op.outputs[0]].sizes) * first[-2 if op.number("adj_x") else -1]


def _sequence_lstm(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int:
    """Operands 1 to 8 are the input and recurrent matrices of the four gates (the first may be left out)."""
    gates = [tensors[index].sizes for index in op.inputs[1:9] if index >= 0]
    return math.prod(tensors[op.inputs[0]].sizes[:2]) * sum(math.prod(gate) for gate in gates)


_UNKNOWN: Final = frozenset(
    {
        *("IF", "WHILE", "CALL", "DELEGATE", "LSTM", "SVDF", "RNN", "CONV_3D_TRANSPOSE"),
        *("UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM"),
        *("STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "STABLEHLO_WHILE"),
        *("STABLEHLO_COMPOSITE", "STABLEHLO_CUSTOM_CALL"),
    }
)
_MACS: Final[Mapping[str, Callable[[TfliteOp, Sequence[TfliteTensor]], int]]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "CONV_3D": _conv_3d,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _sequence_lstm,
}
