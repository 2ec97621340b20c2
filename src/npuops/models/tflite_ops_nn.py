"""TFLite → ONNX: convolutions, pooling, matrix products, softmax, resizing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from npuops.errors import UnsupportedModelError
from npuops.models.tflite_builder import Importer, Layout, OnnxBuilder
from npuops.models.tflite_graph import TfliteOp


def _activation(op: TfliteOp) -> str:
    return op.word("fused_activation_function", "NONE")


def _pads(op: TfliteOp, size: Sequence[int], out: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """ONNX pads [top, left, bottom, right]; SAME puts the odd pixel behind (TFLite's ComputePadding)."""
    if op.word("padding") != "SAME":
        return [0, 0, 0, 0]
    strides = (op.number("stride_h", 1), op.number("stride_w", 1))
    dilations = (op.number("dilation_h_factor", 1), op.number("dilation_w_factor", 1))
    before, after = [], []
    for length, result, width, stride, dilation in zip(size, out, kernel, strides, dilations, strict=True):
        total = max((result - 1) * stride + (width - 1) * dilation + 1 - length, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


def _conv(builder: OnnxBuilder, op: TfliteOp) -> None:
    source, weight, result = op.inputs[0], op.inputs[1], op.outputs[0]
    kernel = builder.sizes(weight)
    channels = builder.sizes(source)[3]
    if op.op == "DEPTHWISE_CONV_2D":
        group, name = channels, builder.weight(weight, lambda values: values.transpose(3, 0, 1, 2), 0)
    else:
        group, name = channels // kernel[3], builder.weight(weight, lambda values: values.transpose(0, 3, 1, 2), 0)
    bias = builder.bias(op.inputs[2] if len(op.inputs) > 2 else -1, source, weight)
    value = builder.node(
        "Conv",
        [builder.value(source, Layout.NCHW), name, *([bias] if bias else [])],
        kernel_shape=list(kernel[1:3]),
        strides=[op.number("stride_h", 1), op.number("stride_w", 1)],
        dilations=[op.number("dilation_h_factor", 1), op.number("dilation_w_factor", 1)],
        pads=_pads(op, builder.sizes(source)[1:3], builder.sizes(result)[1:3], kernel[1:3]),
        group=group,
    )
    builder.put(result, value, Layout.NCHW, _activation(op))


def _transpose_conv(builder: OnnxBuilder, op: TfliteOp) -> None:
    weight, source, result = op.inputs[1], op.inputs[2], op.outputs[0]
    kernel = builder.sizes(weight)
    strides = [op.number("stride_h", 1), op.number("stride_w", 1)]
    before, after, extra = [], [], []
    for at in (0, 1):
        full = (builder.sizes(source)[1 + at] - 1) * strides[at] + kernel[1 + at]
        cut = full - builder.sizes(result)[1 + at]
        before.append(max(cut, 0) // 2)
        after.append(max(cut, 0) - max(cut, 0) // 2)
        extra.append(max(-cut, 0))
    bias = builder.bias(op.inputs[3] if len(op.inputs) > 3 else -1, source, weight)
    name = builder.weight(weight, lambda values: values.transpose(3, 0, 1, 2), 1)
    value = builder.node(
        "ConvTranspose",
        [builder.value(source, Layout.NCHW), name, *([bias] if bias else [])],
        kernel_shape=list(kernel[1:3]),
        strides=strides,
        pads=before + after,
        output_padding=extra,
    )
    builder.put(result, value, Layout.NCHW, _activation(op))


def _fully_connected(builder: OnnxBuilder, op: TfliteOp) -> None:
    source, weight, result = op.inputs[0], op.inputs[1], op.outputs[0]
    if op.word("weights_format", "DEFAULT") != "DEFAULT":
        raise UnsupportedModelError(f"{builder.layer}: shuffled weights", advice="convert the model again")
    width, depth = builder.sizes(weight)
    rows = int(np.prod(builder.sizes(source))) // depth
    value = _flat(builder, source, (rows, depth))
    bias = builder.bias(op.inputs[2] if len(op.inputs) > 2 else -1, source, weight)
    # Attention multiplies activations with this operator: then the second operand flows too.
    name = builder.value(weight) if builder.array(weight) is None else builder.weight(weight, lambda values: values, 0)
    value = builder.node("Gemm", [value, name, *([bias] if bias else [])], transB=1)
    if builder.sizes(result) == (rows, width):
        builder.put(result, value, Layout.TF, _activation(op))
        return
    inner = builder.rounded(result, builder.activated(result, value, _activation(op)))
    builder.put(result, builder.reshape(inner, builder.sizes(result)))


def _flat(builder: OnnxBuilder, source: int, shape: tuple[int, int]) -> str:
    sizes = builder.sizes(source)
    if sizes == shape:
        return builder.value(source)
    pixel = len(sizes) == 4 and sizes[1] == sizes[2] == 1
    value = builder.value(source, builder.layout(source) if pixel else Layout.TF)
    return builder.rounded(source, builder.reshape(value, shape))


def _batch_matmul(builder: OnnxBuilder, op: TfliteOp) -> None:
    values = []
    for index, turned in zip(op.inputs, ("adj_x", "adj_y"), strict=True):
        value = builder.value(index)
        if op.number(turned):
            order = list(range(len(builder.sizes(index))))
            order[-2:] = [order[-1], order[-2]]
            value = builder.rounded(index, builder.node("Transpose", [value], perm=order))
        values.append(value)
    builder.put(op.outputs[0], builder.node("MatMul", values))


def _pool(name: str) -> Importer:
    def add(builder: OnnxBuilder, op: TfliteOp) -> None:
        source, result = op.inputs[0], op.outputs[0]
        size, out = builder.sizes(source)[1:3], builder.sizes(result)[1:3]
        kernel = (op.number("filter_height", 1), op.number("filter_width", 1))
        value = builder.value(source, Layout.NCHW)
        if name == "AveragePool" and kernel == size and out == (1, 1) and op.word("padding") == "VALID":
            builder.put(result, builder.node("GlobalAveragePool", [value]), Layout.NCHW, _activation(op))
            return
        strides = [op.number("stride_h", 1), op.number("stride_w", 1)]
        pads = _pads(op, size, out, kernel)
        value = builder.node(name, [value], kernel_shape=list(kernel), strides=strides, pads=pads)
        builder.put(result, value, Layout.NCHW, _activation(op))

    return add


def _softmax(builder: OnnxBuilder, op: TfliteOp) -> None:
    value = builder.value(op.inputs[0])
    beta = op.options.get("beta", 1.0)
    if isinstance(beta, float) and beta != 1.0:
        value = builder.node("Mul", [value, builder.initializer(np.asarray(beta, np.float32))])
    builder.put(op.outputs[0], builder.node("Softmax", [value], axis=-1))


def _log_softmax(builder: OnnxBuilder, op: TfliteOp) -> None:
    builder.put(op.outputs[0], builder.node("LogSoftmax", [builder.value(op.inputs[0])], axis=-1))


def _resize(mode: str) -> Importer:
    def add(builder: OnnxBuilder, op: TfliteOp) -> None:
        source, result = op.inputs[0], op.outputs[0]
        batch, high, wide, channels = builder.sizes(result)
        corners, centers = bool(op.number("align_corners")), bool(op.number("half_pixel_centers"))
        where = "align_corners" if corners else "half_pixel" if centers else "asymmetric"
        extra = {"nearest_mode": "round_prefer_ceil" if corners or centers else "floor"} if mode == "nearest" else {}
        inputs = [builder.value(source, Layout.NCHW), "", "", builder.ints((batch, channels, high, wide))]
        value = builder.node("Resize", inputs, mode=mode, coordinate_transformation_mode=where, **extra)
        builder.put(result, value, Layout.NCHW)

    return add


def _depth_to_space(builder: OnnxBuilder, op: TfliteOp) -> None:
    value = builder.value(op.inputs[0], Layout.NCHW)
    builder.put(
        op.outputs[0],
        builder.node("DepthToSpace", [value], blocksize=op.number("block_size"), mode="DCR"),
        Layout.NCHW,
    )


def _space_to_depth(builder: OnnxBuilder, op: TfliteOp) -> None:
    value = builder.value(op.inputs[0], Layout.NCHW)
    value = builder.node("SpaceToDepth", [value], blocksize=op.number("block_size"))
    builder.put(op.outputs[0], value, Layout.NCHW)


NN: Final[Mapping[str, Importer]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "MAX_POOL_2D": _pool("MaxPool"),
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": _log_softmax,
    "RESIZE_BILINEAR": _resize("linear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "DEPTH_TO_SPACE": _depth_to_space,
    "SPACE_TO_DEPTH": _space_to_depth,
}
"""TFLite operator → what adds it."""
