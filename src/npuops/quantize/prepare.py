"""The float graph, made ready for quantization: constants folded, BatchNormalization merged, Gelu and LayerNorm fused.

Every rewrite is proved: the prepared graph must answer like the original on samples, or the rewrites are refused
and only what quantization cannot do without (opset, names, shapes) is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization.fusions import FusionGelu, FusionLayerNormalization
from onnxruntime.quantization.onnx_model import ONNXModel

from npuops.errors import MalformedModelError, RunError, UnsupportedModelError
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.events import Observer, Warned, ignore
from npuops.models.onnx_order import sort_graph
from npuops.models.shapes import infer_shapes, skeleton_of
from npuops.private_folder import private_folder
from npuops.quantize.bit_units import WEIGHT_OPS, own_constants
from npuops.quantize.ranges import float_activations

MIN_OPSET = 13
"""Per-channel DequantizeLinear begins here."""
LAYERNORM_OPSET = 17
UNLISTED_WEIGHTS_IR = 4
"""IR version since which weights need not be listed among the inputs."""
PROOF_SAMPLES = 2
TOLERANCE = 1e-3
"""Largest difference, relative to the largest output value, that folding and fusing may cause in float32."""

HALF_PRECISION = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
QUANTIZED_PREFIXES = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinear",
    "MatMulInteger",
    "ConvInteger",
    "DynamicQuantize",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A float graph in memory, with inferred shapes and a name on every node."""

    model: onnx.ModelProto
    notes: tuple[str, ...]
    """What was rewritten, in a few words each."""


def prepare(path: Path, samples: Samples, *, observe: Observer = ignore) -> Prepared:
    """Read a float ONNX file and make it ready.

    Args:
        path: static input shapes, at most 2 GiB.
        samples: at least one; the first two prove equality.
        observe: gets `Warned` when the rewrites are refused.

    Raises:
        UnsupportedModelError: already quantized, dynamic, not float32, or too large.
        MalformedModelError: not a model.
        RunError: ONNX Runtime refuses the model.
    """
    original = _load(path)
    _refuse_unquantizable(original, path)
    base = _upgrade(original)
    wanted = run_reference(path, samples.first(PROOF_SAMPLES))
    try:
        model, notes = _rewrite(base)
        _finish(model)
        difference = _difference(model, wanted, samples)
    except Exception as error:  # noqa: BLE001 - the fusions are third-party code: any failure means "refused"
        difference, reason = np.inf, _first_line(error)
    else:
        reason = f"outputs differ by {difference:.2g} of their range"
        if difference <= TOLERANCE:
            return Prepared(model=model, notes=notes)
    observe(
        Warned(
            step="prepare",
            message=f"the graph rewrites were refused ({reason}); the model is quantized as it is",
            advice="operators that could have been fused are quantized one by one, which costs accuracy",
        )
    )
    _finish(base)
    if _difference(base, wanted, samples) > TOLERANCE:
        raise UnsupportedModelError(f"{path.name} answers differently after its upgrade to opset {_opset(base)}")
    return Prepared(model=base, notes=())


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except OSError as error:
        raise MalformedModelError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        raise MalformedModelError(f"{path} is not a valid ONNX model: {_first_line(error)}") from error
    if model.ByteSize() >= 2**31 - 2**20:
        raise UnsupportedModelError(
            f"{path} holds more than 2 GiB of weights; quantization works in one protobuf message",
            advice="split the model, or quantize its parts one by one",
        )
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise MalformedModelError(f"{path} is not a valid ONNX model: {_first_line(error)}") from error
    return model


def _refuse_unquantizable(model: onnx.ModelProto, path: Path) -> None:
    done = Counter(node.op_type for node in model.graph.node if node.op_type.startswith(QUANTIZED_PREFIXES))
    if done:
        op, count = done.most_common(1)[0]
        raise UnsupportedModelError(
            f"{path} is quantized already ({count} {op} nodes)",
            advice="give the float model to quantize it anew, or build this one as it is",
        )
    _refuse_half_precision(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        if value.name not in constants and any(not dim.HasField("dim_value") for dim in shape.dim):
            dims = ",".join(dim.dim_param or str(dim.dim_value or "?") for dim in shape.dim)
            raise UnsupportedModelError(
                f"input {value.name!r} of {path} has the dynamic shape [{dims}]",
                advice=f"NPUs compile fixed shapes: give one, for example --shape {value.name}=1,…",
            )


def _refuse_half_precision(model: onnx.ModelProto) -> None:
    """Weights in half precision may be read through a Cast, which is folded; what computes in it is no float32 graph.

    ONNX Runtime's CPU would compute it in float32 between Casts, and each weight would be quantized as an activation.
    """
    inferred = onnx.shape_inference.infer_shapes(skeleton_of(model)).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    for node in inferred.node:
        if node.op_type in WEIGHT_OPS and types.get(node.output[0]) in HALF_PRECISION:
            kind = onnx.TensorProto.DataType.Name(types[node.output[0]]).lower()
            raise UnsupportedModelError(
                f"the model computes {node.op_type} {node.output[0]!r} in {kind}", advice="export it in float32"
            )


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)


