"""Small float graphs for the tests of quantization: a transformer-like block with an outlier channel, and a CNN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

from npuops.evaluate.sample_sources import fitted_samples
from npuops.evaluate.samples import Samples
from npuops.models.model import TensorInfo

WIDTH = 32
BLOCK_INPUT = (TensorInfo(name="x", dtype="float32", shape=(4, WIDTH)),)
CNN_INPUT = (TensorInfo(name="x", dtype="float32", shape=(1, 3, 16, 16)),)


def save(path: Path, nodes: list[onnx.NodeProto], shapes: tuple[list[int], list[int]], **constants: np.ndarray) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes[0])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def written(path: Path, text: str, *, opset: int = 21, **constants: np.ndarray) -> Path:
    """A graph in ONNX's text form, with those of the constants that it reads."""
    model = onnx.parser.parse_model(f'<ir_version: {10 if opset > 20 else 8}, opset_import: ["" : {opset}]> g {text}')
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(constants[name], name) for name in sorted(read & {*constants})
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    """Float32 noise."""
    return (np.random.default_rng(seed).standard_normal(shape) * 0.4).astype(np.float32)


def outlier_block(path: Path) -> Path:
    """Gemm → Gelu → Gemm → residual Add → LayerNormalization → Gemm; one channel of the sum is 400 times larger."""
    generator = np.random.default_rng(0)

    def weight() -> np.ndarray:
        return (generator.standard_normal((WIDTH, WIDTH)) / 6).astype(np.float32)

    narrow = weight()
    narrow[3] *= 400
    node = helper.make_node
    return save(
        path,
        [
            node("Gemm", ["x", "w1", "b"], ["wide"], name="first", transB=1),
            node("Gelu", ["wide"], ["active"], name="gelu"),
            node("Gemm", ["active", "w2", "b"], ["narrow"], name="second", transB=1),
            node("Add", ["x", "narrow"], ["sum"], name="residual"),
            node("LayerNormalization", ["sum", "gamma", "b"], ["normed"], name="norm", axis=-1),
            node("Gemm", ["normed", "w3", "b"], ["y"], name="last", transB=1),
        ],
        ([4, WIDTH], [4, WIDTH]),
        w1=weight(),
        w2=narrow,
        w3=weight(),
        b=np.zeros(WIDTH, np.float32),
        gamma=np.where(np.arange(WIDTH) == 3, 0.02, 1).astype(np.float32),
    )


def small_cnn(path: Path) -> Path:
    """Conv → BatchNormalization → Relu → Conv → GlobalAveragePool → Flatten → Softmax."""
    generator = np.random.default_rng(1)
    node = helper.make_node
    ones = np.ones(8, np.float32)
    return save(
        path,
        [
            node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["c1", "s", "o", "o", "s"], ["bn"]),
            node("Relu", ["bn"], ["r1"]),
            node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", ["c2"], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"]),
            node("Softmax", ["flat"], ["y"], axis=-1),
        ],
        ([1, 3, 16, 16], [1, 5]),
        w1=(generator.standard_normal((8, 3, 3, 3)) / 3).astype(np.float32),
        w2=generator.standard_normal((5, 8, 3, 3)).astype(np.float32),
        s=ones * 1.5,
        o=ones * 0.1,
    )


def noise(inputs: tuple[TensorInfo, ...], count: int, seed: int) -> Samples:
    generator = np.random.default_rng(seed)
    shape = tuple(int(dim or 0) for dim in inputs[0].shape or ())
    rows = [{"x": generator.standard_normal(shape)} for _ in range(count)]
    return fitted_samples(rows, inputs, source=f"noise {seed}")
