"""Small graphs, spelt as exporters spell them: the known-bad patterns that the tests cure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLT_MIN = float(np.finfo(np.float32).min)

Shape = Sequence[int | str]


class Builder:
    """Collects nodes and constants of one graph."""

    def __init__(self, seed: int = 7) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def constant(self, value: Any, name: str = "") -> str:
        array = np.asarray(value, dtype=np.float32) if isinstance(value, float) else np.asarray(value)
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant((self.random.standard_normal(shape) / math.sqrt(shape[0])).astype(np.float32))

    def add(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=f"/{out}", **attributes))
        return out

    def model(
        self,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        *,
        opset: int = 17,
        dtypes: Mapping[str, int] | None = None,
        foreign: Sequence[str] = (),
    ) -> onnx.ModelProto:
        kinds = dtypes or {}

        def info(name: str, shape: Shape) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), list(shape))

        graph = helper.make_graph(
            self.nodes,
            "case",
            [info(name, shape) for name, shape in inputs.items()],
            [info(name, shape) for name, shape in outputs.items()],
            self.constants,
        )
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in foreign)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(proto)
        return proto


def attention(mask: str, *, length: int = 16, width: int = 32, leak: bool = False) -> onnx.ModelProto:
    """Single-head attention as transformers exports it.

    `mask`: `where-scores`, `where-mask` (BERT's inverted mask), `where-keep`, `scaled` or `constant`;
    `leak` makes the masked scores an output of their own.
    """
    b = Builder()
    query, key, value = (b.add("MatMul", "x", b.weights(width, width)) for _ in range(3))
    turned = b.add("Transpose", key, perm=[0, 2, 1])
    scores = b.add("Mul", b.add("MatMul", query, turned), b.constant(1 / math.sqrt(width)))
    masked = _masked(b, mask, scores, length)
    out = b.add("MatMul", b.add("MatMul", b.add("Softmax", masked, axis=-1), value), b.weights(width, width), out="y")
    inputs: dict[str, Shape] = {"x": [1, length, width]}
    if mask != "constant":
        inputs["attention_mask"] = [1, length]
    outputs: dict[str, Shape] = {out: [1, length, width]}
    if leak:
        outputs[masked] = [1, length, length]
    return b.model(inputs, outputs, dtypes={"attention_mask": TensorProto.INT64})


def _masked(b: Builder, mask: str, scores: str, length: int) -> str:
    if mask == "constant":
        hidden = np.triu(np.full((length, length), -np.inf, dtype=np.float32), 1)
        return b.add("Add", scores, b.constant(hidden, "causal"), out="masked")
    wide = b.add("Unsqueeze", "attention_mask", b.constant(np.array([1], dtype=np.int64)))
    huge = b.constant(FLT_MIN, "huge")
    if mask == "where-keep":
        keep = b.add("Cast", wide, to=TensorProto.BOOL)
        return b.add("Where", keep, scores, huge, out="masked")
    inverted = b.add("Sub", b.constant(1.0), b.add("Cast", wide, to=TensorProto.FLOAT))
    if mask == "scaled":
        return b.add("Add", scores, b.add("Mul", inverted, huge), out="masked")
    hide = b.add("Cast", inverted, to=TensorProto.BOOL)
    if mask == "where-scores":
        return b.add("Where", hide, huge, scores, out="masked")
    return b.add("Add", scores, b.add("Where", hide, huge, inverted), out="masked")


def torch_layernorm(*, opset: int = 17, affine: bool = True, square: str = "Pow") -> onnx.ModelProto:
    b = Builder()
    axes = {"axes": [-1]} if opset < 18 else {}
    extra = () if opset < 18 else (b.constant(np.array([-1], dtype=np.int64)),)
    centred = b.add("Sub", "x", b.add("ReduceMean", "x", *extra, **axes))
    squared = b.add("Pow", centred, b.constant(2.0)) if square == "Pow" else b.add("Mul", centred, centred)
    variance = b.add("ReduceMean", squared, *extra, **axes)
    root = b.add("Sqrt", b.add("Add", variance, b.constant(1e-12)))
    last = b.add("Div", centred, root)
    if affine:
        last = b.add("Add", b.add("Mul", last, b.weights(32)), b.weights(32))
    b.add("MatMul", last, b.weights(32, 8), out="y")
    return b.model({"x": [1, 6, 32]}, {"y": [1, 6, 8]}, opset=opset)


def tensorflow_layernorm() -> onnx.ModelProto:
    b = Builder()
    mean = b.add("ReduceMean", "x", axes=[2])
    centred = b.add("Sub", "x", mean)
    variance = b.add("ReduceMean", b.add("Mul", centred, centred), axes=[2])
    root = b.add("Reciprocal", b.add("Sqrt", b.add("Add", variance, b.constant(1e-3))))
    gain = b.add("Mul", root, b.weights(32))
    shift = b.add("Sub", b.weights(32), b.add("Mul", mean, gain))
    b.add("Add", b.add("Mul", "x", gain), shift, out="y")
    return b.model({"x": [1, 6, 32]}, {"y": [1, 6, 32]})


def gelu(spelling: str, *, opset: int = 17) -> onnx.ModelProto:
    b = Builder()
    x = b.add("MatMul", "x", b.weights(16, 16))
    if spelling.startswith("tanh"):
        _tanh_gelu(b, x, spelling)
        return b.model({"x": [4, 16]}, {"y": [4, 16]}, opset=opset)
    inner = b.add("Erf", b.add("Div", x, b.constant(math.sqrt(2))))
    plus = b.add("Add", inner, b.constant(1.0))
    match spelling:
        case "erf-torch":
            b.add("Mul", b.add("Mul", x, plus), b.constant(0.5), out="y")
        case "erf-half-first":
            b.add("Mul", b.add("Mul", x, b.constant(0.5)), plus, out="y")
        case _:
            b.add("Mul", x, b.add("Mul", b.constant(0.5), plus), out="y")
    return b.model({"x": [4, 16]}, {"y": [4, 16]}, opset=opset)


def _tanh_gelu(b: Builder, x: str, spelling: str) -> None:
    cubic = b.add("Mul", b.add("Mul", x, x), x) if spelling == "tanh-mul" else b.add("Pow", x, b.constant(3.0))
    inner = b.add("Add", x, b.add("Mul", cubic, b.constant(0.044715)))
    tanh = b.add("Tanh", b.add("Mul", inner, b.constant(math.sqrt(2 / math.pi))))
    b.add("Mul", b.add("Mul", x, b.constant(0.5)), b.add("Add", tanh, b.constant(1.0)), out="y")


def hardswish(spelling: str) -> onnx.ModelProto:
    b = Builder()
    x = b.add("MatMul", "x", b.weights(16, 16))
    if spelling == "hardsigmoid":
        b.add("Mul", x, b.add("HardSigmoid", x, alpha=1 / 6, beta=0.5), out="y")
    else:
        inner = b.add("Clip", b.add("Add", x, b.constant(3.0)), b.constant(0.0), b.constant(6.0))
        b.add("Div", b.add("Mul", x, inner), b.constant(6.0), out="y")
    return b.model({"x": [4, 16]}, {"y": [4, 16]})


def batchnorm(*, bias: bool = True) -> onnx.ModelProto:
    b = Builder()
    parts = ["x", b.weights(8, 3, 3, 3), *([b.weights(8)] if bias else [])]
    conv = b.add("Conv", *parts, pads=[1, 1, 1, 1], strides=[2, 2])
    norm = [
        b.weights(8),
        b.weights(8),
        b.weights(8),
        b.constant(np.abs(b.random.standard_normal(8)).astype("f4") + 0.1),
    ]
    b.add("Relu", b.add("BatchNormalization", conv, *norm, epsilon=1e-3), out="y")
    return b.model({"x": [1, 3, 16, 16]}, {"y": [1, 8, 8, 8]})


def constants() -> onnx.ModelProto:
    b = Builder()
    shape = b.constant(np.array([16, 8], dtype=np.int64))
    filled = b.add("ConstantOfShape", shape, value=numpy_helper.from_array(np.array([0.25], dtype=np.float32)))
    scaled = b.add("Mul", b.add("Neg", filled), b.constant(2.0))
    b.add("MatMul", "x", scaled, out="y")
    return b.model({"x": [4, 16]}, {"y": [4, 8]})


def leftovers() -> onnx.ModelProto:
    b = Builder()
    x = b.add("Identity", "x")
    x = b.add("Dropout", b.add("MatMul", x, b.weights(16, 16)))
    x = b.add("Cast", b.add("Concat", x, axis=0), to=TensorProto.FLOAT)
    b.add("Identity", b.add("Relu", x), out="y")
    return b.model({"x": [4, 16]}, {"y": [4, 16]})


def single(op: str, shape: Shape, result: Shape, *extra: Any, opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    """One operator on `x` and constants."""
    b = Builder()
    b.add(op, "x", *(b.constant(value) for value in extra), out="y", **attributes)
    return b.model({"x": shape}, {"y": result}, opset=opset)


def relu_min() -> onnx.ModelProto:
    b = Builder()
    b.add("Min", b.add("Relu", b.add("MatMul", "x", b.weights(16, 16))), b.constant(0.5), out="y")
    return b.model({"x": [4, 16]}, {"y": [4, 16]})


def pooled(*, keepdims: int) -> onnx.ModelProto:
    b = Builder()
    conv = b.add("Relu", b.add("Conv", "x", b.weights(8, 3, 3, 3)))
    b.add("ReduceMean", conv, axes=[2, 3], keepdims=keepdims, out="y")
    return b.model({"x": [1, 3, 9, 9]}, {"y": [1, 8, 1, 1] if keepdims else [1, 8]})


def conv1d() -> onnx.ModelProto:
    b = Builder()
    conv = b.add("Conv", "x", b.weights(6, 4, 5), b.weights(6), pads=[2, 1], strides=[2], dilations=[1])
    b.add("MaxPool", conv, kernel_shape=[2], strides=[2], out="y")
    return b.model({"x": [1, 4, 21]}, {"y": [1, 6, 5]})


def wide_sum() -> onnx.ModelProto:
    b = Builder()
    branches = [b.add("MatMul", "x", b.weights(16, 16)) for _ in range(4)]
    b.add("Sum", *branches, out="y")
    return b.model({"x": [4, 16]}, {"y": [4, 16]})


def transposes() -> onnx.ModelProto:
    b = Builder()
    there = b.add("Transpose", "x", perm=[0, 2, 3, 1])
    back = b.add("Relu", b.add("Transpose", there, perm=[0, 3, 1, 2]))
    twice = b.add("Transpose", b.add("Transpose", back, perm=[0, 2, 3, 1]), perm=[1, 0, 2, 3])
    b.add("Neg", twice, out="y")
    return b.model({"x": [1, 3, 4, 5]}, {"y": [4, 1, 5, 3]})


def einsum(equation: str, left: Shape, right: Shape, result: Shape) -> onnx.ModelProto:
    b = Builder()
    b.add("Einsum", "x", "z", out="y", equation=equation)
    return b.model({"x": left, "z": right}, {"y": result})


def embedding() -> onnx.ModelProto:
    b = Builder()
    b.add("Add", b.add("Gather", b.weights(20, 8), b.constant(np.array([3, 1, 19], dtype=np.int64))), "x", out="y")
    return b.model({"x": [3, 8]}, {"y": [3, 8]})


def quantized_layernorm(*, per_channel: bool) -> onnx.ModelProto:
    """QDQ around a LayerNormalization whose gamma is int8, as ORT's quantizer writes it."""
    b = Builder()
    step, zero = b.constant(0.05), b.constant(np.array(128, dtype=np.uint8))
    levels = b.constant(b.random.integers(60, 127, 32).astype(np.int8))
    if per_channel:
        steps = b.constant((b.random.uniform(0.5, 2.0, 32) / 100).astype(np.float32))
        gamma = b.add("DequantizeLinear", levels, steps, b.constant(np.zeros(32, dtype=np.int8)), axis=0)
    else:
        gamma = b.add("DequantizeLinear", levels, b.constant(0.01), b.constant(np.array(0, dtype=np.int8)))
    beta_levels = b.constant(b.random.integers(-900, 900, 32).astype(np.int32))
    beta = b.add("DequantizeLinear", beta_levels, b.constant(0.0005), b.constant(np.array(0, dtype=np.int32)))
    x = b.add("DequantizeLinear", b.add("QuantizeLinear", "x", step, zero), step, zero)
    normal = b.add("LayerNormalization", x, gamma, beta, axis=-1)
    b.add("DequantizeLinear", b.add("QuantizeLinear", normal, step, zero), step, zero, out="y")
    return b.model({"x": [1, 6, 32]}, {"y": [1, 6, 32]})


CASES: dict[str, list[onnx.ModelProto]] = {
    "fold-constants": [constants()],
    "drop-leftovers": [leftovers()],
    "additive-mask": [attention(mask) for mask in ("where-scores", "where-mask", "where-keep", "scaled", "constant")],
    "fuse-layernorm": [
        torch_layernorm(),
        torch_layernorm(opset=11),
        torch_layernorm(opset=18, square="Mul"),
        torch_layernorm(affine=False),
        tensorflow_layernorm(),
    ],
    "fuse-gelu": [
        *(gelu(spelling) for spelling in ("erf-torch", "erf-half-first", "erf-half-last", "tanh-pow", "tanh-mul")),
        gelu("erf-torch", opset=20),
    ],
    "fuse-hardswish": [hardswish("hardsigmoid"), hardswish("clip")],
    "fold-batchnorm": [batchnorm(), batchnorm(bias=False)],
    "fuse-clip": [relu_min()],
    "global-pool": [pooled(keepdims=1), pooled(keepdims=0)],
    "einsum-to-matmul": [
        einsum("bhid,bhjd->bhij", [1, 2, 3, 4], [1, 2, 5, 4], [1, 2, 3, 5]),
        einsum("bij, bjk -> bik", [2, 3, 4], [2, 4, 5], [2, 3, 5]),
        einsum("bij,bjk->bki", [2, 3, 4], [2, 4, 5], [2, 5, 3]),
    ],
    "plain-gemm": [
        single("Gemm", [8, 4], [4, 6], np.ones((8, 6), dtype=np.float32), transA=1),
        single(
            "Gemm",
            [4, 8],
            [4, 6],
            np.arange(48, dtype=np.float32).reshape(6, 8),
            np.arange(6, dtype=np.float32),
            alpha=0.25,
            beta=2.0,
            transB=1,
        ),
    ],
    "conv-to-2d": [conv1d()],
    "softmax-last-axis": [single("Softmax", [1, 5, 7], [1, 5, 7], axis=1)],
    "sum-to-adds": [wide_sum()],
    "square-to-mul": [single("Pow", [4, 4], [4, 4], np.array(2.0, dtype=np.float32))],
    "div-to-mul": [single("Div", [4, 4], [4, 4], np.array([3.0, 7.0, 0.1, 255.0], dtype=np.float32))],
    "nearest-resize": [
        single(
            "Resize", [1, 2, 4, 4], [1, 2, 8, 12], np.array([], dtype=np.float32), np.array([1, 1, 2, 3], dtype="f4")
        )
    ],
    "merge-transposes": [transposes()],
    "narrow-indices": [embedding()],
    "layernorm-gamma-uint8": [quantized_layernorm(per_channel=False), quantized_layernorm(per_channel=True)],
}
"""Rewrite → graphs that it must cure."""
