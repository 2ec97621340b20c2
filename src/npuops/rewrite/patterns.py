"""Known-bad patterns: what makes a valid model fail, fall back or lose accuracy on an NPU, and the cure.

Each entry was met for real (or is a documented limit of a toolchain). docs/check.md shows this table;
a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import onnx

from npuops.models.onnx_tensors import tensor_bytes
from npuops.models.placement import Placement, RunsOn
from npuops.rewrite.rewrite_activations import clip_bounds, gelus, hard_swishes, lone_erfs, min_max_clips
from npuops.rewrite.rewrite_graph import Graph, Site, advice_only, attribute
from npuops.rewrite.rewrite_masks import constant_masks, scaled_masks, where_masks
from npuops.rewrite.rewrite_quantized import channelled_activations, float_biases, float_islands
from npuops.rewrite.rewrite_table import REWRITES, Find
from npuops.targets.protocol import Target
from npuops.units import format_bytes

HUGE_TABLE_BYTES = 16 * 2**20

HOST_ENGINES = frozenset({"ort-cpu"})
"""Targets that take every operator: only advice about other NPUs would be left to give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """To which targets a pattern matters."""

    words: str
    holds: Callable[[Target], bool]


def family_of(target: Target) -> str:
    """`qnn-htp` of `qnn-htp:sm8650`."""
    return target.name.partition(":")[0]


def only(*families: str) -> Scope:
    """The named families."""
    return Scope(words=", ".join(families), holds=lambda target: family_of(target) in families)


