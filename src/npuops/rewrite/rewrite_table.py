"""Every rewrite by name: what it promises, and how near its result must be to count as equal.

This module knows no engine: `npuops check` finds patterns with it in milliseconds. The proof of equality,
which runs both graphs, is in `npuops.rewrite.rewrites`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import version_converter

from npuops.errors import UnsupportedModelError
from npuops.evaluate.equality import IDENTICAL, REQUANTIZED, ROUNDING, Tolerance
from npuops.models.shapes import skeleton_of
from npuops.rewrite.rewrite_activations import GELUS, HARD_SWISH, gelus, hard_swishes, min_max_clips
from npuops.rewrite.rewrite_algebra import (
    constant_divisions,
    inner_softmaxes,
    leftovers,
    paired_transposes,
    spatial_means,
    squares,
    wide_sums,
)
from npuops.rewrite.rewrite_constants import batch_norms, computed_constants
from npuops.rewrite.rewrite_graph import Graph, Site, apply_sites
from npuops.rewrite.rewrite_layernorm import OPSET as LAYERNORM_OPSET
from npuops.rewrite.rewrite_layernorm import layernorms
from npuops.rewrite.rewrite_masks import constant_masks, scaled_masks, where_masks
from npuops.rewrite.rewrite_operators import einsums, narrow_convolutions, nearest_resizes, odd_gemms, wide_indices
from npuops.rewrite.rewrite_quantized import signed_gammas

Find = Callable[[Graph], Iterator[Site]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A pass from model to model: same inputs and outputs, valid ONNX, equal results within `tolerance`."""

    name: str
    promise: str
    find: Find
    tolerance: Tolerance = ROUNDING
    opset: int = 1
    """The result needs this opset; older models are raised to it first."""


def _masks(graph: Graph) -> Iterator[Site]:
    yield from where_masks(graph)
    yield from scaled_masks(graph)
    yield from constant_masks(graph)


_TABLE: Final = (
    # Constants first: they make the other patterns visible. Fusions come before the algebra that takes them apart.
    Rewrite(name="fold-constants", promise="computed constants become initializers", find=computed_constants),
    Rewrite(name="drop-leftovers", promise="nodes that do nothing go", find=leftovers, tolerance=IDENTICAL),
    Rewrite(name="additive-mask", promise="attention masks add -100 instead of choosing -FLT_MAX", find=_masks),
    Rewrite(name="fuse-layernorm", promise="one LayerNormalization operator", find=layernorms, opset=LAYERNORM_OPSET),
    Rewrite(name="fuse-gelu", promise="one Gelu operator", find=gelus, opset=max(a.opset for a in GELUS)),
    Rewrite(
        name="fuse-hardswish",
        promise="one HardSwish operator",
        find=hard_swishes,
        opset=max(a.opset for a in HARD_SWISH),
    ),
    Rewrite(name="fold-batchnorm", promise="batch normalization goes into its convolution", find=batch_norms),
    Rewrite(name="fuse-clip", promise="Min and Max become one Clip", find=min_max_clips, opset=11, tolerance=IDENTICAL),
    Rewrite(name="global-pool", promise="spatial ReduceMean becomes GlobalAveragePool", find=spatial_means),
    Rewrite(name="einsum-to-matmul", promise="Einsum becomes Transpose and MatMul", find=einsums),
    Rewrite(name="plain-gemm", promise="Gemm without transA, alpha and beta", find=odd_gemms),
    Rewrite(name="conv-to-2d", promise="1-D convolution and pooling become 2-D", find=narrow_convolutions, opset=13),
    Rewrite(name="softmax-last-axis", promise="Softmax over the last axis", find=inner_softmaxes, opset=13),
    Rewrite(name="sum-to-adds", promise="Sum becomes Add", find=wide_sums),
    Rewrite(name="square-to-mul", promise="Pow(x, 2) becomes Mul", find=squares),
    Rewrite(name="div-to-mul", promise="division by a constant becomes Mul", find=constant_divisions),
    Rewrite(name="nearest-resize", promise="nearest Resize in the common mode", find=nearest_resizes, opset=11),
    Rewrite(name="merge-transposes", promise="pairs of Transpose become one or none", find=paired_transposes),
    Rewrite(name="narrow-indices", promise="constant Gather indices in int32", find=wide_indices, tolerance=IDENTICAL),
    Rewrite(
        name="layernorm-gamma-uint8",
        promise="LayerNormalization gamma as per-tensor uint8",
        find=signed_gammas,
        tolerance=REQUANTIZED,
    ),
)

REWRITES: Final[dict[str, Rewrite]] = {rewrite.name: rewrite for rewrite in _TABLE}
"""Name → rewrite, in the order in which they are applied."""


def rewrite_model(
    proto: onnx.ModelProto, rewrite: Rewrite, *, wanted: frozenset[tuple[str, ...]] | None = None
) -> tuple[onnx.ModelProto, tuple[tuple[str, ...], ...]]:
    """The rewritten copy, checked, and the node names of every site that was rewritten.

    Args:
        proto: stays as it is.
        rewrite: what to do.
        wanted: node names of the sites to rewrite; all when None.

    Raises:
        UnsupportedModelError: the result would not be valid ONNX, or the model's opset cannot be raised.
    """
    if not any(True for _ in rewrite.find(Graph(proto))):
        return proto, ()
    try:
        result, sites = apply_sites(_raise_opset(proto, rewrite.opset), rewrite.find, wanted=wanted)
        onnx.checker.check_model(skeleton_of(result))
    except Exception as error:  # the version converter, the checker and onnx.reference raise anything
        words = str(error).strip().split("\n", maxsplit=1)[0][:300]
        raise UnsupportedModelError(f"{rewrite.name} would not give a valid model: {words}") from error
    return (result, sites) if sites else (proto, ())


def _raise_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    if Graph(proto).opset >= opset:
        return proto
    raised = version_converter.convert_version(proto, opset)
    raised.ir_version = max(raised.ir_version, onnx.helper.OP_SET_ID_VERSION_MAP.get(("ai.onnx", opset), 8))
    return raised
