"""Drop node attributes that say what ONNX assumes anyway: a third of a skeleton's bytes."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, helper

_ONES, _ZEROS = {"dilations", "strides"}, {"pads"}
_WINDOWS = {"Conv", "ConvTranspose", "MaxPool", "AveragePool"}
_DEFAULTS: dict[tuple[str, str], object] = {
    ("Conv", "auto_pad"): b"NOTSET",
    ("Conv", "group"): 1,
    ("ConvTranspose", "auto_pad"): b"NOTSET",
    ("ConvTranspose", "group"): 1,
    ("MaxPool", "auto_pad"): b"NOTSET",
    ("MaxPool", "ceil_mode"): 0,
    ("MaxPool", "storage_order"): 0,
    ("AveragePool", "auto_pad"): b"NOTSET",
    ("AveragePool", "ceil_mode"): 0,
    ("AveragePool", "count_include_pad"): 0,
    ("Softmax", "axis"): -1,
    ("LayerNormalization", "axis"): -1,
    ("LayerNormalization", "stash_type"): 1,
    ("Gather", "axis"): 0,
    ("Gemm", "alpha"): 1.0,
    ("Gemm", "beta"): 1.0,
    ("Gemm", "transA"): 0,
    ("Gemm", "transB"): 0,
    ("Gelu", "approximate"): b"none",
    ("Reshape", "allowzero"): 0,
    ("Unsqueeze", "allowzero"): 0,
    ("ReduceMean", "keepdims"): 1,
    ("ReduceMax", "keepdims"): 1,
    ("ReduceMax", "noop_with_empty_axes"): 0,
    ("ReduceMean", "noop_with_empty_axes"): 0,
    ("ArgMax", "select_last_index"): 0,
    ("Cast", "saturate"): 1,
    ("Resize", "cubic_coeff_a"): -0.75,
    ("Resize", "antialias"): 0,
    ("Resize", "exclude_outside"): 0,
    ("Resize", "extrapolation_value"): 0.0,
    ("Resize", "keep_aspect_ratio_policy"): b"stretch",
}


def drop_defaults(model: onnx.ModelProto) -> None:
    """Remove default attributes; a convolution's window is read from its weight."""
    for node in model.graph.node:
        kept = [attribute for attribute in node.attribute if not _says_nothing(node.op_type, attribute)]
        del node.attribute[:]
        node.attribute.extend(kept)


def _says_nothing(op: str, attribute: AttributeProto) -> bool:
    value = helper.get_attribute_value(attribute)
    if op in _WINDOWS and attribute.name in _ONES:
        return set(value) == {1}
    if op in _WINDOWS and attribute.name in _ZEROS:
        return set(value) == {0}
    if op in {"Conv", "ConvTranspose"} and attribute.name == "kernel_shape":
        return True
    return (op, attribute.name) in _DEFAULTS and value == _DEFAULTS[op, attribute.name]