def _upgrade(original: onnx.ModelProto) -> onnx.ModelProto:
    """A copy at an opset that can carry Q/DQ, and LayerNormalization if it looks as if there were one to fuse."""
    model = _weights_unlisted(original)
    ops = {node.op_type for node in model.graph.node}
    wanted = [LAYERNORM_OPSET] if {"ReduceMean", "Sqrt"} <= ops else []
    for version in [*wanted, MIN_OPSET]:
        if _opset(model) >= version:
            return model
        try:
            model = onnx.version_converter.convert_version(model, version)
        except Exception as error:
            if version == MIN_OPSET:
                raise UnsupportedModelError(
                    f"opset {_opset(original)} cannot be upgraded to {MIN_OPSET}: {_first_line(error)}",
                    advice="export the model again with a newer opset",
                ) from error
    return model


def _weights_unlisted(original: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are no inputs. Before IR version 4 they had to be, also those that we are going to add."""
    model = onnx.ModelProto()
    model.CopyFrom(original)
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, UNLISTED_WEIGHTS_IR)
    return model


def _rewrite(base: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Constant folding, BatchNormalization and MatMul+Add merging (ONNX Runtime, basic level), then the fusions."""
    model = _optimized(base)
    notes = []
    before, after = len(base.graph.node), len(model.graph.node)
    if after < before:
        notes.append(f"folded {before} nodes to {after}")
    wrapped = ONNXModel(model)
    fusions: list[tuple[str, Callable[[ONNXModel], FusionGelu | FusionLayerNormalization]]] = [("Gelu", FusionGelu)]
    if _opset(model) >= LAYERNORM_OPSET:
        fusions.append(("LayerNormalization", FusionLayerNormalization))
    for name, fusion in fusions:
        count = sum(node.op_type == name for node in model.graph.node)
        if fusion(wrapped).apply():
            fused = sum(node.op_type == name for node in model.graph.node) - count
            notes.append(f"fused {fused} {name}")
    sort_graph(model.graph)
    return model, tuple(notes)


def _optimized(base: onnx.ModelProto) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with private_folder() as folder:
        out = folder / "optimized.onnx"
        options.optimized_model_filepath = str(out)
        try:
            ort.InferenceSession(base.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise RunError(f"ONNX Runtime cannot optimize the model: {error}") from error
        return onnx.load(out)


def _finish(model: onnx.ModelProto) -> None:
    """Names, own constants and shapes, in place."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        name = node.name or f"{node.op_type}:{node.output[0]}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}#{taken[name]}"
    _plain_biases(model)
    own_constants(model)
    infer_shapes(model, trusted=True)
    if not float_activations(model):
        raise UnsupportedModelError(
            "the model computes nothing in float32", advice="export it in float32: fp16 and bf16 are not quantized"
        )


def _plain_biases(model: onnx.ModelProto) -> None:
    """Make each constant bias of a Gemm one value a column, with beta 1, in place.

    ONNX Runtime's quantizer knows no other: it stumbles over [1, N], [M, N] and scalars, and drops beta.
    What differs from row to row (a MatMul and an Add of positions, which ONNX Runtime merges) becomes an Add again.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in reversed(list(enumerate(model.graph.node))):
        constants = [tensors.get(name) for name in node.input[1:]] if node.op_type == "Gemm" else []
        if len(constants) < 2 or constants[0] is None or constants[1] is None:
            continue
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        columns = constants[0].dims[0 if transposed else 1]
        beta = next((attribute for attribute in node.attribute if attribute.name == "beta"), None)
        bias = numpy_helper.to_array(constants[1])
        if bias.shape == (columns,) and (beta is None or beta.f == 1):
            continue
        if beta is not None:
            bias = bias * np.float32(beta.f)
            node.attribute.remove(beta)
        name = f"{node.input[2]}@{node.name}"
        if bias.ndim == 2 and bias.shape[0] > 1:
            _add_after(model, index, name)
        else:
            node.input[2] = name
            bias = np.broadcast_to(bias.reshape(-1), columns)
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(bias), name))


def _add_after(model: onnx.ModelProto, index: int, constant: str) -> None:
    """Add `constant` to what the Gemm at `index` computes, in place of its bias."""
    node = model.graph.node[index]
    result = node.output[0]
    del node.input[2]
    node.output[0] = f"{result}@{node.name}"
    added = onnx.helper.make_node("Add", [node.output[0], constant], [result], name=f"{node.name}.bias")
    model.graph.node.insert(index + 1, added)


def _difference(model: onnx.ModelProto, wanted: dict[str, NDArray[Any]], samples: Samples) -> float:
    """Largest difference over all outputs, relative to the largest value of that output."""
    got = run_reference(model, samples.first(PROOF_SAMPLES))
    if set(got) != set(wanted) or any(got[name].shape != wanted[name].shape for name in wanted):
        return np.inf
    worst = 0.0
    for name, array in wanted.items():
        if array.dtype.kind != "f":
            worst = max(worst, 0.0 if np.array_equal(array, got[name]) else np.inf)
            continue
        scale = float(np.max(np.abs(array), initial=1e-12))
        worst = max(worst, float(np.max(np.abs(array.astype(np.float64) - got[name]), initial=0.0)) / scale)
    return worst if np.isfinite(worst) else np.inf


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
