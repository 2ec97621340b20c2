"""When parity fails: which tensor inside the graph diverges first?

Two searches. `engine_divergence` exposes the graph's inner tensors as outputs, compiles that graph for the
target again and compares tensor by tensor with the reference: it finds where the *toolchain* went wrong.
`quantization_divergence` compares the quantized graph with the float one, both on the reference: it finds
where *quantization* went wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from npuops.artifacts.evidence import Divergence
from npuops.artifacts.manifest import Artifact
from npuops.evaluate.metrics import Array, cosine, sqnr_db
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.models.onnx_file import read_onnx, write_onnx
from npuops.models.shapes import infer_shapes

DIVERGED_DB = 12.0
"""A tensor whose signal to noise ratio is below this carries little of its signal; 8-bit noise is 25 to 45 dB."""
WINDOW = 3
"""Tensors shown before and after the first that diverges."""
SAMPLES = 2
"""Enough to see garbage; each costs a run of an emulator."""
LOST_DB = -200.0
"""Where the engine answers NaN or infinity and the reference a number."""
DQ_SUFFIX = "_DequantizeLinear_Output"

BuildProbe = Callable[[Path, Path], Artifact]
"""Compiles an ONNX file into a folder, for the target under suspicion."""
RunProbe = Callable[[Artifact, Samples], dict[str, Array]]


def engine_divergence(
    quantized: Path, samples: Samples, build_probe: BuildProbe, run_probe: RunProbe
) -> tuple[Divergence, ...]:
    """The tensors around the first one at which the engine leaves the reference, earliest first.

    Args:
        quantized: the graph that was compiled (QDQ, or float for float precisions).
        samples: evaluation inputs; the first few are used.
        build_probe: compiles the graph with more outputs.
        run_probe: runs what it built; tensors that it does not give, or in another shape, are left out.

    Raises:
        NpuopsError: the toolchain does not take the graph with its inner tensors exposed.
    """
    few = _few(samples)
    with tempfile.TemporaryDirectory(prefix="npuops-localise-", dir=quantized.parent) as name:
        probe_path = Path(name) / "probe.onnx"
        tensors = expose_tensors(quantized, probe_path)
        folder = Path(name) / "compiled"
        folder.mkdir()
        got = run_probe(build_probe(probe_path, folder), few)
        wanted = run_reference(probe_path, few)
    known = [pair for pair in tensors if pair[1] in got and got[pair[1]].shape == wanted[pair[1]].shape]
    return around_first([_divergence(node, tensor, got[tensor], wanted[tensor]) for node, tensor in known])


def quantization_divergence(float_model: Path, quantized: Path, samples: Samples) -> tuple[Divergence, ...]:
    """The tensors around the first one that quantization destroyed; both graphs run on the reference.

    Tensors are matched by name: the quantizer calls the quantized form of `t` `t_DequantizeLinear_Output`.
    Empty when the names do not match, as for a graph that came quantized.
    """
    few = _few(samples)
    with tempfile.TemporaryDirectory(prefix="npuops-localise-", dir=quantized.parent) as name:
        float_probe, quantized_probe = Path(name) / "float.onnx", Path(name) / "quantized.onnx"
        in_float = {tensor: node for node, tensor in expose_tensors(float_model, float_probe)}
        in_quantized = [tensor for _, tensor in expose_tensors(quantized, quantized_probe)]
        pairs = [(tensor.removesuffix(DQ_SUFFIX), tensor) for tensor in in_quantized]
        matched = [(plain, tensor) for plain, tensor in pairs if plain in in_float]
        if not matched:
            return ()
        wanted = run_reference(float_probe, few, outputs=[plain for plain, _ in matched])
        got = run_reference(quantized_probe, few, outputs=[tensor for _, tensor in matched])
    return around_first([_divergence(in_float[plain], plain, got[tensor], wanted[plain]) for plain, tensor in matched])


def expose_tensors(source: Path, out: Path) -> list[tuple[str, str]]:
    """Write `source` with its inner float tensors as further outputs; (node, tensor) in topological order.

    In a QDQ graph these are the dequantized activations, otherwise every float output of a node.
    """
    proto = infer_shapes(read_onnx(source), trusted=True)
    graph = proto.graph
    types = {info.name: info for info in graph.value_info}
    already = {output.name for output in graph.output}
    found: list[tuple[str, str]] = []
    for node, tensor in _inner_tensors(graph):
        if tensor in already:
            found.append((node, tensor))
        elif tensor in types and types[tensor].type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            graph.output.append(types[tensor])
            found.append((node, tensor))
    write_onnx(proto, out)
    return found


def _inner_tensors(graph: onnx.GraphProto) -> list[tuple[str, str]]:
    producers = {output: node for node in graph.node for output in node.output}
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)
    found: list[tuple[str, str]] = []
    for node in graph.node:
        source = producers.get(node.input[0]) if node.input else None
        if not quantized:
            found += [(node.name or output, output) for output in node.output if output]
        elif node.op_type == "DequantizeLinear" and source is not None and source.op_type == "QuantizeLinear":
            maker = producers.get(source.input[0])
            found.append(((maker.name if maker is not None else "") or source.input[0], node.output[0]))
    return found


def around_first(tensors: Sequence[Divergence]) -> tuple[Divergence, ...]:
    """The window around the first tensor below `DIVERGED_DB`; around the worst one if none is."""
    if not tensors:
        return ()
    levels = [np.inf if tensor.sqnr_db is None else tensor.sqnr_db for tensor in tensors]
    first = next((index for index, level in enumerate(levels) if level < DIVERGED_DB), int(np.argmin(levels)))
    return tuple(tensors[max(0, first - WINDOW) : first + WINDOW + 1])


def _divergence(node: str, tensor: str, got: Array, wanted: Array) -> Divergence:
    if (~np.isfinite(got) & np.isfinite(wanted)).any():
        return Divergence(node=node, tensor=tensor, sqnr_db=LOST_DB, cosine=None)
    known = np.isfinite(wanted)  # a mask holds infinity in the reference itself: there is nothing to compare with
    got, wanted = np.where(known, got, 0), np.where(known, wanted, 0)
    return Divergence(node=node, tensor=tensor, sqnr_db=sqnr_db(got, wanted), cosine=cosine(got, wanted))


def _few(samples: Samples) -> Samples:
    return replace(samples, inputs=samples.inputs[:SAMPLES], labels=None)
