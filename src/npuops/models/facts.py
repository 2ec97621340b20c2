"""What a user should know about a model before taking it to an NPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from npuops.models.model import QDQ_OPS, Fact, Layer, TensorInfo
from npuops.models.onnx_tensors import bytes_of
from npuops.units import format_bytes

HUGE_BYTES = 64 * 2**20
_PER_CHANNEL_OPSET = 13
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap", "IF", "WHILE", "CALL"})


def common_facts(layers: Sequence[Layer], inputs: Sequence[TensorInfo]) -> Iterator[Fact]:
    """Facts that hold for both formats."""
    loose = [tensor.name for tensor in inputs if not tensor.is_static]
    if loose:
        yield Fact(
            kind="dynamic-shape",
            message=f"inputs without a fixed shape: {_some(loose)}",
            advice="NPU compilers want fixed shapes: give them with --shape NAME=1x3x224x224",
        )
    inner = [layer.name for layer in layers if not all(tensor.is_static for tensor in layer.outputs)]
    if inner and not loose:
        yield Fact(
            kind="dynamic-inside",
            message=f"{len(inner)} layers have outputs of unknown shape: {_some(inner)}",
            advice="such layers run on the CPU; simplify the graph, or check custom operators",
        )
    yield from _dtype_facts(layers)
    flow = [layer.name for layer in layers if layer.op in _CONTROL_FLOW]
    if flow:
        yield Fact(
            kind="control-flow",
            message=f"control flow: {_some(flow)}",
            advice="no NPU here runs branches or loops; unroll it at export",
        )
    yield from _huge(layers)


def _dtype_facts(layers: Sequence[Layer]) -> Iterator[Fact]:
    dtypes = {tensor.dtype for layer in layers for tensor in (*layer.outputs, *layer.weights)}
    for half in sorted(dtypes & {"float16", "bfloat16"}):
        yield Fact(kind=half, message=f"tensors in {half}", advice="quantize from the float32 model where you have it")
    if any(layer.op in QDQ_OPS for layer in layers) or dtypes & {"int8", "uint8", "int4", "uint4"}:
        yield Fact(kind="quantized", message="the model carries its own quantization; its scales are kept")


def _huge(layers: Sequence[Layer]) -> Iterator[Fact]:
    sizes = {
        tensor.name: bytes_of(tensor.dtype, tensor.elements)
        for layer in layers
        for tensor in (*layer.outputs, *layer.weights)
        if tensor.elements is not None
    }
    big = [name for name, size in sizes.items() if size > HUGE_BYTES]
    if big:
        top = max(big, key=sizes.__getitem__)
        yield Fact(
            kind="huge-tensor",
            message=f"{len(big)} tensors above {format_bytes(HUGE_BYTES)}; the largest is {top!r}, "
            f"{format_bytes(sizes[top])}",
            advice="it will not fit on-chip memory: expect streaming from DRAM, or tile the input",
        )


def domain_facts(layers: Sequence[Layer]) -> Iterator[Fact]:
    """Operators outside the standard."""
    odd = sorted({f"{layer.domain}.{layer.op}" for layer in layers if layer.domain})
    if odd:
        yield Fact(
            kind="unsupported-domain",
            message=f"operators outside standard ONNX: {_some(odd)}",
            advice="few NPU compilers take them; export without fused or custom operators",
        )


def onnx_facts(opset: int | None, ir_version: int, *, stripped: bool) -> Iterator[Fact]:
    """Facts about the file itself."""
    if opset is not None and opset < _PER_CHANNEL_OPSET:
        yield Fact(
            kind="old-opset",
            message=f"opset {opset}",
            advice=f"per-channel quantization needs opset {_PER_CHANNEL_OPSET}; export anew with opset 17",
        )
    if ir_version < 4:
        yield Fact(
            kind="old-ir",
            message=f"IR version {ir_version}: weights are listed among the inputs",
            advice="they are treated as constants",
        )
    if stripped:
        yield Fact(
            kind="weights-missing",
            message="weights without values: the file shows a structure only",
            advice="placement and cost can be judged; build and run need the full model",
        )


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(name[:80] for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
