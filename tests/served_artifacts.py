"""Artifacts for the tests of the server, compiled for `ort-cpu` without the steps of a whole build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from npuops.artifacts.folder import write_artifact
from npuops.artifacts.manifest import Artifact, CompileRecord, FileRecord, Manifest, ModelIdentity, Role
from npuops.models.open import open_model
from npuops.models.placement import FallbackRatio, PlacementReport
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target


def ort_artifact(folder: Path, model: Path, **changes: Any) -> Artifact:
    """Compile an ONNX file for this processor, one thread, free sizes left free."""
    folder.mkdir(parents=True)
    target = open_target("ort-cpu")
    source = open_model(model)
    options = CompileOptions(precision=Precision.FP32, vendor={"intra_op_num_threads": "1"})
    done = target.compile(source, options, folder)
    values: dict[str, Any] = {
        "created": "2026-11-22T08:00:00Z",
        "npuops": "0.1.0",
        "model": ModelIdentity(
            name=model.stem, digest=source.digest, format="onnx", opset=17, macs=source.macs, weight_bytes=1
        ),
        "target": "ort-cpu",
        "precision": "fp32",
        "inputs": source.inputs,
        "outputs": source.outputs,
        "entry": done.entry,
        "files": tuple(FileRecord(name=name, role=Role.COMPILED, sha256="", bytes=0) for name in done.files),
        "quantization": None,
        "placement": PlacementReport(nodes=done.placement, fallback_ratio=FallbackRatio(ops=0.0, macs=None)),
        "toolchain": target.probe().toolchain,
        "compatibility": done.compatibility,
        "compile": CompileRecord(seconds=0.01, cache_key="test", vendor_options={"intra_op_num_threads": "1"}),
    }
    return write_artifact(folder, Manifest(**{**values, **changes}))


def tiny_cnn(path: Path, *, batch: int | str = "N", seed: int = 0) -> Path:
    """Two small convolutions over 28x28 digits, and a linear layer: `x` f32[batch,1,28,28] → `y` f32[batch,10]."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array((rng.normal(size=shape) * 0.1).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "w3"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 28, 28])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])]
    constants = [weights("w1", 8, 1, 3, 3), weights("w2", 16, 8, 3, 3), weights("w3", 784, 10)]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    return save(path, graph)


def identity(path: Path, kind: int, *, shape: tuple[int | str, ...] = ("N", 4)) -> Path:
    """`x` comes back as `y`, in any datatype."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", kind, list(shape))],
    )
    return save(path, graph)


def save(path: Path, graph: onnx.GraphProto) -> Path:
    """As a model of opset 17."""
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
