"""The models of the serving comparison, made into a scratch folder: tiny CNN, MobileNetV2, MiniLM-size encoder.

    python benchmarks/serving/served_models.py FOLDER

`tiny` (2 convolutions, 28x28, dynamic batch) costs about 10 µs in ONNX Runtime: it measures the server. `mobilenet` is
the real MobileNetV2 beside the checkout (or one of random weights) and `minilm` an encoder of 6 layers, 384 wide, 128
tokens, of random weights: they measure what a server leaves of the engine. Batches pay on a CPU for the tiny one only,
so the other two are served as they are published, one row at a time, on every server.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "examples" / "minilm"))

import export

from npuops.cli.demo_models import crops, photo_files
from npuops.errors import NpuopsError

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("NPUOPS_SHARED", str(CHECKOUT.parent / "shared"))) / "models"
DATATYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
MAX_ROWS = {"tiny": 32}
"""Rows that a server may join; a model that is not named is served alone (its first axis is a fixed 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model file, one request for it, and the right answer."""

    name: str
    path: Path
    max_rows: int
    inputs: dict[str, NDArray[Any]]
    """One row of each input, first axis 1."""
    output: str
    answer: NDArray[np.float32]
    """What ONNX Runtime says in this process to those inputs."""

    @property
    def is_batched(self) -> bool:
        """Whether the first axis is free."""
        return self.max_rows > 1

    def datatype(self, name: str) -> str:
        """The protocol's name of an input's type."""
        return DATATYPES[str(self.inputs[name].dtype)]


def make(name: str, folder: Path) -> ServedModel:
    """Make the model file where it does not exist yet, and describe it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    if not path.is_file():
        part = path.with_suffix(".part")
        onnx.save((MAKERS | FAULT_MODELS)[name](), part)
        part.replace(path)
    session = ort_session(path)
    inputs = {item.name: sample(item.name, item.shape, item.type) for item in session.get_inputs()}
    if name == "mobilenet" and (photo := photo_crops(seed=2)):
        inputs = {name: np.round(array, 4) for name, array in photo[0].items()}
    output = session.get_outputs()[0].name
    answer = session.run([output], inputs)[0]
    return ServedModel(
        name=name, path=path, max_rows=MAX_ROWS.get(name, 1), inputs=inputs, output=output, answer=answer
    )


def second_version(model: ServedModel, folder: Path) -> ServedModel:
    """The same network with another answer (twice the first): what a hot swap puts in its place."""
    proto = onnx.load(model.path)
    (producer,) = [node for node in proto.graph.node if model.output in node.output]
    producer.output[list(producer.output).index(model.output)] = "once"
    proto.graph.initializer.append(numpy_helper.from_array(np.float32([2]), "two"))
    proto.graph.node.append(helper.make_node("Mul", ["once", "two"], [model.output], name="double"))
    path = folder / f"{model.name}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)
    return ServedModel(
        name=model.name,
        path=path,
        max_rows=model.max_rows,
        inputs=model.inputs,
        output=model.output,
        answer=ort_session(path).run([model.output], model.inputs)[0],
    )


def ort_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """ONNX Runtime as every server here uses it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def sample(name: str, shape: list[Any], kind: str) -> NDArray[Any]:
    """One row of numbers with four decimals, so that JSON and binary say the same."""
    chance = np.random.default_rng(7)
    shape = [1 if not isinstance(size, int) else size for size in shape]
    if "int" in kind:
        return chance.integers(1, 1000, shape).astype(np.int64 if "64" in kind else np.int32)
    if name == "mask":
        return np.ones(shape, np.float32)
    return np.round(chance.standard_normal(shape), 4).astype(np.float32)


def photo_crops(seed: int) -> list[dict[str, NDArray[Any]]]:
    """Crops of the real photos beside the checkout for the real MobileNetV2; none where they are not there."""
    try:
        return crops(photo_files(), "x", seed=seed)
    except NpuopsError:
        return []


def tiny() -> onnx.ModelProto:
    """f32[N,1,28,28] → f32[N,10]: two strided convolutions and a linear layer."""
    chance = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(chance.normal(0, 0.2, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("Flatten", ["r2"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["y"], name="linear"),
    ]
    weights = [
        weight("w1", 8, 1, 3, 3),
        weight("b1", 8),
        weight("w2", 16, 8, 3, 3),
        weight("b2", 16),
        weight("w3", 784, 10),
        weight("b3", 10),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    return finished(graph)


def steady() -> onnx.ModelProto:
    """f32[1,1,32,32] → f32[1,10], about 2 ms on one core: small bodies and real work, for faults and tenants."""
    chance = np.random.default_rng(5)
    nodes, weights, tensor, into = [], [], "x", 1
    for index, width in enumerate([64] * 7):
        kernel = chance.normal(0, (2 / (9 * into)) ** 0.5, (width, into, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(helper.make_node("Conv", [tensor, f"w{index}"], [f"c{index}"], f"conv{index}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}"))
        tensor, into = f"r{index}", width
    weights.append(numpy_helper.from_array(chance.normal(0, 0.2, (64, 10)).astype(np.float32), "head"))
    nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    nodes.append(helper.make_node("Gemm", ["flat", "head"], ["y"], "linear"))
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 32, 32])]
    taken = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])]
    return finished(helper.make_graph(nodes, "steady", given, taken, weights))


def mobilenet() -> onnx.ModelProto:
    """The real file; without it, the same shape of network with random weights."""
    path = SHARED / "vision" / "mobilenet_v2_1.0_224_fp32.onnx"
    return onnx.load(path) if path.is_file() else random_mobilenet()


def random_mobilenet() -> onnx.ModelProto:
    """MobileNetV2 1.0/224 (arXiv 1801.04381, table 2) with random weights: f32[1,3,224,224] → f32[1,1001]."""
    chance = np.random.default_rng(2)
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []

    def conv(tensor: str, into: int, out: int, kernel: int, stride: int, *, depthwise: bool, clip: bool) -> str:
        at = f"c{len(nodes)}"
        fan = kernel * kernel * (1 if depthwise else into)
        kernel_shape = (out, 1 if depthwise else into, kernel, kernel)
        weights.append(numpy_helper.from_array(chance.normal(0, (2 / fan) ** 0.5, kernel_shape).astype("f"), f"{at}.w"))
        pads = [kernel // 2] * 4
        groups = into if depthwise else 1
        nodes.append(
            helper.make_node("Conv", [tensor, f"{at}.w"], [at], at, strides=[stride] * 2, pads=pads, group=groups)
        )
        if clip:
            nodes.append(helper.make_node("Clip", [at, "zero", "six"], [f"{at}.6"], f"{at}.clip"))
        return f"{at}.6" if clip else at

    weights += [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))]
    tensor, width = conv("x", 3, 32, 3, 2, depthwise=False, clip=True), 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for grow, out, repeats, first_stride in table:
        for index in range(repeats):
            stride, before = (first_stride if index == 0 else 1), tensor
            wide = conv(tensor, width, width * grow, 1, 1, depthwise=False, clip=True) if grow > 1 else tensor
            deep = conv(wide, width * grow, width * grow, 3, stride, depthwise=True, clip=True)
            tensor = conv(deep, width * grow, out, 1, 1, depthwise=False, clip=False)
            if stride == 1 and width == out:
                nodes.append(helper.make_node("Add", [before, tensor], [f"{tensor}.sum"], f"{tensor}.add"))
                tensor = f"{tensor}.sum"
            width = out
    tensor = conv(tensor, width, 1280, 1, 1, depthwise=False, clip=True)
    weights.append(numpy_helper.from_array(chance.normal(0, 0.03, (1280, 1001)).astype("f"), "head"))
    nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    nodes.append(helper.make_node("Gemm", ["flat", "head"], ["y"], "linear"))
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])]
    taken = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1001])]
    return finished(helper.make_graph(nodes, "mobilenet", given, taken, weights))


def minilm() -> onnx.ModelProto:
    """The graph of examples/minilm with random weights: ids i32[1,128], mask f32[1,128] → emb f32[1,384]."""
    chance = np.random.default_rng(3)
    width, vocabulary = 384, 30522
    weights: dict[str, NDArray[np.float32]] = {}

    def add(key: str, *shape: int) -> None:
        weights[key] = chance.normal(0, 0.05, shape).astype(np.float32)

    for key, rows in (("word", vocabulary), ("position", 512), ("token_type", 2)):
        add(f"embeddings.{key}_embeddings.weight", rows, width)
    norms = ["embeddings.LayerNorm"]
    for index in range(6):
        at = f"encoder.layer.{index}"
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        square = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        for key, rows, columns in (
            *((part, width, width) for part in [*square, f"{at}.attention.output.dense"]),
            (f"{at}.intermediate.dense", 4 * width, width),
            (f"{at}.output.dense", width, 4 * width),
        ):
            add(f"{key}.weight", rows, columns)
            add(f"{key}.bias", rows)
    for key in norms:
        weights[f"{key}.weight"] = np.ones(width, np.float32)
        weights[f"{key}.bias"] = np.zeros(width, np.float32)
    model: onnx.ModelProto = export.build(weights)
    return model


def finished(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A checked model."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="npuops-benchmark")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


MAKERS: dict[str, Callable[[], onnx.ModelProto]] = {"tiny": tiny, "mobilenet": mobilenet, "minilm": minilm}
FAULT_MODELS = {"steady": steady}
"""Not part of the comparison of rates."""


if __name__ == "__main__":
    for made in (make(name, Path(sys.argv[1])) for name in MAKERS):
        row_bytes = sum(array.nbytes for array in made.inputs.values())
        print(json.dumps({"name": made.name, "file": str(made.path), "row_bytes": row_bytes}))