NPUS: Final = Scope(words="every NPU", holds=lambda target: family_of(target) not in HOST_ENGINES)
INTEGER: Final = Scope(
    words="NPUs that quantize",
    holds=lambda target: (
        family_of(target) not in HOST_ENGINES and any(kind.is_quantized for kind in target.traits.precisions)
    ),
)
STATIC: Final = Scope(words="targets with static shapes", holds=lambda target: target.traits.static_shapes)
GAMMA: Final = Scope(words="qnn-htp", holds=lambda target: target.traits.layernorm_gamma_uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One known-bad pattern."""

    id: str
    scope: Scope
    find: Find
    message: str
    fix: str = ""
    """Name in `REWRITES`, or empty where no safe rewrite exists; then the message says what to do."""
    on_cpu_only: bool = False
    """It matters only where the placement puts one of its nodes on the CPU."""

    def sites(self, graph: Graph, target: Target, placed: dict[str, Placement]) -> tuple[tuple[str, ...], ...]:
        """Node names of every place where the pattern matters to the target."""
        if not self.scope.holds(target):
            return ()
        found = tuple(site.names for site in self.find(graph))
        if not self.on_cpu_only:
            return found
        return tuple(names for names in found if any(_is_away(placed, name) for name in names))


def _is_away(placed: dict[str, Placement], name: str) -> bool:
    return name in placed and placed[name].runs_on is RunsOn.CPU


def _cured(  # the finder of the rewrite is the finder of the pattern, unless it is narrower
    fix: str,
    *,
    id: str,  # noqa: A002 - the field's name
    scope: Scope,
    message: str,
    find: Find | None = None,
    on_cpu_only: bool = False,
) -> Pattern:
    return Pattern(
        id=id, scope=scope, find=find or REWRITES[fix].find, message=message, fix=fix, on_cpu_only=on_cpu_only
    )


def _nodes(*ops: str) -> Find:
    return lambda graph: (advice_only(node) for node in graph.of(*ops))


def _dynamic_inputs(graph: Graph) -> Iterator[Site]:
    loose = [name for name in sorted(graph.inputs) if graph.static_shape(name) is None]
    for name in loose:
        yield advice_only(onnx.NodeProto(name=name))


def _doubles(graph: Graph) -> Iterator[Site]:
    for node in graph.nodes:
        if any(graph.dtype(name) == onnx.TensorProto.DOUBLE for name in node.output if name):
            yield advice_only(node)


def _huge_tables(graph: Graph) -> Iterator[Site]:
    for node in graph.of("Gather"):
        table = graph.initializers.get(node.input[0])
        if table is not None and tensor_bytes(table) > HUGE_TABLE_BYTES:
            yield advice_only(node)


def _odd_resizes(graph: Graph) -> Iterator[Site]:
    for node in graph.of("Resize"):
        mode = attribute(node, "mode", "nearest")
        coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
        if mode == "cubic" or attribute(node, "antialias", 0) or coordinates.startswith("tf_"):
            yield advice_only(node)


def _open_clips(graph: Graph) -> Iterator[Site]:
    return (advice_only(node) for node in graph.of("Clip") if clip_bounds(graph, node) is None)


_scaled = partial(_cured, "additive-mask", scope=INTEGER)

PATTERNS: Final = (
    _scaled(
        id="float-where-mask",
        find=where_masks,
        message="an attention mask chooses a huge negative number with Where: the HTP compiler can die on it at the "
        "end (QNN MEM_ALLOC 1002), and an 8-bit scale that holds it turns the scores into noise; add -100 instead",
    ),
    _scaled(
        id="huge-scaled-mask",
        find=scaled_masks,
        message="an attention mask is multiplied by a huge negative number: its quantized range leaves one step for "
        "all scores; -100 hides as well",
    ),
    _scaled(
        id="huge-constant-mask",
        find=constant_masks,
        message="a constant attention mask holds -inf or -FLT_MAX, which has no 8-bit scale (QNN cannot compose the "
        "graph); -100 hides as well",
    ),
    _cured(
        "layernorm-gamma-uint8",
        id="layernorm-gamma",
        scope=GAMMA,
        message="a quantized LayerNormalization has an int8 or per-channel gamma: HTP refuses it (error 3110) and the "
        "node falls to the CPU; it wants per-tensor uint8",
    ),
    Pattern(
        id="per-channel-activations",
        scope=only("qnn-htp"),
        find=channelled_activations,
        message="activations are quantized per channel (NNCF does so): HTP takes the graph and computes garbage; "
        "quantize the float model again with npuops build",
    ),
    Pattern(
        id="float-bias-without-output-scale",
        scope=only("qnn-htp", "ethos-u"),
        find=float_biases,
        message="a quantized layer has a float bias and no quantized output: integer hardware has no scale to compute "
        "with; quantize the float model again with npuops build",
    ),
    Pattern(
        id="float-island",
        scope=INTEGER,
        find=float_islands,
        message="heavy operators of this quantized graph stayed in float: they run on the CPU or crawl; include them "
        "when you quantize",
    ),
    Pattern(
        id="dynamic-shape",
        scope=STATIC,
        find=_dynamic_inputs,
        message="inputs have no fixed shape and the compiler needs one: give it with --shape NAME=1x3x224x224",
    ),
    _cured(
        "fold-constants",
        id="computed-constants",
        scope=NPUS,
        message="weights or shapes are computed inside the graph: compilers want them as constants",
    ),
    _cured(
        "fuse-layernorm",
        id="decomposed-layernorm",
        scope=only("qnn-htp", "openvino"),
        message="LayerNormalization is spelt out: its squares and means go through 8-bit tensors and lose accuracy; "
        "the fused operator keeps them inside",
    ),
    _cured(
        "fuse-gelu",
        id="decomposed-gelu",
        scope=only("qnn-htp", "openvino"),
        find=gelus,
        message="Gelu is spelt out with Erf or Tanh: a quantized Erf falls to the CPU, and every step is rounded; "
        "fuse it",
    ),
    Pattern(
        id="lone-erf",
        scope=NPUS,
        find=lone_erfs,
        on_cpu_only=True,
        message="Erf outside of a Gelu has no NPU operator: replace it by Tanh or a table when you export",
    ),
    _cured(
        "fuse-hardswish",
        id="decomposed-hardswish",
        scope=only("qnn-htp", "openvino", "ethos-u"),
        find=hard_swishes,
        message="HardSwish is spelt out: one operator saves three passes over the tensor",
    ),
    _cured(
        "fold-batchnorm",
        id="separate-batchnorm",
        scope=INTEGER,
        message="batch normalization stands apart from its convolution: fold it before quantizing, or a tensor is "
        "rounded twice",
    ),
    _cured(
        "drop-leftovers",
        id="leftovers",
        scope=NPUS,
        message="nodes that do nothing at inference (Identity, Dropout, a Cast to the same type) split fused blocks",
    ),
    _cured(
        "fuse-clip",
        id="min-max-clip",
        scope=INTEGER,
        find=min_max_clips,
        message="a clamp is spelt out with Min, Max or Relu: as one Clip it melts into the layer before it",
    ),
    _cured(
        "global-pool",
        id="spatial-mean",
        scope=NPUS,
        on_cpu_only=True,
        message="ReduceMean over height and width: as GlobalAveragePool it runs on the pooling unit",
    ),
    _cured(
        "einsum-to-matmul",
        id="einsum",
        scope=NPUS,
        message="NPUs have no Einsum (QNN leaves it to the CPU); this one is a MatMul",
    ),
    Pattern(
        id="einsum-other",
        scope=NPUS,
        find=_nodes("Einsum"),
        on_cpu_only=True,
        message="NPUs have no Einsum: write it as MatMul, Transpose and Reshape before you export",
    ),
    _cured(
        "plain-gemm",
        id="odd-gemm",
        scope=NPUS,
        message="Gemm with transA, alpha or beta: fully-connected units have none of them (QNN refuses alpha and beta)",
    ),
    _cured(
        "conv-to-2d",
        id="one-dimensional-conv",
        scope=NPUS,
        on_cpu_only=True,
        message="1-D convolution or pooling, where the hardware works on images: height 1 is the same",
    ),
    _cured(
        "softmax-last-axis",
        id="softmax-inner-axis",
        scope=NPUS,
        on_cpu_only=True,
        message="Softmax over an axis that is not the last, which is the one that NPUs take",
    ),
    _cured(
        "sum-to-adds",
        id="wide-sum",
        scope=NPUS,
        on_cpu_only=True,
        message="Sum of several tensors: NPUs add two at a time",
    ),
    _cured(
        "square-to-mul",
        id="square-by-pow",
        scope=INTEGER,
        message="Pow(x, 2): a general power is slow or absent, and its exponent is quantized too; Mul(x, x) is exact",
    ),
    _cured(
        "div-to-mul",
        id="constant-division",
        scope=INTEGER,
        message="division by a constant: integer hardware multiplies",
    ),
    _cured(
        "nearest-resize",
        id="nearest-resize-mode",
        scope=NPUS,
        on_cpu_only=True,
        message="nearest Resize in an unusual coordinate mode: for whole factors the common one is the same",
    ),
    Pattern(
        id="odd-resize",
        scope=NPUS,
        find=_odd_resizes,
        on_cpu_only=True,
        message="cubic, antialiased or cropping Resize falls to the CPU: export with mode linear or nearest",
    ),
    _cured(
        "merge-transposes",
        id="transpose-pair",
        scope=NPUS,
        message="a Transpose follows a Transpose: each one moves the whole tensor through memory",
    ),
    _cured(
        "narrow-indices",
        id="int64-indices",
        scope=NPUS,
        on_cpu_only=True,
        message="constant Gather indices are int64: NPUs index with int32",
    ),
    Pattern(
        id="computed-clip-bounds",
        scope=NPUS,
        find=_open_clips,
        on_cpu_only=True,
        message="Clip with bounds computed at run time falls to the CPU: export them as constants",
    ),
    Pattern(
        id="float64",
        scope=NPUS,
        find=_doubles,
        message="float64 has no NPU hardware: convert the model to float32 before you export",
    ),
    Pattern(
        id="huge-embedding",
        scope=NPUS,
        find=_huge_tables,
        message=f"an embedding table is larger than {format_bytes(HUGE_TABLE_BYTES)}: look it up on the host and feed "
        "the vectors, or it takes the device's memory for a copy of a few rows",
    ),
    Pattern(
        id="recurrent",
        scope=NPUS,
        find=_nodes("LSTM", "GRU", "RNN", "Loop", "Scan", "If"),
        on_cpu_only=True,
        message="recurrence or control flow falls to the CPU: export one step with its state as input and output",
    ),
    Pattern(
        id="postprocessing",
        scope=NPUS,
        find=_nodes("NonMaxSuppression", "NonZero", "TopK", "Unique", "RoiAlign", "Compress"),
        on_cpu_only=True,
        message="post-processing with data-dependent shapes belongs on the host: cut the model before it",
    ),
)
"""In the order in which advice is given: what breaks a build first."""
