"""Turn a torch module into a weightless ONNX graph: export, fold, strip the weights, shorten the names."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import warnings
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnx import TensorProto
from slim import drop_defaults
from spec import Spec
from torch import nn

OPSET = 20  # the first with Gelu as one operator
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
_KEPT_INTEGERS = 256  # elements: shapes, axes, slices and indices; longer tables lose their values too
_MATMUL_FUSIONS = ["MatMulAddFusion"]  # would put Reshape around every 3-D linear layer


def export_skeleton(spec: Spec, target: Path) -> float:
    """Write the skeleton of `spec` to `target`; the answer is the parameter count in millions."""
    torch.manual_seed(0)
    network = spec.build().eval()
    mparams = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        raw, folded = Path(folder, "raw.onnx"), Path(folder, "folded.onnx")
        _export(network, spec, raw)
        del network
        if spec.export_shapes:
            _set_input_shapes(raw, spec)
        _fold(raw, folded)
        model = onnx.load(str(folded))
    _strip(model)
    drop_defaults(model)
    _rename(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(target))
    return mparams


def _shake(network: nn.Module) -> None:
    """Random values everywhere: weights that start equal or at zero would be folded or stored once."""
    for parameter in network.parameters():
        parameter.requires_grad_(requires_grad=False)
        if parameter.is_floating_point():
            parameter.uniform_(-0.1, 0.1)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:  # noqa: SLF001
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def _export(network: nn.Module, spec: Spec, path: Path) -> None:
    _shake(network)
    torch.backends.mha.set_fastpath_enabled(value=False)  # its fused operator has no ONNX form
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            spec.inputs(),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=True,
            input_names=[f"input{index}" for index in range(len(spec.shapes))],
        )


def _set_input_shapes(path: Path, spec: Spec) -> None:
    model = onnx.load(str(path))
    for info, shape in zip(model.graph.input, spec.shapes, strict=True):
        for dim, value in zip(info.type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = value
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def _fold(source: Path, target: Path) -> None:
    """Constant folding and batch-norm folding by ONNX Runtime's basic level: standard operators only."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(
        str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=_MATMUL_FUSIONS
    )


def _strip(model: onnx.ModelProto) -> None:
    graph = model.graph
    domains = {node.domain for node in graph.node}
    if domains - {"", "ai.onnx"}:
        raise ValueError(f"operators outside standard ONNX: {sorted(domains)}")
    resize = {name for node in graph.node if node.op_type == "Resize" for name in node.input}
    used = {name for node in graph.node for name in node.input} | {info.name for info in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    for tensor in kept:
        count = math.prod(tensor.dims)
        limit = 1 if tensor.data_type in _FLOATS else _KEPT_INTEGERS
        if count > limit and tensor.name not in resize:
            bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(bare)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:], model.metadata_props[:], graph.metadata_props[:]
    opsets = [opset for opset in model.opset_import if opset.domain in {"", "ai.onnx"}]
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", opsets[0].version)])
    graph.doc_string = model.doc_string = model.producer_version = ""
    model.producer_name = "npuops-skeleton"
    graph.name = "g"


def _short(number: int) -> str:
    """A number in base 36."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = digits[number % 36]
    while number := number // 36:
        text = digits[number % 36] + text
    return text


def _rename(model: onnx.ModelProto) -> None:
    graph = model.graph
    names = {"": ""}
    names.update({info.name: f"in{index}" for index, info in enumerate(graph.input)})
    names.update({tensor.name: f"w{_short(index)}" for index, tensor in enumerate(graph.initializer)})
    names.update({info.name: f"out{index}" for index, info in enumerate(graph.output)})
    count = 0
    for index, node in enumerate(graph.node):
        node.name, node.doc_string = f"n{_short(index)}", ""
        del node.metadata_props[:]
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise ValueError(f"{node.op_type}: a node with a subgraph")
        for name in node.output:
            if name not in names:
                names[name], count = f"t{_short(count)}", count + 1
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names[value.name]
